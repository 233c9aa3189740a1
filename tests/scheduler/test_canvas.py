"""The Celery canvas of a plan: its order, and how large its messages get."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery, Signature
from celery.canvas import _chain
from celery.canvas import chord as chord_signature
from hypothesis import given, settings

from mloc_tasks import signatures
from mloc_tasks.configuration import sending_app
from mloc_tasks.ledger.connection import connect
from mloc_tasks.settings import Settings
from scheduler.backlog import queue_keys
from scheduler.canvas import build_canvas
from scheduler.parts import decompose
from scheduler.plan import Plan, PlannedStage
from tests.scheduler.test_parts import Dag, dags

RUN = "123e4567-e89b-12d3-a456-426614174000"
BYTES_PER_STAGE = 512


@pytest.fixture
def app(valkey: str) -> Iterator[Celery]:
    """An app on a real broker of its own key prefix, emptied afterwards."""
    settings = Settings(redis_url=valkey, prefix="canvas-test:")
    yield sending_app(settings)
    client = connect(settings)
    for key in client.scan_iter("canvas-test:*"):
        client.delete(key)


def plan_of(dag: Dag, *, scattered: bool = False) -> Plan:
    stages = tuple(
        PlannedStage(
            name=name,
            task_type="echo",
            depends_on=above,
            queue="inference",
            priority=4,
            shards=None if scattered else 1,
            timeout=None,
        )
        for name, above in dag.items()
    )
    return Plan(name="test", stages=stages, root=decompose(dag), result_stage=stages[-1].name)


def walk(signature: Signature, before: frozenset[str], seen: dict[str, frozenset[str]]) -> frozenset[str]:
    """Visit a canvas in the order that it runs; `seen` gets for each stage those that are over by then."""
    if isinstance(signature, _chain):
        for step in signature.tasks:
            before = walk(step, before, seen)
        return before
    if isinstance(signature, chord_signature):
        over = frozenset().union(*(walk(part, before, seen) for part in signature.tasks))
        return walk(signature.body, over, seen)
    if signature.task in (signatures.SHARD, signatures.SCATTER):
        stage = signature.args[1]
        assert stage not in seen, "a stage is in the canvas twice"
        seen[stage] = before
        return before | {stage}
    if signature.task == signatures.FINISH:
        seen["finish"] = before
    return before


@given(dags())
@settings(max_examples=200, deadline=None)
def test_the_canvas_runs_every_stage_once_after_what_it_depends_on_and_ends_in_finish(dag: Dag) -> None:
    celery = Celery("walk", set_as_current=False)
    seen: dict[str, frozenset[str]] = {}
    walk(build_canvas(celery, RUN, plan_of(dag)), frozenset(), seen)
    assert seen.pop("finish") == frozenset(dag)
    assert set(seen) == set(dag)
    for stage, above in dag.items():
        assert seen[stage] >= set(above)


def test_messages_carry_ids_only_and_are_immutable(app: Celery) -> None:
    canvas = build_canvas(app, RUN, plan_of({"a": (), "b": ("a",)}))
    assert [step.args for step in canvas.tasks] == [(RUN, "a", 0), (RUN, "b", 0), (RUN,)]
    assert all(step.immutable for step in canvas.tasks)


def test_flower_reads_run_stage_and_shard(app: Celery) -> None:
    shard = signatures.shard(app, RUN, "draft", 3, of=8, queue="cpu", priority=4)
    assert shard.options["argsrepr"] == f"{RUN}/draft[3/8]"


def sent_messages(app: Celery, signature: Signature) -> list[int]:
    """Bytes of each message that sending `signature` puts on the broker, as they lie there, largest first."""
    signature.apply_async()
    client = connect(Settings(redis_url=app.conf.broker_url.replace("redis+socket", "unix")))
    sent: list[int] = []
    for key in queue_keys("canvas-test:", "inference"):
        sent.extend(len(message) for message in client.lrange(key, 0, -1))
        client.delete(key)
    return sorted(sent, reverse=True)


def test_a_message_is_bounded_by_half_a_kib_for_each_stage_ahead(app: Celery) -> None:
    stages = 60
    dag: Dag = {f"stage-{i}": (f"stage-{i - 1}",) if i else () for i in range(stages)}
    sent = sent_messages(app, build_canvas(app, RUN, plan_of(dag, scattered=True)))
    assert len(sent) == 1
    assert sent[0] < BYTES_PER_STAGE * (stages + 2)


@pytest.mark.parametrize("ahead", [0, 59])
def test_a_shards_message_does_not_grow_with_the_number_of_shards(app: Celery, ahead: int) -> None:
    rest = [
        signatures.scatter(app, RUN, f"stage-{i}", queue="inference", priority=4).set(task_id=RUN) for i in range(ahead)
    ]

    def sizes(shards: int) -> list[int]:
        canvas = signatures.shards_and_gather(
            app, RUN, "stage", numbers=range(shards), of=shards, queue="inference", priority=4
        )
        for step in rest:
            canvas = canvas | step.clone()
        return sent_messages(app, canvas)

    few, many = sizes(10)[0], sizes(1_000)[0]
    assert many - few <= 16  # the digits of shard numbers
    assert many < BYTES_PER_STAGE * (ahead + 4)
