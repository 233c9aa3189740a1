"""Runs from a spec to their artifacts, through a real broker and a real worker."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ArtifactNotFoundError, PlanError, RoutingError
from mloc_tasks.ledger import Ledger, ShardRecord, State
from mloc_tasks.settings import Settings
from scheduler import Run, RunFailedError, submit_yaml
from scheduler.embedded import LocalWorker
from tests.waiting import wait_until

WAIT_SEC = 60

pytestmark = pytest.mark.usefixtures("worker")


def document(spec: dict[str, Any], name: str = "test") -> dict[str, Any]:
    return {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": name, "owner": "alice"}, "spec": spec}


def echo(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "taskType": "echo", **more}


def items(count: int) -> dict[str, Any]:
    return {"type": "list", "items": [f"row {number}" for number in range(count)]}


def stage_states(run: Run) -> dict[str, str]:
    return {stage.name: str(stage.state) for stage in run.status().stages}


def test_a_single_task_leaves_responses_json_under_its_run_id(results_dir: Path) -> None:
    run = submit_yaml(document({"taskType": "echo", "message": "hello"}))
    assert run.wait(WAIT_SEC) is State.DONE
    assert json.loads((results_dir / run.id / "responses.json").read_text())["message"] == "hello"
    assert run.result() == {"ok": True, "message": "hello"}


def test_shards_are_merged_in_input_order() -> None:
    spec = {"taskType": "echo", "data": items(23), "parallel": {"enabled": True, "max_shards": 5}}
    run = submit_yaml(document(spec))
    result = run.result(timeout=WAIT_SEC)
    assert [item["output"] for item in result["items"]] == [f"row {number}" for number in range(23)]
    assert [item["index"] for item in result["items"]] == list(range(23))
    assert result["usage"]["num_requests"] == 23
    stage = run.status().stages[0]
    assert (stage.shards, stage.shards_done, stage.items_done, stage.items_total) == (5, 5, 23, 23)


def test_an_empty_input_gives_an_empty_result() -> None:
    spec = {"taskType": "echo", "data": {"type": "list", "items": []}, "parallel": {"enabled": True}}
    assert submit_yaml(document(spec)).result(timeout=WAIT_SEC)["items"] == []


def test_a_reference_carries_a_value_from_stage_to_stage() -> None:
    stages = [
        echo("draft", data=items(3)),
        echo("pick", message="${draft.result.items[2].output}"),
        echo("tell", message="picked: ${pick.message}, of ${draft.result.usage.num_requests}"),
    ]
    run = submit_yaml(document({"stages": stages}))
    assert run.result(timeout=WAIT_SEC)["message"] == "picked: row 2, of 3"


def test_a_dag_runs_sharded_branches_side_by_side_and_joins_them() -> None:
    nodes = [
        echo("left", data=items(6), parallel={"enabled": True, "max_shards": 3}),
        echo("right", data=items(4), parallel={"enabled": True, "max_shards": 2}),
        echo("far", dependsOn=["right"], data={"type": "stage", "stage": "right"}),
        echo("join", dependsOn=["left", "far"], message="${left.items[5].output} / ${far.items[3].output}"),
    ]
    run = submit_yaml(document({"graph": {"nodes": nodes}}))
    assert run.result(timeout=WAIT_SEC)["message"] == "row 5 / row 3"


def test_independent_stages_alone_end_in_one_run() -> None:
    run = submit_yaml(document({"graph": {"nodes": [echo("a", message="1"), echo("b", message="2")]}}))
    assert run.wait(WAIT_SEC) is State.DONE
    assert run.result("a")["message"] == "1"
    assert run.result()["message"] == "2"  # of the last stage that nothing depends on


def test_a_failure_names_stage_attempt_worker_and_cause_and_skips_the_rest() -> None:
    stages = [echo("fine", message="x"), echo("bad", message="${fine.items[0].output}"), echo("after", message="y")]
    run = submit_yaml(document({"stages": stages}))
    assert run.wait(WAIT_SEC) is State.FAILED
    assert stage_states(run) == {"fine": "done", "bad": "failed", "after": "skipped"}
    with pytest.raises(RunFailedError, match=r"stage bad, attempt 1 on celery@.*items"):
        run.result()


def test_a_failed_shard_fails_its_stage_and_says_which(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "one"}\n{"prompt": "two"}\nnot json\n{"prompt": "four"}\n')
    spec = {
        "onFailure": "continue",
        "stages": [
            echo("read", data={"type": "file", "url": str(rows)}, parallel={"enabled": True, "shard_size": 2}),
            echo("other", dependsOn=[], message="went on"),
            echo("after", dependsOn=["read"], message="never"),
        ],
    }
    run = submit_yaml(document(spec))
    assert run.wait(WAIT_SEC) is State.FAILED
    assert stage_states(run) == {"read": "failed", "other": "done", "after": "skipped"}
    assert "rows.jsonl" in str(run.status().run.error)


def test_events_tell_the_run_from_its_first_to_its_last_state() -> None:
    run = submit_yaml(document({"taskType": "echo", "message": "x"}))
    events = [(event.kind, event.state) for event in run.events(follow=True)]
    assert events[0] == ("run", "queued")
    assert events[-1] == ("run", "done")
    assert ("stage", "running") in events


def test_artifacts_are_listed_and_opened_by_name() -> None:
    run = submit_yaml(document({"taskType": "echo", "message": "x"}))
    run.wait(WAIT_SEC)
    artifacts = run.artifacts()
    assert [artifact.name for artifact in artifacts] == ["echo/responses.json"]
    with run.open("echo/responses.json") as stream:
        assert len(stream.read()) == artifacts[0].size
    with pytest.raises(ArtifactNotFoundError, match=r"it has echo/responses\.json"):
        run.open("nothing.txt")


def test_a_destination_gets_a_copy_of_the_outputs(results_dir: Path) -> None:
    spec = {"taskType": "echo", "message": "x", "output": {"destination": {"type": "local", "path": "shared/latest"}}}
    for _ in range(2):  # the second run replaces what the first left
        assert submit_yaml(document(spec)).wait(WAIT_SEC) is State.DONE
    assert json.loads((results_dir / "shared/latest/responses.json").read_text())["message"] == "x"


def test_attempts_leave_no_scratch_behind(results_dir: Path) -> None:
    submit_yaml(document({"taskType": "echo", "message": "x"})).wait(WAIT_SEC)
    assert list(results_dir.rglob(".*")) == []


def test_a_stage_that_no_queue_satisfies_is_refused_at_submit() -> None:
    resources = {"hardware": {"gpu": {"type": "h100", "count": 64}}}
    with pytest.raises(RoutingError, match="needs 64 GPUs"):
        submit_yaml(document({"taskType": "echo", "message": "x", "resources": resources}))


def test_what_an_executor_cannot_do_is_refused_at_submit() -> None:
    spec = {"taskType": "sft", "model": {"source": {"identifier": "x/y"}}, "data": items(1)}
    with pytest.raises(PlanError, match=r"training\.load_best_model_at_end cannot be set"):
        submit_yaml(document({**spec, "training": {"load_best_model_at_end": True}}))


def test_a_run_for_a_queue_without_worker_waits_and_says_how_to_serve_it(tmp_path: Path, valkey: str) -> None:
    queues = tmp_path / "queues.yaml"
    queues.write_text("queues: {lonely: {taskTypes: ['*']}}")
    run = submit_yaml(document({"taskType": "echo", "message": "x"}), settings=Settings(queues_file=queues))
    status = run.status()
    assert status.state is State.QUEUED
    assert status.waiting == ("no worker serves queue lonely; start one with: celery -A mloc_tasks worker -Q lonely",)
    assert run.cancel() is State.CANCELLED
    assert run.status().waiting == ()


def test_a_worker_that_falls_short_hands_the_shard_back_and_the_status_says_why() -> None:
    resources = {"hardware": {"gpu": {"type": "any", "count": 1}}}
    spec = {"taskType": "inference", "resources": resources, "inference": {"prompts": ["x"]}}
    spec["model"] = {"source": {"type": "local", "identifier": "/nowhere"}}
    run = submit_yaml(document(spec))
    for event in run.events(follow=True):
        if event.kind == "unfit":
            break
    assert "has no GPU" in run.status().waiting[0]
    assert run.cancel() is State.CANCELLED


def test_what_cannot_start_any_more_ends_the_run_without_a_worker(tmp_path: Path) -> None:
    queues = tmp_path / "queues.yaml"
    queues.write_text("queues: {cpu: {taskTypes: ['*']}, lonely: {taskTypes: ['*'], offers: {tags: [far]}}}")
    far = {"resources": {"tags": ["far"]}, "parallel": {"enabled": True}, "data": items(3)}
    stages = [echo("bad", message="${before.items[0].output}"), echo("after", **far), echo("last", **far)]
    spec = {"stages": [echo("before", message="x"), *stages]}
    run = submit_yaml(document(spec), settings=Settings(queues_file=queues))
    assert run.wait(WAIT_SEC) is State.FAILED
    assert stage_states(run) == {"before": "done", "bad": "failed", "after": "skipped", "last": "skipped"}


def test_a_cancelled_stage_is_handed_back_no_more(worker: LocalWorker) -> None:
    resources = {"hardware": {"cpu": 4_000}}
    run = submit_yaml(document({"stages": [echo("big", message="x", resources=resources)]}))
    for event in run.events(follow=True):
        if event.kind == "unfit":
            break
    assert run.cancel() is State.CANCELLED
    ledger = Ledger.connect()

    def ended() -> ShardRecord | None:
        shard = ledger.shard(run.id, "big", "0")
        return shard if shard is not None and shard.state.is_final else None

    assert wait_until(ended, why=lambda: worker.log_tail).state is State.CANCELLED


def test_a_short_wait_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.runs.BLOCK_MS", 60_000)
    queues = tmp_path / "queues.yaml"
    queues.write_text("queues: {lonely: {taskTypes: ['*']}}")
    run = submit_yaml(document({"taskType": "echo", "message": "x"}), settings=Settings(queues_file=queues))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        run.wait(0.1)
    assert time.monotonic() - started < 30
    run.cancel()


def test_a_target_time_is_reported_met_or_missed() -> None:
    stages = [echo("quick", message="x", sloSeconds=600), echo("late", message="y", sloSeconds=0.000001)]
    run = submit_yaml(document({"stages": stages}))
    assert run.wait(WAIT_SEC) is State.DONE
    status = run.status()
    assert [status.slo(stage) for stage in status.stages] == ["met", "missed"]


def test_waiting_too_short_raises_with_the_state() -> None:
    run = submit_yaml(document({"stages": [echo("far", message="x", resources={"hardware": {"cpu": 4_000}})]}))
    with pytest.raises(TimeoutError, match=run.id):
        run.wait(0.0)
    assert run.cancel() is State.CANCELLED
