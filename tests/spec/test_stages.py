"""Defaults under stages, dependencies, and references between stages."""

from __future__ import annotations

import pytest

from mloc_tasks.spec.dependencies import walk
from tests.spec.reading import MODEL, load, only, problems

ECHO = "  taskType: echo\n"


def _depends(spec: str) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.depends_on for stage in load(spec).stages}


def test_stages_run_in_sequence() -> None:
    spec = (
        ECHO
        + "  stages: [{name: a}, {name: b}, {name: c, dependsOn: []}, {name: d, dependencies: [a, c]}, {name: e}]\n"
    )
    assert _depends(spec) == {"a": (), "b": ("a",), "c": (), "d": ("a", "c"), "e": ("d",)}


def test_graph_nodes_depend_on_nothing_by_themselves() -> None:
    spec = ECHO + "  graph: {nodes: [{name: a}, {name: b}, {name: c, depends_on: a}]}\n"
    assert _depends(spec) == {"a": (), "b": (), "c": ("a",)}


def test_reference_makes_the_dependency() -> None:
    spec = (
        ECHO + "  graph: {nodes: [{name: late, message: 'x ${first.result.y[0].z} ${second.w}'}, "
        "{name: first}, {name: second}]}\n"
    )
    assert _depends(spec)["late"] == ("first", "second")


def test_stage_named_by_data_makes_the_dependency() -> None:
    spec = (
        ECHO
        + "  graph:\n    nodes:\n    - {name: a}\n    - {name: b}\n    - {name: c, data: {type: stage, stage: a}}\n"
        "    - {name: d, data: {template: {name: t, columns: [{node: a}, {node: b, path: x}]}}}\n"
    )
    assert _depends(spec)["c"] == ("a",)
    assert _depends(spec)["d"] == ("a", "b")


def test_own_values_are_merged_over_defaults_mapping_by_mapping() -> None:
    spec = (
        "  taskType: inference\n"
        "  resources: {replicas: 2, tags: [a, b], hardware: {cpu: 4, gpu: {count: 1, type: h100}}}\n"
        "  model: {source: {identifier: m}, vllm: {max_model_len: 10, dtype: auto}}\n"
        "  inference: {maxTokens: 5, temperature: 1}\n"
        "  stages:\n"
        "  - name: a\n    inference: {max_new_tokens: 7, prompts: [x]}\n"
        "    spec:\n      resources: {tags: [c], hardware: {gpu: {count: 2}}}\n      model: {vllm: {dtype: half}}\n"
    )
    document = load(spec).stage("a").document
    assert document["resources"] == {
        "replicas": 2, "tags": ["c"], "hardware": {"cpu": 4, "gpu": {"count": 2, "type": "h100"}},
    }  # fmt: skip
    assert document["model"]["vllm"] == {"max_model_len": 10, "dtype": "half"}
    assert document["inference"] == {"max_tokens": 7, "temperature": 1}


def test_null_takes_a_default_away() -> None:
    assert load(ECHO + "  timeout: 2h\n  stages: [{name: a, timeout: null}]\n").stage("a").spec.timeout is None


def test_data_of_another_form_replaces_the_default() -> None:
    spec = (
        ECHO + "  data: {prompts: [x], max_samples: 3}\n"
        "  stages: [{name: a, data: {url: u, split: s}}, {name: b, data: {max_samples: 1}}]\n"
    )
    workflow = load(spec)
    assert workflow.stage("a").document["data"] == {"type": "dataset", "url": "u", "split": "s"}
    assert workflow.stage("b").document["data"] == {"type": "list", "items": ["x"], "max_samples": 1}


def test_error_in_a_default_is_told_once_where_it_is_written() -> None:
    spec = ECHO + "  retry: {maxAttempts: 0}\n  stages: [{name: a}, {name: b}]\n"
    assert only(problems(spec)).path == "spec.retry.maxAttempts"


