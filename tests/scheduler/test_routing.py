"""Which queue a stage goes to, and what is said when there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mloc_tasks.capabilities import GIB, Capabilities, Gpus, Requirement
from mloc_tasks.errors import ConfigError, RoutingError
from mloc_tasks.queues import Queue, default_queues_file, load_queues
from scheduler.routing import Load, route

QUEUES = load_queues()


def test_a_stage_without_gpu_goes_to_cpu() -> None:
    assert route(Requirement(task_type="inference"), QUEUES).name == "cpu"


@pytest.mark.parametrize("task_type", ["inference", "sft", "dpo", "ppo", "grpo"])
def test_a_stage_with_one_gpu_goes_to_the_queue_of_its_task_type(task_type: str) -> None:
    assert route(Requirement(task_type=task_type, gpus=Gpus()), QUEUES).name == task_type


def test_a_named_gpu_type_needs_a_queue_that_names_it() -> None:
    need = Requirement(task_type="ppo", gpus=Gpus(type="a100"))
    assert route(need, QUEUES).name == "a100-80gb-x8"


def test_no_queue_lists_for_each_what_it_lacks() -> None:
    need = Requirement(task_type="ppo", gpus=Gpus(type="h100", count=2), tags=frozenset({"eu-west"}))
    with pytest.raises(RoutingError) as caught:
        route(need, QUEUES, stage="train")
    text = str(caught.value)
    assert "'train'" in text
    for queue in QUEUES:
        assert f"  {queue.name}: " in text
    assert "cpu: needs 2 x h100 GPU, has no GPU; needs tags eu-west, has none" in text
    assert "ppo: needs a GPU of type h100, has any; needs 2 GPUs, has 1" in text
    assert "takes task types inference" not in text.split("a100-80gb-x8")[1]


def _queue(name: str, *, priority: int = 0, **offers: object) -> Queue:
    return Queue(name=name, offers=Capabilities(**offers), priority=priority)  # type: ignore[arg-type]


def test_the_tightest_queue_wins_over_a_roomier_one_with_workers() -> None:
    queues = (_queue("big", gpus=Gpus(count=8)), _queue("small", gpus=Gpus(count=1)))
    load = Load(consumers={"big": 4})
    assert route(Requirement(task_type="x", gpus=Gpus()), queues, load=load).name == "small"


def test_less_memory_is_tighter_and_unlimited_is_loosest() -> None:
    queues = (_queue("any"), _queue("large", memory=64 * GIB), _queue("fit", memory=32 * GIB))
    assert route(Requirement(task_type="x", memory=20 * GIB), queues).name == "fit"


def test_among_equals_the_live_one_with_the_shortest_backlog_per_consumer_wins() -> None:
    queues = (_queue("dead"), _queue("busy"), _queue("free"))
    load = Load(consumers={"busy": 1, "free": 4}, backlog={"busy": 3, "free": 8})
    assert route(Requirement(task_type="x"), queues, load=load).name == "free"


def test_where_all_else_is_equal_a_queue_whose_workers_hold_the_stages_model_wins() -> None:
    queues = (_queue("cold"), _queue("warm"))
    load = Load(consumers={"cold": 1, "warm": 1}, warm={"answer": {"warm"}})
    need = Requirement(task_type="x")
    assert route(need, queues, load=load, stage="answer").name == "warm"
    assert route(need, queues, load=load, stage="another").name == "cold"
    assert route(need, queues, load=replace(load, backlog={"warm": 1}), stage="answer").name == "cold"


def test_a_higher_priority_wins_among_equals() -> None:
    queues = (_queue("second"), _queue("first", priority=1))
    assert route(Requirement(task_type="x"), queues).name == "first"


def test_a_tag_that_nobody_asked_for_makes_a_queue_looser() -> None:
    queues = (_queue("spot", tags=frozenset({"spot"})), _queue("plain"))
    assert route(Requirement(task_type="x"), queues).name == "plain"
    assert route(Requirement(task_type="x", tags=frozenset({"spot"})), queues).name == "spot"


def test_the_shipped_file_is_the_checkout_or_the_wheel_copy() -> None:
    assert default_queues_file().name == "queues.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queues: []", "needs a mapping"),
        ("queues: {gpu: {offers: {gpus: 1}}}", "queues.gpu.offers: unknown key gpus"),
        ("queues: {gpu: {offers: {gpu: {count: 0}}}}", "count: 0 is not a positive"),
        ("queues: {gpu: {offers: {memory: 32Gb}}}", "queues.gpu.offers.memory"),
        ("queues: {gpu: {priority: high}}", "queues.gpu.priority"),
        ("queues: [", "is not YAML"),
    ],
)
def test_a_bad_queues_file_is_refused_by_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"queues\.yaml") as caught:
        load_queues(file)
    assert message in str(caught.value)
