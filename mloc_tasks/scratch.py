"""Scratch folders on a machine's own disk: each is in use while its process lives, and swept once it is not."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mloc_tasks.locks import locked, locked_if_free

PREFIX = "mloc-scratch-"
NEW_SEC = 60.0  # an empty folder may be one that its process is about to use


def make_scratch(root: str | Path, owner: str) -> Path:
    """A new, empty folder below `root` for something of `owner`, a name of one segment."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner}-", dir=root))


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Within the block, and while this process lives, `remove_left` leaves the folder alone."""
    with ExitStack() as stack:
        with suppress(OSError):  # some file systems know no locks; nobody sweeps there either
            stack.enter_context(locked(folder, create=False))
        yield


def remove_scratch(root: str | Path, owner: str) -> None:
    """Remove all of an owner's folders below `root`, in use or not."""
    for folder in Path(root).glob(f"{PREFIX}{owner}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(root: str | Path) -> None:
    """Remove the folders below `root` whose processes have died."""
    for folder in Path(root).glob(f"{PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if not any(folder.iterdir()) and time.time() - folder.stat().st_mtime < NEW_SEC:
                continue
            with locked_if_free(folder, create=False) as free:
                if free:
                    shutil.rmtree(folder, ignore_errors=True)
