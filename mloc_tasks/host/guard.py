"""The parent of an executor host: `python -I -S guard.py LIFE_FD COMMAND...`. Leaves nothing of the host behind.

It ends the host, with every process that the host has started, when the host's owner is gone: the owner holds the other
end of the pipe LIFE_FD, which closes with it however it ends. When the host itself ends, what it has started (engine
processes, data loaders, torchrun's workers) is ended too. SIGTERM is passed on to the host's process group. Exits as
the host did: its exit code, or 128 + the signal that ended it.

Runs isolated, without site-packages, on the standard library alone: it starts in milliseconds and takes little memory.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
DESCENDANTS_GONE_SEC = 10.0


def main() -> int:
    life, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the host become ours, also those of a session of their own
    guard = os.getpid()
    host = os.fork()
    if host == 0:
        os.close(life)
        os.setpgid(0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)
        os.execvp(command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: _signal(os.killpg, host, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _close_all_but(life)
    ended = os.pidfd_open(host)
    while True:
        readable, _, _ = select.select([ended, life], [], [])  # SIGTERM's handler runs in between
        if readable:
            break
    _signal(os.killpg, host, signal.SIGKILL)
    _, status = os.waitpid(host, 0)
    _end_descendants()
    return os.waitstatus_to_exitcode(status)


def _close_all_but(life: int) -> None:
    """The host's socket and output are the host's alone: its owner reads their end as the host's end."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, life)
    os.closerange(life + 1, 1024)


def _signal(send: Callable[[int, int], None], target: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        send(target, number)


def _end_descendants() -> None:
    """Kill what the host has left, and wait until it is gone."""
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
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listed:
            return [int(word) for word in listed.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    code = main()
    os._exit(128 - code if code < 0 else code)
