"""The curves of a training: what stands together, and the pictures of it."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.training.curves import draw_curves, running_mean
from mloc_tasks.executors.training.panels import Curve, all_panels, main_panels, named_panel, read_steps, shown_number

PPO = {"mean_reward": 0.5, "kl": 0.1, "loss": 0.2, "learning_rate": 1e-5, "entropy": 2.0, "clip_fraction": 0.1}


def lines(*values: dict[str, float | None], first: int = 1) -> list[str]:
    return [json.dumps({"step": step, **each}) for step, each in enumerate(values, start=first)]


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    """What a training of 70 steps leaves, whose loss goes up and down."""
    steps = [{**PPO, "loss": 0.1 * (-1) ** step, "kl": step / 10} for step in range(70)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines(*steps)) + "\n")
    return tmp_path


@pytest.fixture
def log() -> list[tuple[str, str]]:
    return []


def draw(out_dir: Path, log: list[tuple[str, str]]) -> None:
    draw_curves(out_dir, title="A title", log=lambda message, level="info": log.append((level, message)))


def test_reward_kl_loss_and_learning_rate_come_first() -> None:
    panels = all_panels(read_steps(lines(PPO, PPO)))
    assert [(panel.title, panel.unit) for panel in panels] == [
        ("Reward", ""),
        ("KL to the reference", "nats"),
        ("Loss", ""),
        ("Learning rate", ""),
        ("Entropy", "nats per token"),
        ("Clipped", "share"),
    ]
    assert panels[0].curves == (Curve("mean_reward", (1, 2), (0.5, 0.5)),)


def test_curves_of_one_kind_share_a_panel() -> None:
    steps = read_steps(
        lines({"loss": 3.0, "rewards/chosen": 1.0, "rewards/rejected": -1.0}, {"loss": 2.0, "eval_loss": 2.5})
    )
    reward, loss = main_panels(steps)
    assert [curve.name for curve in reward.curves] == ["rewards/chosen", "rewards/rejected"]
    assert loss.curves == (Curve("loss", (1, 2), (3.0, 2.0)), Curve("eval_loss", (2,), (2.5,)))


def test_metrics_that_nobody_knows_have_panels_of_their_own() -> None:
    steps = read_steps(lines({"a": 1.0, "b": 2.0}))
    assert [panel.title for panel in main_panels(steps)] == ["a", "b"]
    assert main_panels(read_steps([])) == []


def test_a_pattern_puts_all_that_it_matches_on_one_panel() -> None:
    steps = read_steps(lines({"rewards/a/mean": 1.0, "rewards/b/mean": 2.0, "loss": 3.0}))
    assert [curve.name for curve in named_panel(steps, "rewards/*").curves] == ["rewards/a/mean", "rewards/b/mean"]
    assert named_panel(steps, "reward").curves == ()
    assert named_panel(read_steps(lines(PPO)), "kl").unit == "nats"


@pytest.mark.parametrize("line", ["[]", '{"loss": 1}', '{"step": "1"}'])
def test_lines_of_another_kind_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no line of a metrics file"):
        read_steps([line])


def test_a_running_mean_skips_what_is_no_number() -> None:
    assert running_mean([1.0, 3.0, float("nan"), 5.0], 2) == [1.0, 2.0, 3.0, 5.0]


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.25"), (2.5e-6, "2.5e-6"), (12_500, "12,500"), (0, "0")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert shown_number(value) == text


def test_pictures_lie_beside_the_metrics(out_dir: Path, log: list[tuple[str, str]]) -> None:
    draw(out_dir, log)
    assert log == []
    png = (out_dir / "curves.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG")
    assert 1_500 < width < 2_000
    assert height < width
    svg = (out_dir / "curves.svg").read_text()
    for text in (
        "A title",
        "Reward",
        "KL to the reference  [nats]",
        "Entropy  [nats per token]",
        ">step<",
        "running mean",
    ):
        assert text in svg


def test_the_same_metrics_give_the_same_pictures(out_dir: Path, log: list[tuple[str, str]]) -> None:
    draw(out_dir, log)
    first = [(out_dir / name).read_bytes() for name in ("curves.png", "curves.svg")]
    draw(out_dir, log)
    assert [(out_dir / name).read_bytes() for name in ("curves.png", "curves.svg")] == first


def test_a_single_step_with_a_number_that_is_none_is_drawn(tmp_path: Path, log: list[tuple[str, str]]) -> None:
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines({"loss": None, "grad_norm": 2.0})))
    draw(tmp_path, log)
    assert (tmp_path / "curves.png").exists()
    assert log == []


def test_without_matplotlib_one_line_says_so(
    out_dir: Path, log: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    draw(out_dir, log)
    ((level, message),) = log
    assert level == "info"
    assert "matplotlib, which is not installed; pip install matplotlib" in message
    assert not (out_dir / "curves.png").exists()


def test_metrics_that_cannot_be_read_are_a_warning_and_no_failure(tmp_path: Path, log: list[tuple[str, Any]]) -> None:
    draw(tmp_path, log)
    assert log == []
    (tmp_path / "metrics.jsonl").write_text("{")
    draw(tmp_path, log)
    assert [level for level, _ in log] == ["warning"]
