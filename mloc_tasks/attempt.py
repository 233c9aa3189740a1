"""One attempt at a shard: claim, do the work, commit. What the work is (execute, split, merge) is handed in."""

from __future__ import annotations

import errno
import logging
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from mloc_tasks.artifacts.disk import disk_error
from mloc_tasks.capabilities import shortfalls
from mloc_tasks.errors import (
    AttemptCancelledError,
    BrokerError,
    ExecutionError,
    HostCrashedError,
    IllegalTransitionError,
    MlocError,
    StaleAttemptError,
    StoreError,
)
from mloc_tasks.ledger import Claim, ClaimStatus, Failure, ShardRecord, StageJob, StageResult, State
from mloc_tasks.logtail import attempt_log
from mloc_tasks.reporting import RunReporter
from mloc_tasks.workplace import Workplace, holder, holder_is_gone

logger = logging.getLogger("mloc.attempt")

MAX_BACKOFF_SEC = 600.0
HAND_BACK_SEC = (1.0, 60.0)  # delay of the first and at most of each later hand-back by an unfit worker
BUSY_SEC = (1.0, 30.0)  # delay before a copy of a running shard's message is looked at again: the first, and at most
LEASE_MARGIN_SEC = 0.2
SURE_OF_CLAIM_SHARE = 0.15  # of the visibility timeout; see worker/visibility.py for how long a lease lasts
SIGNAL_EXITS = range(-255, -255 + signal.NSIG)  # how a pool child exits on a signal [billiard/common.py]
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """An attempt that has its claim.

    What is in `after_commit` is called once its result counts; a `StoreError` from it is a warning.
    """

    place: Workplace
    job: StageJob
    record: ShardRecord
    report: RunReporter
    after_commit: list[Callable[[], None]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def whole(self) -> bool:
        """Whether its end is the end of the stage."""
        return self.job.ends_with(self.record.shard)

    @property
    def alone(self) -> bool:
        """Whether it is to have its host for itself: the last of several tries, after a crash of a host.

        Whose fault a crash is cannot be seen where several attempts share the process. So no shard ends as failed for
        crashes that another one in its host may have caused.
        """
        crashed = any(entry["error"].get("type") == HostCrashedError.__name__ for entry in self.record.history)
        return crashed and 1 < self.record.tries == self.job.retry.max_attempts

    @property
    def prefix(self) -> str:
        """Where the attempt's artifacts go in the store."""
        return f"{self.shard_prefix}/{self.record.attempt}"

    @property
    def shard_prefix(self) -> str:
        """What all artifacts of its shard lie below."""
        return f"{self.job.run_id}/{self.job.stage}/{self.record.shard}"

    def remove_earlier(self) -> None:
        """Remove what earlier attempts stored before they were lost. None of them was committed."""
        for entry in self.record.history:
            self.place.store.delete(f"{self.shard_prefix}/{entry['attempt']}")

    def require_claim(self) -> None:
        """Raise StaleAttemptError when another attempt has taken the shard over, before anything is written for it."""
        job, record = self.job, self.record
        # So soon after the claim the worker's lease cannot have run out: nobody has taken over.
        if time.monotonic() - self.begun < self.place.settings.visibility_timeout_sec * SURE_OF_CLAIM_SHARE:
            return
        if not self.place.ledger.holds(job.run_id, job.stage, record.shard, attempt=record.attempt):
            raise StaleAttemptError(f"{self.prefix}: a newer attempt has taken over; nothing of this one is stored")


Work = Callable[[Attempt], StageResult | None]


class Verdict(StrEnum):
    """What the message of a shard has come to."""

    SETTLED = "settled"  # the shard is over; the canvas goes on
    DROPPED = "dropped"  # this message is a copy that has nothing to do; its canvas ends here
    AGAIN = "again"  # the message is to come back after `delay` seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    verdict: Verdict
    state: State | None = None
    failed: str = ""
    delay: float = 0.0
    why: str = ""
    repeated: bool = False  # it was over before this message came


def run_attempt(
    place: Workplace, run_id: str, stage: str, shard: str, *, task_id: str, worker: str, returns: int, work: Work
) -> Outcome:
    """Try a shard once. `returns` is how often this message has come back already.

    Never raises for what the work does: a failure is recorded and becomes the outcome. Raises `BrokerError` when the
    ledger cannot be reached, so that the message stays unacknowledged.
    """
    ledger = place.ledger
    try:
        job = ledger.stage_job(run_id, stage)
    except LookupError as error:
        return Outcome(verdict=Verdict.DROPPED, why=str(error))
    lacking = () if place.settings.allow_unfit else shortfalls(job.requirement, place.machine)
    if lacking and ledger.is_open(run_id, stage):
        return _hand_back(place, job, worker, lacking, returns)
    claim = _claim(place, job, shard, task_id=task_id, worker=worker)
    record = claim.shard
    if claim.status is ClaimStatus.SETTLED and record is not None:
        return _settled(record)
    if claim.status is ClaimStatus.BUSY and record is not None:
        # Kept in circulation: should the holder vanish, this copy is the one that takes over.
        # A live holder renews its lease long before it ends; a dead one's shard is free right after.
        soonest = ledger.lease_left(record.worker) + LEASE_MARGIN_SEC
        delay = min(BUSY_SEC[1], BUSY_SEC[0] * 2.0**returns, soonest)
        return Outcome(verdict=Verdict.AGAIN, delay=delay, why=f"{record.worker} holds it")
    if claim.status is not ClaimStatus.CLAIMED or record is None:
        return Outcome(verdict=Verdict.DROPPED, why=f"{run_id}/{stage}[{shard}] is {claim.status}")
    attempt_log().clear()
    report = RunReporter(ledger, run_id, stage, shard, record.attempt)
    attempt = Attempt(place=place, job=job, record=record, report=report)
    try:
        if record.tries > job.retry.max_attempts:
            return _record_failure(attempt, _poison(record))
        return _work_and_commit(attempt, work)
    except AttemptCancelledError as error:
        logger.warning("%s: %s", attempt.prefix, error)
        refused = _claim(place, job, shard, task_id=task_id, worker=worker).shard  # which ends the shard as cancelled
        if refused is not None and refused.state.is_final:
            return _settled(refused)
        return Outcome(verdict=Verdict.DROPPED, why=str(error))
    except (StaleAttemptError, IllegalTransitionError) as error:
        logger.warning("%s", error)
        place.store.delete(attempt.prefix)
        if ledger.run(run_id).state.is_final:
            place.sweep(run_id)  # this attempt may have come back after the run's end
        now = ledger.shard(run_id, stage, shard)
        # Settled over its head: by a newer attempt, or timed out in a thread that cannot be killed.
        return _settled(now) if now and now.state.is_final else Outcome(verdict=Verdict.DROPPED, why=str(error))


def _settled(record: ShardRecord) -> Outcome:
    failed = str(record.error) if record.error else ""
    return Outcome(verdict=Verdict.SETTLED, state=record.state, failed=failed, repeated=True)


def _work_and_commit(attempt: Attempt, work: Work) -> Outcome:
    job, record = attempt.job, attempt.record
    try:
        attempt.remove_earlier()
        result = work(attempt)
        state = State.CACHED if result is not None and result.reused else State.DONE
        # A scatter ends its own attempt, together with opening its shards; an earlier result makes these needless.
        if record.shard != "scatter" or state is State.CACHED:
            attempt.place.ledger.commit(
                job.run_id,
                job.stage,
                record.shard,
                attempt=record.attempt,
                state=state,
                whole=attempt.whole,
                result=result,
                items=attempt.report.done if record.shard.isdigit() else None,
            )
            if job.cache.enabled and attempt.whole and state is State.DONE and result is not None:
                attempt.place.ledger.remember_result(job.run_id, job.stage, result)
            _clear_up(attempt)
    except (StaleAttemptError, AttemptCancelledError, BrokerError, IllegalTransitionError):
        raise
    except SystemExit as error:
        if isinstance(error.code, int) and error.code in SIGNAL_EXITS:
            raise
        # The pool would take it for a worker that died, and try again in vain.
        message = f"the executor ended its process by sys.exit({error.code!r})"
        return _record_failure(attempt, ExecutionError(message, hint="raise ExecutionError with the reason instead"))
    except Exception as error:  # the boundary: whatever an executor raises is recorded
        return _record_failure(attempt, error)
    return Outcome(verdict=Verdict.SETTLED, state=state)


def _clear_up(attempt: Attempt) -> None:
    for action in attempt.after_commit:
        try:
            action()
        except StoreError as error:
            logger.warning("%s: what is needed no more stays for now: %s", attempt.prefix, error)


def _hand_back(place: Workplace, job: StageJob, worker: str, lacking: tuple[str, ...], returns: int) -> Outcome:
    first, most = HAND_BACK_SEC
    why = f"worker {worker} cannot serve it: {'; '.join(lacking)}"
    place.ledger.note_unfit(job.run_id, job.stage, why)
    logger.warning("%s/%s handed back to queue %s: %s", job.run_id, job.stage, job.queue, why)
    return Outcome(verdict=Verdict.AGAIN, delay=min(most, first * 2.0**returns) * random.uniform(0.5, 1.0), why=why)


def _claim(place: Workplace, job: StageJob, shard: str, *, task_id: str, worker: str) -> Claim:
    def claim(takeover: int) -> Claim:
        return place.ledger.claim(
            job.run_id,
            job.stage,
            shard,
            worker=worker,
            holder=holder(),
            task_id=task_id,
            whole=job.ends_with(shard),
            takeover=takeover,
        )

    answer = claim(0)
    record = answer.shard
    held_here = answer.status is ClaimStatus.BUSY and record is not None and record.worker == worker
    if held_here and record is not None and holder_is_gone(record.holder):
        return claim(record.attempt)  # a pool child of this worker died with the claim
    return answer


def _record_failure(attempt: Attempt, error: Exception) -> Outcome:
    job, record, ledger = attempt.job, attempt.record, attempt.place.ledger
    if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
        error = disk_error(error, attempt.place.settings.scratch_dir or attempt.place.store.url)
    retryable = getattr(error, "retryable", False) or isinstance(error, (ConnectionError, TimeoutError, MemoryError))
    known = isinstance(error, MlocError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    hint = getattr(error, "hint", "")
    logger.error("%s: %s", attempt.prefix, message, exc_info=None if known else error)
    failure = Failure(
        message=message,
        type=getattr(error, "kind", "") or type(error).__name__,
        hint=hint,
        stage=job.stage,
        shard=record.shard,
        attempt=record.attempt,
        worker=record.worker,
        retryable=retryable,
        log=attempt_log().text(),
    )
    retry = job.retry
    if retryable and record.tries < retry.max_attempts:
        ledger.release(job.run_id, job.stage, record.shard, attempt=record.attempt, error=failure)
        delay = min(MAX_BACKOFF_SEC, retry.backoff_seconds * 2.0 ** (record.tries - 1)) * random.uniform(0.5, 1.0)
        return Outcome(verdict=Verdict.AGAIN, delay=delay, why=str(failure))
    ledger.commit(
        job.run_id,
        job.stage,
        record.shard,
        attempt=record.attempt,
        state=State.FAILED,
        whole=attempt.whole,
        error=failure,
    )
    return Outcome(verdict=Verdict.SETTLED, state=State.FAILED, failed=str(failure))


def _poison(record: ShardRecord) -> ExecutionError:
    return ExecutionError(
        f"given up: {record.tries - 1} attempts were taken and none of them came to an end",
        hint="the worker died in each of them, perhaps for want of memory; see its log",
    )