def test_error_in_a_stage_has_the_stages_path() -> None:
    spec = ECHO + "  stages:\n  - name: a\n  - name: b\n    spec: {retry: {maxAttempts: 0}}\n"
    problem = only(problems(spec))
    assert (problem.path, problem.line) == ("spec.stages[1].spec.retry.maxAttempts", 9)


def test_inference_in_sequence_reads_the_stage_before() -> None:
    spec = MODEL + "  taskType: inference\n  stages: [{name: a, data: {prompts: [x]}}, {name: b}, {name: c}]\n"
    workflow = load(spec)
    assert workflow.stage("b").document["data"] == {"type": "stage", "stage": "a"}
    assert workflow.stage("c").document["data"] == {"type": "stage", "stage": "b"}
    assert workflow.warnings == ()


def test_data_at_spec_level_feeds_every_stage_and_a_warning_says_so() -> None:
    spec = MODEL + "  taskType: inference\n  data: {prompts: [x]}\n  stages: [{name: a}, {name: b}]\n"
    workflow = load(spec)
    assert workflow.stage("b").document["data"]["type"] == "list"
    (warning,) = workflow.warnings
    assert "write data: {type: stage, stage: a}" in warning.suggestion


def test_inference_without_data_after_another_kind_of_stage_is_an_error() -> None:
    spec = MODEL + "  stages: [{name: a, taskType: echo}, {name: b, taskType: inference}]\n"
    problem = only(problems(spec))
    assert problem.message == "stage `b` (inference) has no `data`"
    assert "{type: stage, stage: a}" in problem.suggestion


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("'${a.items}'", {"type": "stage", "stage": "a"}),
        ("'${a.result}'", {"type": "stage", "stage": "a"}),
        ("'${a.result.items}'", {"type": "stage", "stage": "a"}),
        ("'${a.result.usage}'", {"type": "list", "items": "${a.result.usage}"}),
        ("{prompts: '${a.usage}'}", {"type": "list", "items": "${a.usage}"}),
    ],
)
def test_data_as_a_reference(data: str, expected: dict[str, str]) -> None:
    spec = (
        MODEL
        + "  taskType: inference\n"
        + f"  graph: {{nodes: [{{name: a, data: {{prompts: [x]}}}}, {{name: b, data: {data}}}]}}\n"
    )
    stage = load(spec).stage("b")
    assert stage.document["data"] == expected
    assert stage.depends_on == ("a",)


def test_typed_field_may_hold_a_reference() -> None:
    spec = (
        MODEL + "  taskType: inference\n  stages:\n  - {name: a, data: {prompts: [x]}}\n"
        "  - {name: b, inference: {max_tokens: '${a.result.usage.total_tokens}', stop: ['${a.items[0].output}']}}\n"
    )
    stage = load(spec).stage("b")
    assert stage.spec.inference is not None
    assert stage.spec.inference.max_tokens is None
    assert stage.spec.inference.stop == ("${a.items[0].output}",)
    assert stage.document["inference"]["max_tokens"] == "${a.result.usage.total_tokens}"


