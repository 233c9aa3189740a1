"""`mloc plot`: the curves of a training in the terminal, or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mloc_tasks.errors import MlocError
from scheduler.cli.options import RunId, StageName

if TYPE_CHECKING:
    from mloc_tasks.executors.training.panels import Panel, Steps
    from scheduler.runs import Run, RunStatus

PICTURES = (".png", ".svg")


class NoMetricsError(MlocError):
    """The run has no metrics to plot, or none yet."""


def plot(
    run: RunId,
    stage: StageName = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default=False, help="A metric, or a pattern of them; may be repeated."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Write a picture: FILE.png or FILE.svg.")
    ] = None,
) -> None:
    """Plot the metrics of a training, also while it runs: reward, KL, loss, learning rate.

    Examples:

        mloc plot last

        mloc plot 3f2a --stage train --metric kl --metric 'rewards/*'

        mloc plot last --save curves.png
    """
    from scheduler.cli.runs import find_run

    if save is not None and save.suffix not in PICTURES:
        raise typer.BadParameter(f"{save} is neither .png nor .svg", param_hint="--save")
    found = find_run(run)
    status = found.status()
    measured = _measured(found, status, stage)
    if save is not None:
        name = _only(list(measured))
        _save(save, measured[name], metric, title=f"{status.run.name} / {name}")
        return
    for name, steps in measured.items():
        _show(name, steps, metric)


def _measured(run: Run, status: RunStatus, stage: str | None) -> dict[str, Steps]:
    """What the stages measured, by name. Raises NoMetricsError where none has metrics."""
    from scheduler.metrics import metrics_of

    names = [each.name for each in status.stages]
    if stage is not None and stage not in names:
        raise typer.BadParameter(f"the run has no stage {stage!r}; it has {', '.join(names)}", param_hint="--stage")
    measured = metrics_of(run, [stage] if stage is not None else names)
    if measured:
        return measured
    what = f"stage {stage} of run {run.id}" if stage else f"run {run.id}"
    if status.state.is_final:
        raise NoMetricsError(f"{what} has no metrics", hint="trainings have them; `mloc fetch` brings other results")
    raise NoMetricsError(f"{what} has no metrics yet", hint=f"`mloc status {run.id}` tells how far it is")


def _only(names: list[str]) -> str:
    if len(names) > 1:
        raise typer.BadParameter(f"say of which stage: {', '.join(names)} have metrics", param_hint="--stage")
    return names[0]


def _chosen(steps: Steps, patterns: list[str] | None) -> list[Panel]:
    """A panel for each pattern. Raises NoMetricsError for one that matches nothing."""
    from mloc_tasks.executors.training.panels import metric_names, named_panel

    panels = [named_panel(steps, pattern) for pattern in patterns or ()]
    for panel in panels:
        if not panel.curves:
            raise NoMetricsError(f"no metric matches {panel.title!r}", hint=f"there are {_listed(metric_names(steps))}")
    return panels


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names))


def _save(file: Path, steps: Steps, patterns: list[str] | None, *, title: str) -> None:
    from mloc_tasks.executors.training.curves import save_panels
    from mloc_tasks.executors.training.panels import all_panels

    save_panels(_chosen(steps, patterns) or all_panels(steps), [file], title=title)
    typer.echo(str(file))


def _show(stage: str, steps: Steps, patterns: list[str] | None) -> None:
    from mloc_tasks.executors.training.panels import main_panels, metric_names
    from scheduler.cli.terminal import output
    from scheduler.cli.terminal_curves import drawn, terminal_has_colours, terminal_width

    panels = _chosen(steps, patterns) or main_panels(steps)
    shown = {curve.name for panel in panels for curve in panel.curves}
    others = [name for name in metric_names(steps) if name not in shown]
    console = output()
    console.print(f"{stage}: step {max(steps):,}", style="bold")
    typer.echo(drawn(panels, width=terminal_width(), colours=terminal_has_colours()))
    if others and not patterns:
        console.print(f"more, by --metric NAME: {_listed(others)}", style="dim", soft_wrap=True)
