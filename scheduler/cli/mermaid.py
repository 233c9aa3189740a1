"""A plan as a Mermaid flowchart, which GitHub and many editors draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.plan import Plan


def flowchart(plan: Plan) -> str:
    """The chart's text: a box for each stage, an arrow for each dependency; stacked boxes are split into shards."""
    # Stage names may be words of Mermaid ("end"), so that nodes are numbered.
    ids = {stage.name: f"s{number}" for number, stage in enumerate(plan.stages)}
    lines = ["flowchart LR"]
    for stage in plan.stages:
        label = f'"{stage.name}<br/>{stage.task_type} on {stage.queue}"'
        box = f"[[{label}]]" if stage.scattered else f"[{label}]"
        lines.append(f"    {ids[stage.name]}{box}")
    lines += [f"    {ids[above]} --> {ids[stage.name]}" for stage in plan.stages for above in stage.depends_on]
    return "\n".join(lines)
