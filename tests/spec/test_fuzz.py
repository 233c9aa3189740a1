"""Whatever comes in: a workflow or a `SpecError`, soon."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mloc_tasks.spec import SpecError, StageSpec, Workflow, load_workflow
from mloc_tasks.spec.dependencies import walk
from tests.spec.reading import DOCUMENTS, HEAD, places

SEEDS: list[Any] = [yaml.safe_load(path.read_text()) for path in DOCUMENTS]
TEXTS = [path.read_text() for path in DOCUMENTS]
PLUGINS = ["plugin"]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["${a.b}", "${env.X}", "${", "2h", "32Gi", "-1", "inference", "ppo", "plugin", "list", "../.."]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
limits = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def attempt(document: Any) -> Workflow | None:
    """The workflow, or None when it is refused; a refusal says something printable."""
    try:
        workflow = load_workflow(document, plugin_task_types=PLUGINS, env={"X": "x"}, env_allow=["X"])
    except SpecError as error:
        refusal = error
    else:
        return checked(workflow)
    assert refusal.problems
    assert all(problem.message and problem.severity == "error" for problem in refusal.problems)
    assert str(refusal)
    return None


def checked(workflow: Workflow) -> Workflow:
    """The workflow, when what is promised of every workflow holds for it."""
    names = [stage.name for stage in workflow.stages]
    assert names
    assert walk({stage.name: list(stage.depends_on) for stage in workflow.stages})[1] == []
    for stage in workflow.stages:
        assert set(stage.depends_on) <= set(names) - {stage.name}
        text = json.dumps(stage.document, allow_nan=False)
        if "${" not in text:
            assert StageSpec.model_validate(json.loads(text)) == stage.spec
    return workflow


@limits
@given(st.one_of(st.text(), st.binary()))
def test_any_text(text: str | bytes) -> None:
    attempt(text)


@limits
@given(st.text(alphabet="ab:-?&*!|>'\"{}[],#% \n\t<~.0$", max_size=60))
def test_text_out_of_yaml_s_own_characters(text: str) -> None:
    attempt(text)
    attempt(f"{HEAD}spec:\n  taskType: echo\n  message: {text}\n")


@limits
@given(st.data())
def test_a_valid_text_with_a_piece_replaced(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    attempt(text[:start] + data.draw(st.text(max_size=20)) + text[end:])


@limits
@given(values)
def test_any_values(value: Any) -> None:
    attempt({"apiVersion": "mloc/v1", "metadata": {"name": "a"}, "spec": value})
    if isinstance(value, dict):
        attempt(value)


@limits
@given(st.data())
def test_a_valid_document_with_values_replaced(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 3))):
        location = data.draw(st.sampled_from([each for each in places(document) if each]))
        inner = document
        for step in location[:-1]:
            inner = inner[step]
        action = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if action == "replace":
            inner[location[-1]] = data.draw(values)
        elif action == "delete":
            del inner[location[-1]]
        elif isinstance(inner, dict):
            inner[data.draw(st.sampled_from(["name", "type", "data", "spec", "stages", "taskType", "x"]))] = data.draw(
                values
            )
        else:
            inner.append(data.draw(values))
    attempt(document)


@pytest.mark.parametrize("text", TEXTS)
def test_a_valid_text_cut_off_anywhere(text: str) -> None:
    for end in range(0, len(text), 17):
        attempt(text[:end])


@limits
@given(st.integers(1, 12), st.data())
def test_dependencies_of_random_graphs_are_kept(count: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(count)))
    edges = {
        f"s{node}": [f"s{other}" for other in order[:position] if data.draw(st.booleans())]
        for position, node in enumerate(order)
    }
    nodes = [{"name": name, "taskType": "echo", "dependsOn": upstream} for name, upstream in sorted(edges.items())]
    workflow = attempt({"apiVersion": "mloc/v1", "metadata": {"name": "a"}, "spec": {"graph": {"nodes": nodes}}})
    assert workflow is not None
    assert {stage.name: set(stage.depends_on) for stage in workflow.stages} == {
        name: set(upstream) for name, upstream in edges.items()
    }
