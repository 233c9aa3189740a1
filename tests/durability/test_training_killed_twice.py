"""A fine-tuning whose process is killed twice, by the real signal, ends with the numbers of an undisturbed one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mloc_tasks.artifacts import ArtifactStore, open_url
from mloc_tasks.ledger import State
from mloc_tasks.settings import get_settings
from mloc_tasks.workplace import store_of
from scheduler import Run, submit_yaml
from tests.durability.conftest import StartWorker
from tests.durability.test_saved_rows import kill_host
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import QUESTIONS
from tests.waiting import wait_until

pytest.importorskip("trl")

STEPS = 300
WAIT_SEC = 600


def test_a_training_killed_twice_ends_with_the_numbers_of_an_undisturbed_one(
    start_worker: StartWorker, broker: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_tiny_model(tmp_path / "model", dropout=0.2)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    store = store_of(get_settings())
    worker = start_worker("one")
    disturbed = submit(tmp_path)
    for attempt in (1, 2):
        wait_until(lambda attempt=attempt: saved(store, disturbed, attempt=attempt))
        kill_host(worker)
    undisturbed = submit(tmp_path)
    for run in (disturbed, undisturbed):
        assert run.wait(WAIT_SEC) is State.DONE, run.status().run.error
    assert measured(disturbed) == measured(undisturbed)
    assert len(measured(disturbed).splitlines()) == STEPS
    assert disturbed.result()["metrics"] == undisturbed.result()["metrics"]
    told = [event.data["message"] for event in disturbed.events() if event.kind == "log"]
    assert sum(line.startswith("going on from the checkpoint of step") for line in told) == 2


def submit(folder: Path) -> Run:
    spec = {
        "taskType": "sft",
        "model": {"source": {"type": "local", "identifier": str(folder / "model")}},
        "data": {"type": "file", "url": str(folder / "rows.jsonl")},
        "training": {"steps": STEPS, "batch_size": 2, "save_freq": 20},
        "retry": {"maxAttempts": 5, "backoffSeconds": 0.1},
    }
    document = {"apiVersion": "mloc/v1", "kind": "SFTTask", "metadata": {"name": "killed"}, "spec": spec}
    return submit_yaml(yaml.safe_dump(document))


def saved(store: ArtifactStore, run: Run, *, attempt: int) -> bool:
    """Whether a checkpoint of that attempt is in the store."""
    names = [info.name for info in store.list(run.id) if "/checkpoints/" in info.name]
    return any(name.split("/")[5] == str(attempt) for name in names)


def measured(run: Run) -> str:
    with open_url(run.result()["metrics_url"]) as file:
        return file.read().decode()
