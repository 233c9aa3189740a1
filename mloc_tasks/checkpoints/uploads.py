"""An attempt's checkpoints on their way into the store, while its training goes on.

The executor publishes each in a folder of this machine, complete, by one rename. The worker looks there twice a second;
a thread puts the newest into the store. Those that came in between are passed over: what counts is the newest.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mloc_tasks.artifacts.disk import disk_errors, shown_bytes
from mloc_tasks.checkpoints.saved import SavedCheckpoints, Tell, step_name
from mloc_tasks.errors import BrokerError, StoreError

logger = logging.getLogger("mloc.attempt")

AGAIN_SEC = (2.0, 60.0)  # until what failed is tried again: at first, doubled each time, and at most
JOIN_SEC = 0.2  # between two looks while the last upload goes on
ENDS_SEC = 10.0  # for an upload whose files were taken away

_PUBLISHED = re.compile(r"step-(\d+)$")


class CheckpointUploads:
    """Of one attempt. All methods are its thread's, and none but `save_last` and `end` waits.

    Args:
        saved: where the checkpoints go.
        folder: of this attempt alone; what lies in it goes with the attempt.
        keep: how many checkpoints the store keeps.
        holds: whether the attempt still has its claim; may raise `BrokerError`.
        tell: takes lines for the run's log.
    """

    def __init__(
        self, saved: SavedCheckpoints, folder: Path, *, keep: int, holds: Callable[[], bool], tell: Tell
    ) -> None:
        self._saved = saved
        self._folder = folder
        self._keep = keep
        self._holds = holds
        self._tell = tell
        self._said: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._in_hand = -1  # the step that the thread is at
        self._stored = -1  # the newest step that this attempt has in the store
        self._refused = -1  # the newest step that the store will not take
        self._unsure = -1  # a step in the store of which is not known whether the claim stood then
        self._failures = 0
        self._next = 0.0  # when it may be tried again
        self.resume_from: Path | None = None
        self.checkpoint_dir = folder / "published"
        self.checkpoint_dir.mkdir()

    def fetch(self) -> None:
        """Have the newest checkpoint of an earlier attempt in `resume_from`. Raises `StoreUnavailableError`."""
        target = self._folder / "resume"
        found = self._saved.fetch(target, self._tell)
        if found is None:
            self._tell("begins anew: no checkpoint of an earlier attempt is in the store", "info")
            return
        self.resume_from = target
        self._tell(f"resumes from step {found.step}, saved by attempt {found.attempt}", "info")

    def look(self) -> None:
        """Begin to put the newest checkpoint into the store, if none is on its way; remove what is passed over."""
        self._pass_on()
        steps = self._published()
        if not steps:
            return
        self._remove_older(steps)
        if not self._busy and self._is_wanted(steps[-1]) and time.monotonic() >= self._next:
            self._begin(steps[-1])

    def save_last(self, look: Callable[[], None], *, within_sec: float = math.inf) -> None:
        """After the training has ended without a result: wait until its newest checkpoint is stored, tried once more.

        `look` may raise meanwhile.
        """
        deadline = time.monotonic() + within_sec
        tried = -1
        while time.monotonic() < deadline:
            look()
            if self._thread is not None and self._busy:
                self._thread.join(JOIN_SEC)
                continue
            newest = max(self._published(), default=-1)
            if not self._is_wanted(newest) or newest == tried:
                break
            tried = newest
            self._begin(newest)
        self._pass_on()
        newest = max(self._published(), default=-1)
        if self._is_wanted(newest):
            self._tell(
                f"the checkpoint of step {newest} is lost: the attempt ends before it is in the store", "warning"
            )

    def end(self) -> None:
        """Take its files away from an upload that is still going on, so that it fails, and wait until it has."""
        self._ended.set()
        if self._thread is not None:
            shutil.rmtree(self._outgoing, ignore_errors=True)
            self._thread.join(ENDS_SEC)
        self._pass_on()

    def abandon(self) -> None:
        """As `end`, of an attempt that a newer one has taken over from: nothing that it stored since may stay."""
        self.end()
        if self._unsure >= 0:
            self._remove(self._unsure)

    # The thread's part

    def _begin(self, step: int) -> None:
        self._in_hand = step
        self._thread = threading.Thread(target=self._upload, args=(step,), name="mloc-checkpoint", daemon=True)
        self._thread.start()

    def _upload(self, step: int) -> None:
        try:
            self._put(step)
        except (StoreError, BrokerError) as error:
            if not self._ended.is_set():
                self._note_failure(step, error)
        except Exception as error:  # the boundary: the thread has no caller, and its training goes on
            logger.exception("the checkpoint of step %d cannot be stored", step)
            self._refused = step
            self._say(f"the checkpoint of step {step} cannot be stored: {error!r}", "warning")
        finally:
            shutil.rmtree(self._outgoing, ignore_errors=True)
            self._in_hand = -1

    def _put(self, step: int) -> None:
        if not self._holds():
            return
        begun = time.monotonic()
        with disk_errors(self._folder):
            # The same files under second names, so that a store on this disk need not copy them.
            shutil.copytree(
                self.checkpoint_dir / step_name(step), self._outgoing, symlinks=True, copy_function=_link_or_copy
            )
        size = self._saved.put(step, self._outgoing).size
        self._unsure = step
        if self._ended.is_set() or not self._holds():
            self._saved.remove(step)
            self._unsure = -1
            return
        self._unsure, self._stored, self._failures = -1, step, 0
        took = time.monotonic() - begun
        self._say(f"the checkpoint of step {step} is in the store ({shown_bytes(size)} in {took:.1f} s)")
        self._saved.prune(self._keep)

    def _note_failure(self, step: int, error: StoreError | BrokerError) -> None:
        text = f"{error}; {error.hint}" if error.hint else str(error)
        if step <= self._stored:
            self._say(f"older checkpoints than that of step {step} are not removed yet: {text}", "warning")
        elif error.retryable:
            self._next = time.monotonic() + min(AGAIN_SEC[1], AGAIN_SEC[0] * 2.0**self._failures)
            self._failures += 1
            self._say(f"the checkpoint of step {step} is not in the store yet, which is tried again: {text}", "warning")
        else:
            self._refused = step
            self._say(f"the checkpoint of step {step} cannot be stored: {text}", "warning")

    def _remove(self, step: int) -> None:
        try:
            self._saved.remove(step)
        except StoreError as error:
            logger.warning("the checkpoint of step %d is not removed from the store: %s", step, error)

    def _say(self, text: str, level: str = "info") -> None:
        self._said.put((text, level))

    # Folders

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def _outgoing(self) -> Path:
        return self._folder / "outgoing"

    def _is_wanted(self, step: int) -> bool:
        return step > max(self._stored, self._refused)

    def _published(self) -> list[int]:
        """Steps of the complete checkpoints on this machine, in order."""
        return sorted(int(match[1]) for name in os.listdir(self.checkpoint_dir) if (match := _PUBLISHED.match(name)))

    def _remove_older(self, steps: list[int]) -> None:
        for step in steps[:-1]:
            if step != self._in_hand:
                shutil.rmtree(self.checkpoint_dir / step_name(step), ignore_errors=True)
        if self.resume_from is not None:  # the executor has gone on from it
            shutil.rmtree(self.resume_from, ignore_errors=True)
            self.resume_from = None

    def _pass_on(self) -> None:
        """What the thread has said goes into the log of the attempt, which is its own thread's."""
        while not self._said.empty():
            self._tell(*self._said.get())


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
    return target
