"""How many processes a training gets, and which GPUs."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.training.launch import Launch, launch_of, unsupported
from mloc_tasks.executors.training.rank import Place
from mloc_tasks.executors.training.surroundings import environment_of, settle_alone
from mloc_tasks.spec import StageSpec

FOUR = ("4", "5", "6", "7")


def launch(*, gpus: tuple[str, ...] = FOUR, count: int | None = None, cpus: int = 8, **spec: Any) -> Launch:
    """Of a stage that asks for `count` GPUs, in a host that sees `gpus`."""
    resources = {} if count is None else {"hardware": {"gpu": {"count": count}}}
    document = {"task_type": "sft", "resources": resources, **spec}
    return launch_of(StageSpec.model_validate(document), gpus=gpus, cpus=cpus)


def test_as_many_as_the_stage_asks_gpus_for() -> None:
    assert launch(count=4) == Launch(4, FOUR)
    assert launch(count=1, gpus=("4",)) == Launch(1, ("4",))


def test_one_where_it_asks_for_none_or_wants_no_more() -> None:
    assert launch(gpus=()) == Launch(1, ())
    assert launch(count=4, training={"allow_multi_gpu": False}) == Launch(1, ("4",))
    assert launch(count=4, enforce_cpu=True) == Launch(1, ())


def test_one_with_all_gpus_where_the_model_is_spread_over_them() -> None:
    assert launch(count=4, model={"config": {"device_map_auto": True}}) == Launch(1, FOUR)


def test_no_more_than_there_are_gpus_on_a_worker_that_is_too_small() -> None:
    assert launch(count=8, gpus=("0", "1")) == Launch(2, ("0", "1"))
    assert launch(count=8, gpus=()) == Launch(1, ())


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [
        (2, FOUR, Launch(2, ("4", "5"))),
        (2, (), Launch(2, ())),
        ("auto", FOUR, Launch(4, FOUR)),
        ("auto", (), Launch(1, ())),
        ("gpu", FOUR, Launch(4, FOUR)),
        ("cpu", (), Launch(8, ())),
    ],
)
def test_as_many_as_nproc_per_node_says(asked: int | str, gpus: tuple[str, ...], expected: Launch) -> None:
    assert launch(gpus=gpus, training={"nproc_per_node": asked}) == expected


def test_each_needs_a_gpu_of_its_own() -> None:
    with pytest.raises(ExecutionError, match="asks for 5 processes, and the stage has 4 GPUs"):
        launch(count=4, training={"nproc_per_node": 5})
    with pytest.raises(ExecutionError, match="the stage has no GPU"):
        launch(gpus=(), training={"nproc_per_node": "gpu"})


@pytest.mark.parametrize("training", [{"fsdp": "full_shard"}, {"deepspeed": {"zero_optimization": {"stage": 3}}}])
def test_a_model_in_pieces_is_trained_in_a_group_also_by_one_process(training: dict[str, Any]) -> None:
    assert launch(count=1, gpus=("4",), training=training) == Launch(1, ("4",), sharded=True)
    assert launch(count=4, training=training) == Launch(4, FOUR, sharded=True)
    assert not launch(count=1, gpus=("4",), training={"fsdp": ""}).grouped


def test_deepspeed_needs_gpus() -> None:
    with pytest.raises(ExecutionError, match=r"training\.deepspeed needs GPUs"):
        launch(gpus=(), training={"nproc_per_node": 2, "deepspeed": {"zero_optimization": {"stage": 2}}})


@pytest.mark.parametrize("chosen", ["1,3", [1, 3], "GPU-5, GPU-7"])
def test_visible_devices_are_counted_among_the_stages_own(chosen: Any) -> None:
    gpus = tuple(f"GPU-{number}" for number in FOUR)
    found = launch(count=4, gpus=gpus, training={"visible_devices": chosen})
    assert found == Launch(2, ("GPU-5", "GPU-7"))


@pytest.mark.parametrize("chosen", ["4", "0,0", "GPU-9"])
def test_devices_that_are_not_there_are_an_error(chosen: str) -> None:
    with pytest.raises(ExecutionError, match=r"training\.visible_devices names"):
        launch(count=4, training={"visible_devices": chosen})


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ({"training": {"nproc_per_node": 2}, "model": {"config": {"device_map_auto": True}}}, "trained by one process"),
        ({"training": {"nproc_per_node": 2, "allow_multi_gpu": False}}, "contradict each other"),
        ({"training": {"nproc_per_node": 2}, "resources": {"hardware": {"gpu": {"count": 1}}}}, "gpu.count is 1"),
    ],
)
def test_contradictions_are_seen_before_the_run(stage: dict[str, Any], part: str) -> None:
    assert part in (unsupported(stage) or "")


@pytest.mark.parametrize(
    "stage",
    [
        {},
        {"training": {"nproc_per_node": "${before.result.count}", "allow_multi_gpu": False}},
        {"training": {"nproc_per_node": 2}, "resources": {"hardware": {"gpu": {"count": 2}}}},
        {"training": {"nproc_per_node": 2}},
        {"training": {"nproc_per_node": 2}, "resources": {"hardware": {"gpu": {"count": 1}}}, "enforce_cpu": True},
    ],
)
def test_all_else_may_run(stage: dict[str, Any]) -> None:
    assert unsupported(stage) is None


def test_processes_share_the_threads_that_their_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setenv("PMI_SIZE", "16")  # Slurm's, about the worker
    env = environment_of(Place(1, 2), Launch(2, ("4", "5")), port=1234, cpus=8, path=["", "/modules"])
    assert (env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"]) == ("1", "1", "2")
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("127.0.0.1", "1234")
    assert (env["OMP_NUM_THREADS"], env["CUDA_VISIBLE_DEVICES"]) == ("3", "4,5")
    assert "PMI_SIZE" not in env
    assert "ACCELERATE_USE_CPU" not in env
    assert env["PYTHONPATH"].endswith(":/modules")


def test_one_process_sees_no_gpu_that_is_not_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("WORLD_SIZE", "16")
    settle_alone(Launch(1, ("4",)))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    assert "WORLD_SIZE" not in os.environ
