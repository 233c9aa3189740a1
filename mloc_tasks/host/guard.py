"""The parent of an executor host: `python -I -S guard.py LIFE_FD SOCKET_FD OWNER_PID COMMAND...`.

It leaves nothing of the host behind. When the host's owner is gone, it ends the host with every process that the host
has started: the owner holds the other end of the pipe LIFE_FD, which closes with it however it ends; where a fork of
the owner holds that end too, the owner's own end tells. When the host itself ends, what it has started (engine
processes, data loaders, torchrun's workers) is ended too. SIGTERM is passed on to the host's process group. SOCKET_FD
is the host's, who inherits it. Exits as the host did: its exit code, or 128 + the signal that ended it.

Runs isolated, without site-packages, on the standard library alone: it starts in milliseconds and takes little memory.
Outside of Linux it does what it can: what the host has started then ends with the host's process group.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
DESCENDANTS_GONE_SEC = 10.0
# Where memory runs out, the kernel is to take the host and not its owner, who has all the worker's messages.
OUT_OF_MEMORY_SCORE = "500"


def main() -> int:
    life, wire, owner = map(int, sys.argv[1:4])
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the host become ours, also those of a session of their own
    guard = os.getpid()
    host = os.fork()
    if host == 0:
        _become_the_host(life, guard, sys.argv[4:])
    with contextlib.suppress(OSError):  # both sides do it, so that it is done before either goes on
        os.setpgid(host, host)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # it wakes the loop
    signal.signal(signal.SIGTERM, lambda *_: _signal(os.killpg, host, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _leave_to_the_host(wire)
    status = _wait_for_an_end(host, woken, [life, *_end_of(owner)])
    _signal(os.killpg, host, signal.SIGKILL)
    if status is None:
        status = os.waitpid(host, 0)[1]
    _end_descendants()
    return os.waitstatus_to_exitcode(status)


def _become_the_host(life: int, guard: int, command: list[str]) -> None:
    os.close(life)
    os.setpgid(0, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(OUT_OF_MEMORY_SCORE)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode())
        os._exit(127)


def _wait_for_an_end(host: int, woken: int, ends: list[int]) -> int | None:
    """Wait for the host's end and give its status, or for its owner's and give None. Orphans that end are buried."""
    events = select.poll()  # not `select`: an owner with many files gives us numbers beyond what that takes
    for descriptor in (woken, *ends):
        events.register(descriptor, select.POLLIN)
    while True:
        for child, status in _buried():
            if child == host:
                return status
        ready = {descriptor for descriptor, _ in events.poll()}
        if woken in ready:
            os.read(woken, 1024)
        elif ready:
            return None


def _buried() -> Iterator[tuple[int, int]]:
    """Each child that has ended, with its status."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _end_of(owner: int) -> list[int]:
    """A descriptor that is readable when the owner has ended, where there are such."""
    if not hasattr(os, "pidfd_open"):
        return []
    with contextlib.suppress(OSError):
        ended = os.pidfd_open(owner)
        if os.getppid() == owner:
            return [ended]
    return []


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _leave_to_the_host(wire: int) -> None:
    """The socket and the output are the host's alone: its owner reads their end as the host's end."""
    os.close(wire)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)


def _signal(send: Callable[[int, int], None], target: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        send(target, number)


def _end_descendants() -> None:
    """Kill what the host has left, and wait until it is gone. The children of each that ends become ours."""
    deadline = time.monotonic() + DESCENDANTS_GONE_SEC
    while time.monotonic() < deadline:
        for child in _children():
            _signal(os.kill, child, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """From /proc, whose shorter list of children not every kernel has."""
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else []:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()  # after the name, which may hold anything
                if int(fields[1]) == os.getpid():
                    found.append(int(name))
    return found


if __name__ == "__main__":
    code = main()
    os._exit(128 - code if code < 0 else code)
