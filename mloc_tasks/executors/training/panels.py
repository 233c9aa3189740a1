"""Which metrics of a training are looked at together: panels of curves, with titles and units."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Steps = Mapping[int, Mapping[str, float | None]]
"""Step -> what it measured; None for what was no finite number."""

EVALUATED = "eval_"


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of one metric, in order of steps; None where it was no finite number."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share their axes. `unit` is of the values, "" where they have none."""

    title: str
    unit: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    title: str
    names: tuple[str, ...]  # the same thing as our own trainer and those of TRL call it, and what goes beside it
    unit: str = ""


MAIN = (
    _Kind("Reward", ("mean_reward", "reward", "rewards/chosen", "rewards/rejected")),
    _Kind("KL to the reference", ("kl",), "nats"),
    _Kind("Loss", ("loss",)),
    _Kind("Learning rate", ("learning_rate",)),
)
FURTHER = (
    _Kind("Margin", ("rewards/margins", "margin")),
    _Kind("Accuracy", ("rewards/accuracies", "accuracy", "mean_token_accuracy"), "share"),
    _Kind("Policy loss", ("policy_loss",)),
    _Kind("Value loss", ("value_loss",)),
    _Kind("Entropy", ("entropy",), "nats per token"),
    _Kind("Clipped", ("clip_fraction", "value_clip_fraction", "clip_ratio/region_mean"), "share"),
    _Kind("KL coefficient", ("kl_coef",)),
    _Kind("Completions", ("completion_tokens", "completions/mean_length"), "tokens"),
    _Kind("Gradient norm", ("grad_norm",)),
    _Kind("Speed", ("tokens_per_second",), "tokens/s"),
)
MOST_UNKNOWN = 4
"""Panels of a training whose metrics are none of these."""


def read_steps(lines: Iterable[str | bytes]) -> dict[int, dict[str, float | None]]:
    """The lines of a metrics file, `{"step": 1, "loss": ...}`. Raises ValueError for other lines."""
    found: dict[int, dict[str, float | None]] = {}
    for text in lines:
        line: Any = json.loads(text)
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise ValueError(f"no line of a metrics file: {str(text)[:80]!r}")
        found.setdefault(line.pop("step"), {}).update(line)
    return found


def metric_names(steps: Steps) -> list[str]:
    """All metrics, in the order in which they came."""
    return list(dict.fromkeys(name for values in steps.values() for name in values))


def main_panels(steps: Steps) -> list[Panel]:
    """Reward, KL, loss and learning rate, as far as they were measured; of metrics without any of them the first."""
    found = _panels(steps, MAIN)
    return found or [named_panel(steps, name) for name in metric_names(steps)[:MOST_UNKNOWN]]


def all_panels(steps: Steps) -> list[Panel]:
    """The main panels, and what tells how well the training does."""
    return main_panels(steps) + _panels(steps, FURTHER)


def named_panel(steps: Steps, pattern: str) -> Panel:
    """The metrics that a pattern matches, on one panel; without curves where it matches none."""
    names = fnmatch.filter(metric_names(steps), pattern)
    known = next((kind for kind in (*MAIN, *FURTHER) if pattern in kind.names), None)
    return Panel(pattern, known.unit if known else "", tuple(_curve(steps, name) for name in names))


def shown_number(value: float) -> str:
    """At most three digits: `0.25`, `12500`, `2.5e-6`."""
    text = f"{value:.3g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return text.replace("e-0", "e-")


def _panels(steps: Steps, kinds: Sequence[_Kind]) -> list[Panel]:
    there = set(metric_names(steps))
    found = []
    for kind in kinds:
        names = [each for name in kind.names for each in (name, EVALUATED + name) if each in there]
        if names:
            found.append(Panel(kind.title, kind.unit, tuple(_curve(steps, name) for name in names)))
    return found


def _curve(steps: Steps, name: str) -> Curve:
    points = [(step, values[name]) for step, values in sorted(steps.items()) if name in values]
    return Curve(name, tuple(step for step, _ in points), tuple(value for _, value in points))
