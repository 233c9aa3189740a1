"""Which stage waits for which: written, implied by the sequence, and made by references."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mloc_tasks.spec.expressions import EnvReference, ExpressionError, Reference, references_in, strings
from mloc_tasks.spec.names import shown
from mloc_tasks.spec.origins import Origin, Origins, Step
from mloc_tasks.spec.stages import Draft, suggest_stage
from mloc_tasks.spec.task_types import BUILT_IN

PLANNING = {
    "resources": "its queue is chosen",
    "enforce_cpu": "its queue is chosen",
    "priority": "its queue is chosen",
    "parallel": "its shards are planned",
    "task_type": "its queue is chosen",
    "slo_seconds": "its deadline is set",
    "timeout": "its limits are set",
    "retry": "its limits are set",
    "cache": "its plan is made",
}
"""Keys that are read when a run is submitted, before any result exists -> what happens then."""


def connect(drafts: list[Draft], origins: Origins) -> None:
    """Fill in `depends_on` of every draft, in the order of the document. Problems go to `origins`."""
    by_name = {draft.name: draft for draft in drafts}
    written = {draft.name: _written(draft, previous, by_name, origins) for draft, previous in _pairs(drafts)}
    for draft in drafts:
        draft.depends_on = list(written[draft.name])
    cyclic = _report_cycle(drafts, origins)
    masks = {} if cyclic else _upstream_masks(written)
    for position, draft in enumerate(drafts):
        for origin, reference in _references(draft, origins):
            runs_later = bool(masks.get(reference.stage, 0) >> position & 1)
            _follow(draft, reference, origin, by_name, origins, runs_later=runs_later)
    if not cyclic:
        _report_cycle(drafts, origins)
    order = {draft.name: position for position, draft in enumerate(drafts)}
    for draft in drafts:
        draft.depends_on.sort(key=lambda name: order.get(name, -1))


def _pairs(drafts: list[Draft]) -> Iterator[tuple[Draft, Draft | None]]:
    previous = None
    for draft in drafts:
        yield draft, previous
        previous = draft


def _written(draft: Draft, previous: Draft | None, by_name: dict[str, Draft], origins: Origins) -> list[str]:
    """What a stage depends on before its references are looked at."""
    if draft.explicit is None:
        return [previous.name] if draft.in_sequence and previous is not None else []
    found = []
    for name in draft.explicit:
        origin = draft.explicit_origin
        if name == draft.name:
            origins.report(origin, f"stage `{name}` depends on itself")
        elif name not in by_name:
            origins.report(
                origin,
                f"`{draft.name}` depends on {shown(name)}, which is no stage",
                partial(suggest_stage, name, list(by_name)),
            )
        else:
            found.append(name)
    return found


def _references(draft: Draft, origins: Origins) -> Iterator[tuple[Origin, Reference]]:
    """The references to other stages in a draft's values; malformed and misplaced ones become problems."""
    for location, text in strings(draft.document):
        origin = draft.place(origins, *location)
        try:
            found = list(references_in(text))
        except ExpressionError as error:
            advice = "write ${stage.result.PATH}, or $${ for the characters themselves"
            origins.report(origin, str(error), advice)
            continue
        key = location[0]
        if isinstance(key, str) and key in PLANNING and found:
            message = f"`{found[0].text}` cannot stand in `{key}`"
            origins.report(origin, message, f"when the run is submitted {PLANNING[key]}, and no result exists yet")
            continue
        for reference in found:
            if isinstance(reference, EnvReference):
                continue
            yield origin, reference
    yield from _named_in_data(draft, origins)


def _named_in_data(draft: Draft, origins: Origins) -> Iterator[tuple[Origin, Reference]]:
    """Stages that `data` names without the form of a reference."""
    data = draft.document.get("data")
    if not isinstance(data, dict):
        return
    if data.get("type") == "stage" and isinstance(name := data.get("stage"), str):
        yield draft.place(origins, "data", "stage"), Reference(name, (), name)
    template = data.get("template")
    columns = template.get("columns") if isinstance(template, dict) else None
    for index, column in enumerate(columns if isinstance(columns, list) else []):
        if isinstance(column, dict) and isinstance(node := column.get("node"), str):
            location: tuple[Step, ...] = ("data", "template", "columns", index, "node")
            yield draft.place(origins, *location), Reference(node, (), node)


def _follow(
    draft: Draft,
    reference: Reference,
    origin: Origin,
    by_name: dict[str, Draft],
    origins: Origins,
    *,
    runs_later: bool,
) -> None:
    """Let a reference make its dependency, and check that what it names can be there."""
    target = by_name.get(reference.stage)
    if target is None:
        named = f"`{reference.text}` names " if reference.text != reference.stage else ""
        message = f"{named}`{reference.stage}`, which is no stage" if named else f"`{reference.stage}` is no stage"
        origins.report(origin, message, partial(suggest_stage, reference.stage, list(by_name)))
    elif target is draft:
        origins.report(origin, f"`{reference.text}` refers to its own stage `{draft.name}`")
    elif runs_later:
        message = f"`{reference.text}` is not upstream of `{draft.name}`: `{target.name}` runs after it"
        origins.report(origin, message, "refer to a stage that ends before this one starts")
    else:
        if target.name not in draft.depends_on:
            draft.depends_on.append(target.name)
        _check_field(reference, target, origin, origins)


def _check_field(reference: Reference, target: Draft, origin: Origin, origins: Origins) -> None:
    task_type = target.document.get("task_type")
    known = BUILT_IN.get(task_type) if isinstance(task_type, str) else None
    if known is None or known.result_fields is None or not reference.path:
        return
    if reference.path[0] not in known.result_fields:
        message = f"the result of `{target.name}` ({known.name}) has no `{reference.path[0]}`"
        origins.report(origin, message, f"it has {', '.join(sorted(known.result_fields))}")


def _upstream_masks(edges: dict[str, list[str]]) -> dict[str, int]:
    """Every stage of an acyclic graph -> the set of all that it waits for, as bits in the order of `edges`."""
    bits = {name: 1 << position for position, name in enumerate(edges)}
    masks: dict[str, int] = {}
    for name in walk(edges)[0]:
        masks[name] = 0
        for upstream in edges[name]:
            masks[name] |= masks[upstream] | bits[upstream]
    return masks


def walk(edges: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """All stages, each after those it depends on, and [].

    When some wait for each other: those settled so far, and one cycle, each stage of it depending on the next and the
    last on the first.
    """
    order: list[str] = []
    finished: set[str] = set()
    for start in edges:
        path: list[str] = []
        on_path: set[str] = set()
        pending = [iter([start])]
        while pending:
            name = next(pending[-1], None)
            if name is None:
                pending.pop()
                if path:
                    order.append(path.pop())
                    finished.add(order[-1])
                    on_path.discard(order[-1])
            elif name in on_path:
                return order, path[path.index(name) :]
            elif name not in finished:
                path.append(name)
                on_path.add(name)
                pending.append(iter(edges[name]))
    return order, []


def _report_cycle(drafts: list[Draft], origins: Origins) -> bool:
    _, cycle = walk({draft.name: draft.depends_on for draft in drafts})
    if cycle:
        around = " -> ".join(f"`{name}`" for name in [*cycle, cycle[0]])
        first = next(draft for draft in drafts if draft.name == cycle[0])
        origins.report(first.origin, f"these stages wait for each other: {around}", "take one dependency out")
    return bool(cycle)
