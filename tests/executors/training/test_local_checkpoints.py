from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.training.checkpoints import CHECKPOINT_EVERY_SEC, Checkpoints, Clock, Schedule
from mloc_tasks.spec.model.training import Training


@pytest.mark.parametrize(
    ("training", "schedule"),
    [
        ({}, Schedule(seconds=CHECKPOINT_EVERY_SEC)),
        ({"save_freq": 5}, Schedule(steps=5)),
        ({"save_steps": 0.25}, Schedule(steps=0.25)),
        ({"save_strategy": "steps"}, Schedule(steps=500)),
        ({"save_strategy": "epoch"}, Schedule(epochs=True)),
        ({"save_strategy": "no", "save_freq": 5}, Schedule()),
    ],
)
def test_checkpoints_come_every_ten_minutes_unless_the_spec_says_otherwise(
    training: dict[str, Any], schedule: Schedule
) -> None:
    assert Schedule.of(Training.model_validate(training)) == schedule
    assert Schedule.of(None) == Schedule(seconds=600.0)


def test_the_time_that_a_checkpoint_takes_does_not_count() -> None:
    now = 0.0
    clock = Clock(10.0, now=lambda: now)
    assert not clock.due()
    now = 10.0
    assert clock.due()
    now = 25.0
    clock.restart()
    now = 34.0
    assert not clock.due()


def test_a_checkpoint_is_seen_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, task_type="sft")
    made = checkpoints.folder / "checkpoint-10"
    made.mkdir(parents=True)
    (made / "weights").write_text("w")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    metrics = tmp_path / ".metrics"
    metrics.write_text("{}\n")
    published = checkpoints.publish(made, step=10, metrics=metrics)
    assert published == tmp_path / "step-00000010"
    assert sorted(path.name for path in published.iterdir()) == ["metrics.jsonl", "mloc.json", "weights"]
    assert json.loads((published / "mloc.json").read_text()) == {"task_type": "sft", "step": 10}
    assert not made.exists()


def test_one_that_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, task_type="sft")
    for text in ("first", "second"):
        made = checkpoints.folder / "checkpoint-1"
        made.mkdir(parents=True)
        (made / "weights").write_text(text)
        published = checkpoints.publish(made, step=1)
    assert (published / "weights").read_text() == "first"
    assert not made.exists()
