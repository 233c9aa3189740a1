from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.training.metrics import MetricsLog
from tests.executors.training.training_tasks import heard, training_task


def log_of(out_dir: Path, training: dict[str, Any] | None = None, **more: Any) -> tuple[MetricsLog, Any]:
    task = training_task("model", [], training=training)
    return MetricsLog(task, out_dir, label="PPO", shown=("mean_reward", "loss"), **more), heard(task)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_step_is_a_line_of_the_file_and_an_event(tmp_path: Path) -> None:
    log, report = log_of(tmp_path, total=2)
    with log:
        log.record(1, {"loss": 2.0, "num_tokens": 10})
        log.record(2, {"loss": 1.0, "num_tokens": 20})
    assert lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 2.0, "num_tokens": 10.0},
        {"step": 2, "loss": 1.0, "num_tokens": 20.0},
    ]
    assert report.measured == [(1, {"loss": 2.0, "num_tokens": 10.0}), (2, {"loss": 1.0, "num_tokens": 20.0})]
    assert report.steps == [(1, 2), (2, 2)]
    assert log.summary() == {"loss": 1.0, "num_tokens": 20.0, "train_loss": 1.5}


def test_the_log_line_is_the_one_that_users_know(tmp_path: Path) -> None:
    log, report = log_of(tmp_path, total=50)
    with log:
        log.record(0, {"mean_reward": 0.1234, "kl": 0.0}, done=1)
    assert report.lines() == ["PPO Step 0/50: mean_reward=0.1234"]


def test_lines_come_as_often_as_asked_for_and_at_the_end(tmp_path: Path) -> None:
    log, report = log_of(tmp_path, {"logging_steps": 3}, total=7)
    with log:
        for step in range(1, 8):
            log.record(step, {"loss": 0.5})
    assert [line.split(":")[0] for line in report.lines()] == ["PPO Step 3/7", "PPO Step 6/7", "PPO Step 7/7"]
    assert len(report.measured) == 7


def test_a_resumed_log_doubles_no_step_and_goes_on_counting(tmp_path: Path) -> None:
    before = tmp_path / "before.jsonl"
    old = [{"step": step, "loss": float(step), "num_tokens": 10.0 * step} for step in (1, 2, 3)]
    before.write_text("".join(json.dumps(line) + "\n" for line in old))
    log, report = log_of(tmp_path, total=4, resumed=before, step=2)
    with log:
        log.record(3, {"loss": 3.0, "num_tokens": 10})
        log.record(4, {"loss": 6.0, "num_tokens": 20})
    assert [(line["step"], line["num_tokens"]) for line in lines(log.path)] == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert [step for step, _ in report.measured] == [3, 4]
    assert log.summary()["train_loss"] == 3.0


def test_a_number_that_is_none_is_told_once_and_written_as_null(tmp_path: Path) -> None:
    log, report = log_of(tmp_path)
    with log:
        log.record(1, {"loss": math.nan, "kl": 0.5})
        log.record(2, {"loss": math.inf})
    assert lines(log.path)[0] == {"step": 1, "loss": None, "kl": 0.5}
    assert report.measured[0] == (1, {"kl": 0.5})
    assert report.lines("warning") == ["step 1: loss is not a finite number; lower the learning rate"]
    assert "loss" not in log.summary()


def test_each_number_that_is_none_is_told_of_once(tmp_path: Path) -> None:
    log, report = log_of(tmp_path)
    with log:
        log.record(1, {"loss": 1.0, "kl": math.nan})
        log.record(2, {"loss": math.nan, "kl": math.nan})
    assert [line.split(" is not")[0] for line in report.lines("warning")] == ["step 1: kl", "step 2: loss"]


def test_tensorboard_gets_all_steps_also_those_before_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = tmp_path / "before.jsonl"
    before.write_text('{"step": 1, "loss": 3.0}\n')
    log, _ = log_of(tmp_path, {"report_to": "tensorboard"}, resumed=before, step=1)
    with log:
        log.record(2, {"loss": 2.0})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.0), (2, 2.0)]


@pytest.mark.parametrize(
    ("report_to", "unknown"),
    [("wandb", "wandb"), (["wandb", "mlflow", "none"], "wandb, mlflow"), ("none", None), ([], None)],
)
def test_a_reporter_that_gets_nothing_is_told_of_once(report_to: Any, unknown: str | None, tmp_path: Path) -> None:
    log, report = log_of(tmp_path, {"report_to": report_to})
    with log:
        log.record(1, {"loss": 1.0})
    said = [line.split(" gets nothing")[0] for line in report.lines("warning")]
    assert said == ([] if unknown is None else [f"training.report_to: {unknown}"])


def test_nothing_else_is_written_unless_asked(tmp_path: Path) -> None:
    log, _ = log_of(tmp_path)
    with log:
        log.record(1, {"loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
