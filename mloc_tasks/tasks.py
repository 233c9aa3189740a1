"""The Celery tasks. Each hands its ids to the code that knows what to do, and turns the outcome into Celery's terms."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from typing import Any

import redis
from celery import Task
from celery.exceptions import Ignore, Reject

from mloc_tasks import intake, signatures
from mloc_tasks.app import app
from mloc_tasks.attempt import Outcome, Verdict, Work, run_attempt
from mloc_tasks.configuration import is_amqp
from mloc_tasks.errors import BrokerError, MlocError
from mloc_tasks.executors.registry import is_light
from mloc_tasks.ledger import GATHER, SCATTER
from mloc_tasks.rabbitmq import SHORTEST_DELAY_SEC
from mloc_tasks.settings import get_settings
from mloc_tasks.warmth import PAUSE_SEC
from mloc_tasks.workplace import get_workplace

logger = logging.getLogger("mloc.tasks")

FINISH_AGAIN_SEC = (0.5, 30.0)  # where the store is away: at first, and at most
LEDGER_PAUSES_SEC = (1.0, 2.0, 5.0, 10.0)


class ShardTask(Task):  # type: ignore[misc]  # celery ships no types
    """Base of the tasks that make attempts."""

    Request = "mloc_tasks.worker.request:RunRequest"
    abstract = True
    default_retry_delay = 0  # after a lost pool child; Celery's own waits three minutes
    max_retries = None  # the ledger's count of attempts is the bound, also when the worker dies each time
    reject_on_worker_lost = True  # where it cannot be sent again

    def retry(self, *args: Any, **options: Any) -> Any:
        """Send the message again. Where that fails it goes back to the queue: Celery would give it up."""
        try:
            return super().retry(*args, **options)
        except Reject as error:
            raise Reject(error.reason, requeue=True) from error

    def attempt(self, run_id: str, stage: str, shard: str, work: Work) -> Outcome:
        """Make one attempt; send the message again, or drop it, where the outcome says so."""
        outcome = self._attempt_once_redis_answers(run_id, stage, shard, work)
        if outcome.verdict is Verdict.DROPPED:
            logger.info("dropped: %s", outcome.why)
            raise Ignore
        if outcome.verdict is Verdict.AGAIN:
            shortest = SHORTEST_DELAY_SEC if is_amqp(self.app) else 0.0
            raise self.retry(countdown=max(outcome.delay, shortest))
        return outcome

    def leave_to_warm(self, run_id: str, stage: str) -> None:
        """Put the message back, for a while, where another worker holds the stage's model and this one does not."""
        from mloc_tasks.hosting import leave_to_warm

        worker = get_settings().worker_name(self.request.hostname)
        with contextlib.suppress(redis.exceptions.RedisError, BrokerError):  # the attempt waits for Redis
            if not leave_to_warm(get_workplace(), run_id, stage, task_id=self.request.id, worker=worker):
                return
            if is_amqp(self.app):
                time.sleep(PAUSE_SEC)
            raise Reject("left to a worker that holds its model", requeue=True)

    def _attempt_once_redis_answers(self, run_id: str, stage: str, shard: str, work: Work) -> Outcome:
        """Without the ledger nothing can be recorded, and so nothing decided; nor can the message be given back."""
        for pause in itertools.chain(LEDGER_PAUSES_SEC, itertools.repeat(LEDGER_PAUSES_SEC[-1])):
            try:
                return run_attempt(
                    get_workplace(),
                    run_id,
                    stage,
                    shard,
                    task_id=self.request.id,
                    worker=get_settings().worker_name(self.request.hostname),
                    returns=self.request.retries,
                    work=work,
                )
            except BrokerError as error:
                logger.error("%s/%s[%s]: tried again in %g s: %s", run_id, stage, shard, pause, error)
                time.sleep(pause)
        raise AssertionError("unreachable: the pauses do not end")

    def on_replace(self, sig: Any) -> Any:
        """Send what replaces this task. Celery ends the task by an exception, which would discard the batch."""
        with self.app.sending_together():
            try:
                return super().on_replace(sig)
            except Ignore as replaced:
                ended = replaced
        raise ended

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """A message that is sent again reads in Flower as it did before."""
        options.setdefault("argsrepr", getattr(request or self.request, "argsrepr", None))
        return super().signature_from_request(request, *args, **options)


def _pointer(outcome: Outcome) -> dict[str, str]:
    """What a settled message returns: small, the same at every delivery, and red in Flower after a failure."""
    return {"failed": outcome.failed} if outcome.failed else {"state": str(outcome.state)}


@app.task(bind=True, base=ShardTask, name=signatures.SHARD)  # type: ignore[untyped-decorator]
def shard(self: ShardTask, run_id: str, stage: str, number: int) -> dict[str, str]:
    """Execute one shard of a stage."""
    from mloc_tasks.work import execute

    try:
        if not self.request.retries:
            self.leave_to_warm(run_id, stage)
        return _pointer(self.attempt(run_id, stage, str(number), execute))
    finally:
        intake.leave((run_id, stage, str(number)))


@app.task(bind=True, base=ShardTask, name=signatures.SCATTER)  # type: ignore[untyped-decorator]
def scatter(self: ShardTask, run_id: str, stage: str) -> Any:
    """Split a stage's rows into shards; replaced by these shards and their gather."""
    from mloc_tasks.work import split

    outcome = self.attempt(run_id, stage, SCATTER, split)
    ledger = get_workplace().ledger
    shards = ledger.division(run_id, stage).shards
    if outcome.failed or not shards:
        return _pointer(outcome)
    job = ledger.stage_job(run_id, stage)
    # A stage that was split before (its run was resumed, or this message came twice) goes on with what is not done.
    numbers = ledger.open_shard_numbers(run_id, stage) if outcome.repeated else range(shards)
    return self.replace(
        signatures.shards_and_gather(
            app,
            run_id,
            stage,
            numbers=numbers,
            of=shards,
            queue=job.queue,
            priority=job.priority,
            light=is_light(job.document["task_type"]),
        )
    )


@app.task(bind=True, base=ShardTask, name=signatures.GATHER)  # type: ignore[untyped-decorator]
def gather(self: ShardTask, run_id: str, stage: str) -> dict[str, str]:
    """Merge the results of a stage's shards in input order."""
    from mloc_tasks.work import merge

    return _pointer(self.attempt(run_id, stage, GATHER, merge))


@app.task(name=signatures.JOIN, Request=ShardTask.Request)  # type: ignore[untyped-decorator]
def join(run_id: str) -> str:
    """Where parallel branches meet; there is nothing to do but to be their chord's body."""
    return run_id


@app.task(bind=True, base=ShardTask, name=signatures.FINISH)  # type: ignore[untyped-decorator]
def finish(self: ShardTask, run_id: str) -> dict[str, str]:
    """End a run: publish its last stage's result as the run's, and record the state it ends in."""
    from mloc_tasks.finish import finish_run

    try:
        return {"state": str(finish_run(get_workplace(), run_id))}
    except MlocError as error:
        if not error.retryable:
            raise
        logger.warning("run %s is not ended yet: %s", run_id, error)
        raise self.retry(countdown=min(FINISH_AGAIN_SEC[1], FINISH_AGAIN_SEC[0] * 2.0**self.request.retries)) from error
