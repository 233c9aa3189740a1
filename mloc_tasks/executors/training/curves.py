"""The curves of a training as pictures: small multiples of reward, KL, loss, learning rate and what goes with them."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import MlocError
from mloc_tasks.executors.training.metrics import METRICS_FILE
from mloc_tasks.executors.training.panels import Curve, Panel, all_panels, read_steps, shown_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PICTURES = ("curves.png", "curves.svg")

PANEL_INCHES = (4.2, 2.6)
TITLE_INCHES = 0.5
DOTS_PER_INCH = 130
COLUMNS = 3
FEW_POINTS = 30  # of which each is marked
SMOOTHED_FROM = 60  # points on, noisy curves get a running mean; fewer are read as they are
SMOOTHED_SHARE = 20  # of the points, in one mean
# Told apart also by those who see red and green alike [Okabe and Ito 2008, Color Universal Design].
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
GREY = "#555555"
SMALL: dict[str, Any] = {"fontsize": 8, "fontweight": "normal", "color": GREY}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text, that can be searched
    "svg.hashsalt": "mloc",  # the same numbers give the same file
}


class NoPicturesError(MlocError):
    """Pictures cannot be drawn here."""


def draw_curves(out_dir: Path, *, title: str, log: Callable[..., None]) -> None:
    """Draw `metrics.jsonl` in `out_dir` as curves.png and curves.svg beside it.

    Never fails: a training is worth more than its picture. What is missing for it is logged in one line; one without
    metrics has none.
    """
    metrics = out_dir / METRICS_FILE
    if not metrics.exists():
        return
    try:
        with metrics.open(encoding="utf-8") as lines:
            panels = all_panels(read_steps(lines))
        if panels:
            save_panels(panels, [out_dir / name for name in PICTURES], title=title)
    except NoPicturesError as error:
        log(f"no curves.png: {error}; {error.hint}")
    except Exception as error:  # the boundary: whatever a drawing library raises is logged
        log(f"no curves.png: {type(error).__name__}: {error}", level="warning")


def save_panels(panels: Sequence[Panel], files: Sequence[Path], *, title: str) -> None:
    """Draw the panels into each of the files, whose suffixes say which kind of picture: .png, .svg, .pdf.

    Raises NoPicturesError without matplotlib, OSError where a file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        hint = "pip install matplotlib"
        raise NoPicturesError("pictures are drawn by the Python package matplotlib, which is not installed", hint=hint)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(STYLE):
        figure = _figure(panels, title)
        FigureCanvasAgg(figure)  # no display is needed
        for file in files:
            undated = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(file, dpi=DOTS_PER_INCH, metadata=undated)
            figure.set_layout_engine("none")  # the next file has the layout of this one, found once


def _figure(panels: Sequence[Panel], title: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(2 if len(panels) == 4 else COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + TITLE_INCHES)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    if any(_is_smoothed(curve) for panel in panels for curve in panel.curves):
        figure.text(0.99, 0.99, "thin: each step; thick: running mean", ha="right", va="top", **SMALL)
    grid = figure.subplots(rows, columns, squeeze=False)
    for position, axes in enumerate(grid.flat):
        if position < len(panels):
            _draw(axes, panels[position])
            if position + columns >= len(panels):  # nothing stands below it
                axes.set_xlabel("step")
        else:
            axes.set_visible(False)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(panel.title + (f"  [{panel.unit}]" if panel.unit else ""))
    for number, curve in enumerate(panel.curves):
        _draw_curve(axes, curve, COLOURS[number % len(COLOURS)])
    if len(panel.curves) > 1:
        axes.legend(loc="best")
    elif panel.curves[0].name != panel.title:
        axes.set_title(panel.curves[0].name, loc="right", **SMALL)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown_number(value)))


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    values = _numbers(curve)
    look: dict[str, Any] = {"color": colour, "linewidth": 1.6, "label": curve.name}
    if len(values) <= FEW_POINTS:
        look |= {"marker": "o", "markersize": 3}
    if _is_smoothed(curve):
        axes.plot(curve.steps, values, color=colour, linewidth=0.8, alpha=0.35)
        values = running_mean(values, len(values) // SMOOTHED_SHARE)
    axes.plot(curve.steps, values, **look)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and the up to `width` - 1 before it; those that are NaN do not count."""
    means = []
    for end in range(1, len(values) + 1):
        window = [value for value in values[max(end - width, 0) : end] if not math.isnan(value)]
        means.append(sum(window) / len(window) if window else math.nan)
    return means


def _is_smoothed(curve: Curve) -> bool:
    """Whether a curve has many points and turns round at more than one in four of them, which a schedule does not."""
    values = _numbers(curve)
    changes = [after - before for before, after in pairwise(values) if after != before]
    turns = sum(one * other < 0 for one, other in pairwise(changes))
    return len(values) >= SMOOTHED_FROM and turns > len(values) / 4


def _numbers(curve: Curve) -> list[float]:
    return [math.nan if value is None else value for value in curve.values]
