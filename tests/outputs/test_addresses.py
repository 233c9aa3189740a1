"""Stages that load what an earlier one made, by the addresses in its result."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.ledger import State
from scheduler import Run, submit_yaml

WAIT_SEC = 60
MODEL = {"config.json": '{\n  "model_type": "miniature"\n}\n', "model.safetensors": "weights"}
ADAPTER = {"adapter_config.json": '{\n  "r": 8\n}\n', "adapter_model.safetensors": "adapter"}


def train(**spec: Any) -> dict[str, Any]:
    return {"name": "train", "taskType": "miniature", **spec}


def load(field: str, name: str = "load", **spec: Any) -> dict[str, Any]:
    address = f"${{train.result.{field}}}"
    return {"name": name, "taskType": "loading", "checkpoint": {"load": {"url": address}}, **spec}


def run(*stages: dict[str, Any], **spec: Any) -> Run:
    document = {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": "outputs"}}
    found = submit_yaml({**document, "spec": {"stages": list(stages), **spec}})
    assert found.wait(WAIT_SEC) is State.DONE, found.status().run.error
    return found


def names(run: Run) -> set[str]:
    return {artifact.name.removeprefix("train/") for artifact in run.artifacts() if artifact.stage == "train"}


def states(run: Run) -> list[str]:
    return [str(stage.state) for stage in run.status().stages]


def test_a_later_stage_loads_a_directory_by_its_address(store_url: str) -> None:
    done = run(train(), load("final_lora_url"))
    assert done.result() == {"ok": True, "type": "adapter", "files": ADAPTER}
    trained = done.result("train")
    prefix = f"{store_url}/{done.id}/train/0/1"
    assert trained == {
        "ok": True,
        "steps": 3,
        "wanted": ["final_lora_url"],
        "metrics_url": f"{prefix}/metrics.jsonl",
        "final_lora_url": f"{prefix}/final_lora",
    }


def test_a_later_stage_goes_on_from_the_archive_which_is_made_for_it(store_url: str) -> None:
    done = run(train(), load("final_model_archive_url"))
    assert done.result() == {"ok": True, "type": "model", "files": MODEL}
    assert done.result("train")["wanted"] == ["final_model_archive_url", "final_model_url"]
    assert {"final_model.tar.gz", "final_model/model.safetensors"} <= names(done)
    assert "final_lora.tar.gz" not in names(done)


@pytest.mark.usefixtures("store_url")
def test_what_a_later_stage_refers_to_is_kept_and_what_is_not_kept_has_no_address() -> None:
    done = run(train(full=True, output={"artifacts": ["*.jsonl"]}), load("final_lora_archive_url"))
    assert done.result()["files"] == ADAPTER
    assert names(done) == {"responses.json", "metrics.jsonl", "final_lora.tar.gz"}
    assert {name for name in done.result("train") if name.endswith("url")} == {"metrics_url", "final_lora_archive_url"}


@pytest.mark.usefixtures("store_url")
def test_an_earlier_result_serves_when_it_has_what_later_stages_refer_to() -> None:
    cached = {"cache": {"enabled": True}}
    first = run(train(steps=5, **cached))
    assert states(run(train(steps=5, **cached), load("final_lora_url"))) == ["cached", "done"]
    without_model = run(train(steps=5, **cached), load("final_model_archive_url"))
    assert states(without_model) == ["done", "done"]
    again = run(train(steps=5, **cached), load("final_model_archive_url"))
    assert states(again) == ["cached", "done"]
    assert again.result()["files"] == MODEL
    assert "final_model_url" not in first.result("train")
