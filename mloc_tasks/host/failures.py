"""An executor's error on its way from the host to its owner, and how a host ended that gave none."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback

from mloc_tasks import errors
from mloc_tasks.errors import (
    AttemptCancelledError,
    BrokerError,
    ConfigError,
    ExecutionError,
    IllegalTransitionError,
    MlocError,
    StaleAttemptError,
)
from mloc_tasks.host.frames import Frame

MESSAGE_CHARS = 4_000
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}
# What these say about an attempt only its worker knows.
WORKERS_OWN = (AttemptCancelledError, BrokerError, IllegalTransitionError, StaleAttemptError)


def to_frame(error: BaseException) -> Frame:
    """An error for the wire: the class's name, the message, what to do, whether another attempt may help."""
    known = isinstance(error, MlocError)
    trace = "" if known else "".join(traceback.format_exception(error))
    if isinstance(error, ImportError):
        hint = "install what is missing there, or name another interpreter; `mloc doctor` shows them"
        error, known = ConfigError(f"under {sys.executable}: {type(error).__name__}: {_text(error)}", hint=hint), True
    elif isinstance(error, (SystemExit, KeyboardInterrupt)):
        what = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else "KeyboardInterrupt"
        hint = "raise ExecutionError with the reason instead"
        error, known = ExecutionError(f"the executor ended its process by {what}", hint=hint), True
    return {
        "class": type(error).__name__,
        "known": known,
        "kind": getattr(error, "kind", ""),
        "message": _text(error),
        "hint": str(getattr(error, "hint", "")),
        "retryable": bool(getattr(error, "retryable", False))
        or isinstance(error, (ConnectionError, TimeoutError, MemoryError)),
        "errno": error.errno if isinstance(error, OSError) else None,
        "trace": trace,
    }


def from_frame(frame: Frame) -> Exception:
    """The error as it was raised, or, where its class is not ours, an `ExecutionError` that carries the class's name.

    A full disk stays an `OSError`: the owner knows what to say about its disks.
    """
    message, hint = frame["message"], frame["hint"]
    if frame["errno"] in OUT_OF_SPACE:
        return OSError(frame["errno"], os.strerror(frame["errno"]))
    found = getattr(errors, frame["class"], None) if frame["known"] else None
    if isinstance(found, type) and issubclass(found, MlocError) and not issubclass(found, WORKERS_OWN):
        error = found(message, hint=hint)
    else:
        error = ExecutionError(message if frame["known"] else f"{frame['class']}: {message}", hint=hint)
        error.kind = frame["class"]
    error.kind = frame["kind"] or error.kind
    if error.retryable != frame["retryable"]:
        error.retryable = frame["retryable"]  # type: ignore[misc]  # of this one
    return error


def how_it_ended(code: int | None) -> str:
    """An exit code in words; `code` as a shell gives it, or negative as `subprocess` does."""
    if not code:
        return "ended"
    try:
        name = signal.Signals(-code if code < 0 else code - 128).name
    except ValueError:
        return f"ended with exit code {code}"
    why = ", perhaps by the kernel for want of memory" if name == "SIGKILL" else ""
    return f"was ended by {name}{why}"


def what_to_do(code: int | None) -> str:
    """The hint beside `how_it_ended`."""
    if code not in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return ""
    return (
        "if it was for want of memory (the kernel's log says so), let the stage do less at once, such as by a smaller "
        "batch_size or max_new_tokens, or give the worker more memory"
    )


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as nested:  # the boundary: an executor's error may be unable to say what it is
        text = f"(its message cannot be read: {type(nested).__name__})"
    return text if len(text) <= MESSAGE_CHARS else f"{text[:MESSAGE_CHARS]}..."