def test_reference_does_not_hide_other_errors_beside_it() -> None:
    spec = ECHO + "  stages: [{name: a}, {name: b, inference: {n: '${a.x}', seed: -1}}]\n"
    assert only(problems(spec)).path == "spec.stages[1].inference.seed"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{name: a, dependsOn: [a]}]", "stage `a` depends on itself"),
        ("[{name: a, dependsOn: [bb]}, {name: b}]", "`a` depends on 'bb', which is no stage"),
        ("[{name: a, dependsOn: [b]}, {name: b, dependsOn: [c]}, {name: c, dependsOn: [a]}]",
         "these stages wait for each other: `a` -> `b` -> `c` -> `a`"),
        ("[{name: a, dependsOn: [c]}, {name: b}, {name: c}]",
         "these stages wait for each other: `a` -> `c` -> `b` -> `a`"),
        ("[{name: a, dependsOn: [], message: '${b.x}'}, {name: b, dependsOn: [], message: '${a.x}'}]",
         "these stages wait for each other: `a` -> `b` -> `a`"),
        ("[{name: a, message: '${a.x}'}]", "`${a.x}` refers to its own stage `a`"),
        ("[{name: a, message: '${c.x}'}, {name: b}, {name: c}]",
         "`${c.x}` is not upstream of `a`: `c` runs after it"),
        ("[{name: a}, {name: b, message: '${aa.x}'}]", "`${aa.x}` names `aa`, which is no stage"),
        ("[{name: a}, {name: b}, {name: a}]", "two stages are called `a` (the other on line 6)"),
        ("[{name: a}, {}]", "a stage needs a `name`"),
        ("[{name: 'a b'}]", "'a b' cannot be a stage's name"),
        ("[{name: env}]", "a stage cannot be called `env`"),
        ("[{name: 1}]", "1 must be text"),
        ("[{name: a}, b]", "a stage must be a mapping, not 'b'"),
        ("[{name: a, dependsOn: [1]}]", "must be a list of stage names"),
        ("[]", "must be a list with at least one stage"),
        ("{name: a}", "must be a list with at least one stage"),
        ("[{name: a, timeout: 1, spec: {timeout: 2}}]", "`timeout` stands beside `name` and under `spec`"),
        ("[{name: a, taskType: 'x${a.b}'}]", "`${a.b}` cannot stand in `task_type`"),
        ("[{name: a}, {name: b, timeout: '${a.x}'}]", "`${a.x}` cannot stand in `timeout`"),
        ("[{name: a}, {name: b, resources: {tags: ['${a.x}']}}]", "`${a.x}` cannot stand in `resources`"),
        ("[{name: a}, {name: b, message: '${a}'}]", "`${a}` is not a reference"),
        ("[{name: a}, {name: b, message: '${a.x'}]", "a `${` in '${a.x' is not closed"),
        ("[{name: a, stages: [{name: b}]}]", "unknown key `stages`"),
    ],
)  # fmt: skip
def test_problem_between_stages(stages: str, message: str) -> None:
    found = problems(ECHO + f"  stages: {stages}\n")
    assert message in [problem.message for problem in found], "\n".join(map(str, found))
    assert all(problem.line == 6 for problem in found)


def test_reference_to_a_field_that_the_upstream_never_has() -> None:
    spec = (
        MODEL + "  stages: [{name: a, taskType: sft, data: {url: d, split: s}}, "
        "{name: b, taskType: echo, message: '${a.result.modl}'}]\n"
    )
    problem = only(problems(spec))
    assert problem.message == "the result of `a` (sft) has no `modl`"
    assert "final_lora_archive_url" in problem.suggestion


def test_stages_and_graph_exclude_each_other() -> None:
    assert (
        "exclude each other" in only(problems(ECHO + "  stages: [{name: a}]\n  graph: {nodes: [{name: b}]}\n")).message
    )


def test_defaults_that_many_stages_would_repeat_are_refused() -> None:
    prompts = ", ".join(["x" * 100] * 5_000)
    stages = ", ".join(f"{{name: s{number}}}" for number in range(1_000))
    assert "too large" in only(problems(ECHO + f"  data: {{prompts: [{prompts}]}}\n  stages: [{stages}]\n")).message


@pytest.mark.parametrize("name", ["HOME", "X_1"])
def test_environment_variable_is_put_in(name: str) -> None:
    spec = ECHO + f"  message: 'a ${{env.{name}}} b'\n"
    assert load(spec, env={name: "${x.y}"}, env_allow=[name]).stages[0].document["message"] == "a $${x.y} b"


def test_environment_variable_that_is_not_allowed_or_not_set_is_an_error() -> None:
    spec = ECHO + "  message: '${env.HOME}'\n"
    assert "may not be used" in only(problems(spec, env={"HOME": "secret"})).message
    assert "is not set" in only(problems(spec, env_allow=["HOME"])).message


def test_cycle_is_found_in_a_long_chain_without_recursion() -> None:
    edges = {str(number): [str(number + 1)] for number in range(100_000)} | {"100000": ["99998"]}
    assert walk(edges)[1] == ["99998", "99999", "100000"]
