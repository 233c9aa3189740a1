"""A RabbitMQ of the tests' own: everything of it lies in one folder and listens on loopback only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import amqp
import pytest
from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE, level_name

from scheduler.embedded import spawn

SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's on PATH is a wrapper that changes user and folder
START_SEC = 180.0  # a second on a machine that has nothing else to do
STOP_SEC = 20.0
CONNECT_SEC = 10.0
LOOPBACK = "127.0.0.1"


def missing() -> str:
    """Why no node can be started here; empty where one can."""
    if not SCRIPT.exists():
        return "no rabbitmq-server is installed (apt-get install --no-install-recommends rabbitmq-server)"
    return "" if shutil.which("epmd") else "no epmd is installed (erlang-base)"


class RabbitNode:
    """One node, and the port mapper (epmd) that Erlang wants beside it. `url` is its MLOC_BROKER_URL.

    `ports`: three that are reserved for it.
    """

    def __init__(self, folder: Path, ports: Sequence[int], *, consumer_timeout_ms: int | None = None) -> None:
        self._folder = folder
        self._port, self._dist_port, self._epmd_port = ports
        self._consumer_timeout_ms = consumer_timeout_ms
        self._processes: list[subprocess.Popen[bytes]] = []
        self.url = f"amqp://guest:guest@{LOOPBACK}:{self._port}//"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        env = self._environment()
        epmd = [shutil.which("epmd") or "epmd", "-address", LOOPBACK, "-port", str(self._epmd_port)]
        for command in (epmd, [str(SCRIPT)]):
            out = self._folder / f"{Path(command[0]).name}.out"
            self._processes.append(spawn(command, out, env))
        deadline = time.monotonic() + START_SEC
        while not self._answers():
            if self._processes[1].poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "rabbitmq-server.out").read_text(errors="replace")[-3000:]
                self.stop()
                raise RuntimeError(f"RabbitMQ did not start:\n{log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the node, then epmd, each with all that it started."""
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SEC)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def connect(self) -> amqp.Connection:
        """A connection of the test's own, already open."""
        connection = amqp.Connection(f"{LOOPBACK}:{self._port}", connect_timeout=CONNECT_SEC)
        connection.connect()
        return connection

    def purge(self, queue: str) -> int:
        """Drop what waits in a queue, if there is one; says how many messages that were.

        (The queue stays: a client that has declared it does not do so again.)
        """
        with self.connect() as connection:
            return purge(connection, queue)

    def forget_messages(self, queue: str) -> None:
        """Drop what waits in a queue and what waits for its time, once the last worker has given back what it held."""
        deadline = time.monotonic() + STOP_SEC
        with self.connect() as connection:
            while consumers(connection, queue):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"a worker still serves queue {queue}")
                time.sleep(0.05)
            # From the longest delays on, because what waits goes from there to the shorter ones, and then to the queue.
            for name in (*(level_name(level) for level in reversed(range(MAX_NUMBER_OF_BITS_TO_USE))), queue):
                purge(connection, name)

    def close_connections(self) -> None:
        """End every client's connection."""
        command = [str(SCRIPT.with_name("rabbitmqctl")), "close_all_connections", "a test asks for it"]
        subprocess.run(command, env=self._environment(), check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except (OSError, amqp.exceptions.AMQPError):
            return False
        return True

    def _environment(self) -> dict[str, str]:
        conf = [f"listeners.tcp.1 = {LOOPBACK}:{self._port}", "disk_free_limit.absolute = 1MB"]
        if self._consumer_timeout_ms:
            conf.append(f"consumer_timeout = {self._consumer_timeout_ms}")
        (self._folder / "rabbitmq.conf").write_text("\n".join(conf) + "\n")
        # How often a channel looks for deliveries that were not acknowledged; a minute where nobody says so.
        (self._folder / "advanced.config").write_text("[{rabbit, [{channel_tick_interval, 1000}]}].\n")
        (self._folder / "enabled_plugins").write_text("[].\n")
        cookie = self._folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(os.urandom(16).hex())
            cookie.chmod(0o400)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),  # where Erlang looks for its cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": f"mloc-test-{self._port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_BASE": str(self._folder),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._folder / "generated"),
            "RUNNING_UNDER_SYSTEMD": "true",  # the node replaces its start script: one process to end
        }


@contextlib.contextmanager
def running(*, consumer_timeout_ms: int | None = None) -> Iterator[RabbitNode]:
    """A node in a folder of its own. Nothing of either is left, whatever happens. Skips the test where none can be."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="mloc-test-", dir="/tmp"))
    with reserved_ports(3) as ports:
        node = RabbitNode(folder, ports, consumer_timeout_ms=consumer_timeout_ms)
        try:
            node.start()
            yield node
        finally:
            node.stop()
            shutil.rmtree(folder, ignore_errors=True)


def purge(connection: amqp.Connection, queue: str) -> int:
    """Drop what waits in a queue, if there is one; says how many messages that were."""
    with connection.channel() as channel, contextlib.suppress(amqp.exceptions.NotFound):
        return int(channel.queue_purge(queue))
    return 0


def consumers(connection: amqp.Connection, queue: str) -> int:
    """How many workers serve a queue; 0 where there is none."""
    with connection.channel() as channel, contextlib.suppress(amqp.exceptions.NotFound):
        return int(channel.queue_declare(queue, passive=True).consumer_count)
    return 0


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Ports of loopback to start servers on, also again: within the block nobody else is given one of them.

    The kernel gives no port twice while a socket is bound to it; one that does not listen leaves it to servers that,
    like it, allow it to be used again.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield [each.getsockname()[1] for each in sockets]
