"""`mloc plot` of runs: from their files, and from their events while they go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mloc_tasks.ledger import Event, State
from scheduler import Run, submit_yaml
from scheduler.cli.app import app
from scheduler.cli.terminal_curves import drawn, whole_ticks
from scheduler.metrics import metrics_of, steps_in_events
from tests.outputs.test_addresses import WAIT_SEC, run, train

ECHO = {"name": "say", "taskType": "echo", "message": "hello"}


def mloc(*arguments: str, code: int = 0) -> str:
    """What the command prints, on stdout, or on stderr where it is to fail."""
    result = CliRunner().invoke(app, arguments, prog_name="mloc", env={"COLUMNS": "130"})
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def reported(step: int, attempt: int = 1, stage: str = "train", **values: float) -> Event:
    return Event(id="1-1", time=0.0, kind="metrics", stage=stage, attempt=attempt, data={"step": step, **values})


@pytest.fixture(scope="module")
def trained(store_url: str) -> Run:
    """A finished training of 20 steps, and a stage without metrics after it."""
    return run(train(steps=20), ECHO)


@pytest.fixture
def training(store_url: str, tmp_path: Path) -> Iterator[Run]:
    """A training that has reported its three steps and goes on."""
    stages = [train(until=str(tmp_path / "end"))]
    spec: dict[str, Any] = {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": "t"}}
    found = submit_yaml({**spec, "spec": {"stages": stages}})
    for event in found.events(follow=True):
        if event.kind == "metrics" and event.data["step"] == 3:
            break
    yield found
    (tmp_path / "end").touch()
    assert found.wait(WAIT_SEC) is State.DONE


def test_a_finished_training_is_plotted_from_its_file(trained: Run) -> None:
    text = mloc("plot", trained.id)
    assert text.startswith("train: step 20\n")
    for shown in ("Reward", "Loss", "┤", "20"):
        assert shown in text
    assert "say" not in text
    assert "\x1b" not in text
    assert "more, by" not in text


def test_metrics_are_chosen_by_name_or_pattern(trained: Run) -> None:
    text = mloc("plot", trained.id, "--metric", "loss")
    assert "loss" in text
    assert "Reward" not in text
    assert "error: no metric matches 'accuracy'" in mloc("plot", trained.id, "--metric", "accuracy", code=1)


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_a_picture_is_saved(trained: Run, tmp_path: Path, suffix: str, begins: bytes) -> None:
    file = tmp_path / f"curves{suffix}"
    assert mloc("plot", trained.id, "--stage", "train", "--save", str(file)) == f"{file}\n"
    assert file.read_bytes().startswith(begins)
    assert "neither .png nor .svg" in mloc("plot", trained.id, "--save", "curves.txt", code=2)


def test_what_has_no_metrics_says_so(trained: Run) -> None:
    assert "stage say of run" in mloc("plot", trained.id, "--stage", "say", code=1)
    assert "the run has no stage 'other'" in mloc("plot", trained.id, "--stage", "other", code=2)


def test_a_training_is_plotted_while_it_runs(training: Run) -> None:
    assert mloc("plot", training.id).startswith("train: step 3\n")
    assert metrics_of(training, ["train"])["train"][3] == {"loss": 1 / 3, "reward": 0.3}


def test_logs_show_metrics_as_a_line(training: Run) -> None:
    assert "train[0]: step 3: loss=0.3333, reward=0.3" in mloc("logs", training.id)


@pytest.mark.usefixtures("store_url")
def test_several_stages_are_plotted_one_after_the_other_and_saved_one_by_one(tmp_path: Path) -> None:
    found = run(train(), {**train(steps=4), "name": "again"})
    text = mloc("plot", found.id)
    assert text.index("train: step 3") < text.index("again: step 4")
    assert "say of which stage: train, again" in mloc("plot", found.id, "--save", str(tmp_path / "x.png"), code=2)


def test_without_plotext_it_says_what_to_install(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotext", None)
    error = mloc("plot", trained.id, code=1)
    assert "plotext, which is not installed" in error
    assert "--save curves.png" in error


def test_an_attempt_that_goes_on_from_a_checkpoint_takes_the_place_of_what_it_repeats() -> None:
    events = [reported(step, loss=1.0) for step in (1, 2, 3, 4)]
    late = reported(5, loss=1.0)
    events += [reported(3, attempt=2, loss=2.0), late, reported(1, stage="other", kl=0.5)]
    assert steps_in_events(events) == {
        "train": {1: {"loss": 1.0}, 2: {"loss": 1.0}, 3: {"loss": 2.0}},
        "other": {1: {"kl": 0.5}},
    }


def test_panels_without_a_single_number_are_drawn_empty() -> None:
    from mloc_tasks.executors.training.panels import main_panels, read_steps

    text = drawn(main_panels(read_steps(['{"step": 7, "loss": null}'])), width=60, colours=False)
    assert "Loss" in text
    assert "7" in text


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [(1, 1, [1]), (0, 59, [0, 10, 20, 30, 40, 50]), (1, 1000, [200, 400, 600, 800, 1000]), (10, 12, [10, 11, 12])],
)
def test_ticks_are_round_steps(first: int, last: int, ticks: list[int]) -> None:
    assert whole_ticks(first, last) == ticks
