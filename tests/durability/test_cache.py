"""A stage whose fingerprint was completed before is not run again, in the same run or another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors import executor_for
from mloc_tasks.fingerprint import fingerprint
from mloc_tasks.ledger import Ledger, State
from mloc_tasks.spec import StageSpec, load_workflow
from scheduler import Run, submit_yaml
from tests.durability.conftest import ON_BOTH_BROKERS, StartWorker, document
from tests.durability.test_recovery import WAIT_SEC
from tests.durability.test_resume import SHARDED, begun, stage, states

CACHED = {"cache": {"enabled": True}}
ECHO = {"taskType": "echo", "message": "a"}


def done(spec: dict[str, Any]) -> Run:
    run = submit_yaml(document(spec))
    assert run.wait(WAIT_SEC) is State.DONE, run.status()
    return run


@pytest.fixture
def pipeline(tmp_path: Path) -> dict[str, Any]:
    """A sharded stage over a file, one over its items, and one that refers to an item."""
    data = tmp_path / "rows.txt"
    data.write_text("a\nb\nc\n")
    source = {"type": "file", "url": str(data)}
    stages = [
        stage("read", data=source, message=None, **SHARDED),
        stage("copy", "read", data={"type": "stage", "stage": "read"}, message=None, **SHARDED),
        stage("last", "copy", message="${copy.items[2].output}"),
    ]
    return {"stages": stages, **CACHED}


@ON_BOTH_BROKERS
def test_a_second_run_takes_all_results_of_the_first(start_worker: StartWorker, pipeline: dict[str, Any]) -> None:
    start_worker("one", concurrency=2)
    first, second = done(pipeline), done(pipeline)
    assert set(states(first).values()) == {"done"}
    assert states(second) == {"read": "cached", "copy": "cached", "last": "cached"}
    assert begun(second) == [("copy", "scatter", 1), ("last", "0", 1), ("read", "scatter", 1)]
    assert second.result()["message"] == "c"
    assert [item["output"] for item in second.result("copy")["items"]] == ["a", "b", "c"]
    assert [each.sha256 for each in second.artifacts()] == [each.sha256 for each in first.artifacts()]


def test_what_comes_after_a_change_runs_again_and_refers_to_cached_stages(
    start_worker: StartWorker, pipeline: dict[str, Any]
) -> None:
    start_worker("one", concurrency=2)
    done(pipeline)
    pipeline["stages"][2]["message"] = "the third is ${copy.items[2].output}"
    run = done(pipeline)
    assert states(run) == {"read": "cached", "copy": "cached", "last": "done"}
    assert run.result()["message"] == "the third is c"


def test_a_changed_file_is_read_again(start_worker: StartWorker, pipeline: dict[str, Any]) -> None:
    start_worker("one", concurrency=2)
    done(pipeline)
    Path(pipeline["stages"][0]["data"]["url"]).write_text("a\nb\nd\n")
    run = done(pipeline)
    assert set(states(run).values()) == {"done"}
    assert run.result()["message"] == "d"


def test_a_result_whose_files_are_gone_is_made_anew(
    start_worker: StartWorker, pipeline: dict[str, Any], tmp_path: Path
) -> None:
    start_worker("one", concurrency=2)
    first = done(pipeline)
    shutil.rmtree(tmp_path / "results" / first.id / "last")
    assert states(done(pipeline)) == {"read": "cached", "copy": "cached", "last": "done"}


def test_a_destination_gets_an_earlier_result_as_well(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("one")
    done({**ECHO, **CACHED, "output": {"destination": {"type": "local", "path": "there"}}})
    target = tmp_path / "results" / "there"
    shutil.rmtree(target)
    run = done({**ECHO, **CACHED, "output": {"destination": {"type": "local", "path": "there"}}})
    assert list(states(run).values()) == ["cached"]
    assert (target / "responses.json").is_file()


def test_resuming_from_a_stage_does_not_take_its_earlier_result(start_worker: StartWorker) -> None:
    start_worker("one")
    run = done({"stages": [stage("a"), stage("b", "a")], **CACHED})
    run.resume(from_stage="b")
    assert run.wait(WAIT_SEC) is State.DONE
    assert states(run) == {"a": "done", "b": "done"}


def test_without_cache_nothing_is_reused_or_remembered(start_worker: StartWorker) -> None:
    start_worker("one")
    done(ECHO)
    assert list(states(done(ECHO)).values()) == ["done"]
    ledger = Ledger.connect()
    assert list(ledger.client.scan_iter(ledger.keys.cache("*"))) == []


def fingerprint_of(tmp_path: Path, **spec: Any) -> str:
    workflow = load_workflow(document({"taskType": "echo", "message": "x", **CACHED, **spec}))
    found = workflow.stages[0].document
    typed = StageSpec.model_validate(found)
    return fingerprint(
        found,
        spec=typed,
        executor=executor_for(typed),
        manifest_of=lambda name: None,
        open_url=lambda url: Path(url).open("rb"),
        cache_dir=tmp_path,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"priority": 9},
        {"retry": {"maxAttempts": 9}},
        {"timeout": "2h"},
        {"sloSeconds": 60},
        {"resources": {"hardware": {"cpu": 2}}},
        {"parallel": {"enabled": True, "max_shards": 2}},
        {"output": {"destination": {"type": "local", "path": "elsewhere"}}},
        {"enforce_cpu": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_how_a_stage_runs_does_not_change_its_fingerprint(tmp_path: Path, change: dict[str, Any]) -> None:
    assert fingerprint_of(tmp_path, **change) == fingerprint_of(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"message": "y"},
        {"params": {"a": 1}},
        {"data": {"type": "list", "items": ["a"]}},
        {"output": {"artifacts": ["*.json"]}},
        {"model": {"source": {"identifier": "some/model"}}},
        {"model": {"source": {"identifier": "some/model", "revision": "v2"}}},
    ],
    ids=str,
)
def test_what_a_stage_says_changes_its_fingerprint(tmp_path: Path, change: dict[str, Any]) -> None:
    assert fingerprint_of(tmp_path, **change) != fingerprint_of(tmp_path)


def test_a_local_model_is_told_apart_by_its_files(tmp_path: Path) -> None:
    weights = tmp_path / "model" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    model = {"model": {"source": {"type": "local", "identifier": str(weights.parent)}}}
    before = fingerprint_of(tmp_path, **model)
    assert fingerprint_of(tmp_path, **model) == before
    weights.write_bytes(b"12")
    assert fingerprint_of(tmp_path, **model) != before
