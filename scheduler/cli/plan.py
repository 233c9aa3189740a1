"""`mloc plan`: what would run where, without a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.options import AsJson, SpecFile

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from scheduler.parts import Part
    from scheduler.plan import Plan, PlannedStage


def plan(
    spec: SpecFile,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart, for Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how a spec would run: order, queues, shards, dependencies.

    Examples:

        mloc plan pipeline.yaml

        mloc plan --mermaid pipeline.yaml >> README.md
    """
    from scheduler.cli.documents import plan_document
    from scheduler.cli.mermaid import flowchart
    from scheduler.cli.terminal import output, print_json

    found = _make(spec)
    if as_json:
        print_json(plan_document(found))
    elif mermaid:
        typer.echo(flowchart(found))
    else:
        output().print(_tree(found), soft_wrap=True)


def _make(spec: SpecFile) -> Plan:
    from mloc_tasks.queues import load_queues
    from mloc_tasks.settings import get_settings
    from scheduler.cli.boundary import show_warning
    from scheduler.cli.specs import load_spec
    from scheduler.plan import make_plan

    workflow, _ = load_spec(spec)
    for warning in workflow.warnings:
        show_warning(str(warning))
    return make_plan(workflow, load_queues(get_settings().queues_file))


def _tree(plan: Plan) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    from scheduler.cli.wording import counted

    title = f"  {counted(len(plan.stages), 'stage')}, result: {plan.result_stage}"
    root = Tree(Text.assemble((plan.name, "bold"), title), guide_style="dim")
    _grow(root, plan.root, plan)
    return root


def _grow(tree: Tree, part: Part, plan: Plan) -> None:
    """Add a part: one after the other in series; what runs side by side under a node of its own."""
    from rich.text import Text

    from scheduler.parts import Leaf, Series

    if isinstance(part, Leaf):
        tree.add(_label(plan.stage(part.stage), plan))
    elif isinstance(part, Series):
        for each in part.parts:
            _grow(tree, each, plan)
    else:
        together = tree.add(Text("in parallel", style="dim"))
        for each in part.parts:
            branch = together.add(Text("branch", style="dim")) if isinstance(each, Series) else together
            _grow(branch, each, plan)


def _label(stage: PlannedStage, plan: Plan) -> Text:
    from rich.text import Text

    facts = [shards_words(stage)]
    if stage.timeout is not None:
        from scheduler.cli.wording import duration

        facts.append(f"at most {duration(stage.timeout)}")
    width = max(len(each.name) for each in plan.stages)
    after = f"  after {', '.join(stage.depends_on)}" if stage.depends_on else ""
    return Text.assemble(
        (f"{stage.name:{width}}", "bold"),
        f"  {stage.task_type} on queue ",
        (stage.queue, "cyan"),
        f", {', '.join(facts)}",
        (after, "dim"),
    )


def shards_words(stage: PlannedStage) -> str:
    """How many shards the stage has, where that is known."""
    if stage.shards is None:
        return "shards by its input"
    return "1 shard" if stage.shards == 1 else f"{stage.shards} shards"
