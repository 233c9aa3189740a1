"""Attempts of executors that keep checkpoints: from the newest of an earlier attempt to what is left of one's own."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mloc_tasks.attempt import Attempt
from mloc_tasks.checkpoints.saved import SavedCheckpoints, remove_checkpoints
from mloc_tasks.checkpoints.uploads import CheckpointUploads
from mloc_tasks.errors import AttemptCancelledError, BrokerError, MlocError, StaleAttemptError
from mloc_tasks.execution import Prepared
from mloc_tasks.hosting import Watch
from mloc_tasks.locks import locked, locked_if_free
from mloc_tasks.saved_rows import rows_key

logger = logging.getLogger("mloc.attempt")

KEEP = 1  # checkpoints in the store, where `training.save_total_limit` says nothing
CANCELLED_SEC = 3.0  # that the end of a cancelled attempt waits for its last checkpoint
OWNER = "mloc-attempt.json"  # in an attempt's folder: whose it is, locked by its process
LEFT_SEC = 60.0  # after which a folder that nobody has locked is one that a killed process left


@contextmanager
def keeping_checkpoints(attempt: Attempt, stage: Prepared) -> Iterator[CheckpointUploads | None]:
    """Within the block checkpoints can go to the store; None where the executor keeps none.

    The block ends when the result is stored. When it fails, what is complete on this machine is stored before. The
    checkpoints are removed once the result counts; those of a stage that failed or was cancelled stay for its next
    attempt, which may be after `mloc retry` or `mloc resume`. Raises `StoreUnavailableError`.
    """
    if stage.executor.light or not stage.executor.keeps_checkpoints:
        yield None
        return
    place, record = attempt.place, attempt.record
    attempt.after_commit.append(partial(remove_checkpoints, place.store, attempt.shard_prefix))
    after = record.base if record.fresh else 0
    saved = SavedCheckpoints(place.store, attempt.shard_prefix, _key(stage), attempt=record.attempt, after=after)
    with _folder(attempt) as folder:
        uploads = CheckpointUploads(
            saved,
            folder,
            keep=_keep(stage),
            holds=partial(
                place.ledger.holds, attempt.job.run_id, attempt.job.stage, record.shard, attempt=record.attempt
            ),
            tell=partial(_tell, attempt),
        )
        if record.attempt > 1:
            uploads.fetch()
        try:
            yield uploads
        except StaleAttemptError:
            uploads.abandon()
            raise
        except AttemptCancelledError:
            uploads.save_last(lambda: None, within_sec=CANCELLED_SEC)
            raise
        except (MlocError, OSError):
            uploads.save_last(Watch(attempt).look)
            raise
        finally:
            uploads.end()


def _key(stage: Prepared) -> str:
    """What two attempts must agree on to share checkpoints."""
    executor = [stage.executor.name, stage.executor.version]
    return rows_key({"document": stage.document, "executor": executor}, stage.upstream)


def _keep(stage: Prepared) -> int:
    limit = getattr(stage.spec.training, "save_total_limit", None)
    return KEEP if limit is None else max(1, int(limit))


def _tell(attempt: Attempt, text: str, level: str) -> None:
    logger.log(logging.getLevelName(level.upper()), "%s: %s", attempt.prefix, text)
    with suppress(BrokerError):  # it is in the worker's log
        attempt.report.log(text, level=level)


@contextmanager
def _folder(attempt: Attempt) -> Iterator[Path]:
    """A folder for the attempt's checkpoints, after those that killed attempts left here: gigabytes, perhaps."""
    with attempt.place.scratch(attempt.job.run_id) as folder:
        owner = folder / OWNER
        owner.write_text(json.dumps({"shard": attempt.shard_prefix, "attempt": attempt.record.attempt}))
        with locked(owner):
            for other in folder.parent.glob(f"*/{OWNER}"):
                with suppress(OSError, ValueError, TypeError, KeyError):
                    if other != owner and (_is_of_earlier(other, attempt) or _is_of_the_dead(other)):
                        shutil.rmtree(other.parent, ignore_errors=True)
            yield folder


def _is_of_earlier(owner: Path, attempt: Attempt) -> bool:
    """Whether a folder is of an attempt that `attempt` has taken over from."""
    found = json.loads(owner.read_text())
    return bool(found["shard"] == attempt.shard_prefix and found["attempt"] < attempt.record.attempt)


def _is_of_the_dead(owner: Path) -> bool:
    """Whether a folder's process has died, of whatever run; not one that is about to take its lock."""
    if time.time() - owner.stat().st_mtime < LEFT_SEC:
        return False
    with locked_if_free(owner, create=False) as free:
        return free
