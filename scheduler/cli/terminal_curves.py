"""Curves drawn with the characters of a terminal, by plotext."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import MlocError
from mloc_tasks.executors.training.panels import shown_number

if TYPE_CHECKING:
    from mloc_tasks.executors.training.panels import Panel

PANEL_ROWS = 13
PANEL_COLUMNS = 60  # at least, where two stand side by side
WIDTH = 100  # where there is no terminal
MOST_COLUMNS = 240
TICKS = 6
MARKERS = ("braille", "•", "x", "+")  # that tell curves apart without colours too


class NoPlotextError(MlocError):
    """plotext, which draws in the terminal, is not installed."""


def drawn(panels: Sequence[Panel], *, width: int, colours: bool) -> str:
    """The panels as text of `width` columns, as many side by side as fit. Raises NoPlotextError."""
    if importlib.util.find_spec("plotext") is None:
        raise NoPlotextError(
            "curves in the terminal are drawn by the Python package plotext, which is not installed",
            hint="pip install 'mloc[plot]', or write a picture: --save curves.png",
        )
    import plotext

    plotext.terminal.limit(False, False)  # what is longer than the screen is scrolled
    beside = max(min(width // PANEL_COLUMNS, len(panels)), 1)
    rows = [_row(panels[first : first + beside], width // beside) for first in range(0, len(panels), beside)]
    return "\n".join(row.string(colorless=not colours) for row in rows)


def terminal_width() -> int:
    """Columns of the terminal that stdout is."""
    return min(shutil.get_terminal_size((WIDTH, 0)).columns, MOST_COLUMNS)


def terminal_has_colours() -> bool:
    """Whether stdout is a terminal that wants colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _row(panels: Sequence[Panel], width: int) -> Any:
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.plot_size(width * len(panels), PANEL_ROWS)
    if len(panels) == 1:
        _draw(figure, panels[0], width)
    else:
        figure.subplots(1, len(panels))
        for place, panel in enumerate(panels, start=1):
            _draw(figure.subplot(1, place), panel, width)
    return figure.build()


def _draw(plot: Any, panel: Panel, width: int) -> None:
    plot.theme("simple")
    plot.plot_size(width, PANEL_ROWS)
    plot.title(_title(panel))
    points = [
        [(s, v) for s, v in zip(curve.steps, curve.values, strict=True) if v is not None] for curve in panel.curves
    ]
    for (marker, _), curve in zip(_marked(panel), points, strict=True):
        if curve:
            plot.draw(plot.signal(*map(list, zip(*curve, strict=True)), marker=marker).lines())
    steps = [step for curve in panel.curves for step in curve.steps]
    _set_ticks(plot.ruler("x"), whole_ticks(min(steps), max(steps)))
    if values := [value for curve in points for _, value in curve]:
        low, high = min(values), max(values)
        _set_ticks(plot.ruler("y"), [low + (high - low) * part / 4 for part in range(5)] if low < high else [low])


def _title(panel: Panel) -> str:
    """With the names of the curves where there are several: a legend among them would hide them."""
    title = panel.title + (f" [{panel.unit}]" if panel.unit else "")
    if len(panel.curves) == 1:
        return title
    marks = {"braille": "⠒"}
    return f"{title}: " + "  ".join(f"{marks.get(marker, marker)} {name}" for marker, name in _marked(panel))


def _marked(panel: Panel) -> list[tuple[str, str]]:
    """The marker and the name of each curve."""
    return [(MARKERS[number % len(MARKERS)], curve.name) for number, curve in enumerate(panel.curves)]


def _set_ticks(ruler: Any, ticks: Sequence[float]) -> None:
    ruler.ticks(list(ticks), [shown_number(tick) for tick in ticks])


def whole_ticks(first: int, last: int) -> list[int]:
    """Round steps from `first` to `last`, at most `TICKS` of them."""
    distance = 1
    while (last - first) // distance >= TICKS:
        distance = distance * 5 // 2 if str(distance).startswith("2") else distance * 2
    ticks = [tick for tick in range(-(-first // distance) * distance, last + 1, distance)]
    return ticks or [first]
