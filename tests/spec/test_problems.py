"""What an author is told: path, line, column, message and what to write instead."""

from __future__ import annotations

import pytest

from mloc_tasks.spec import load_workflow
from tests.spec.reading import HEAD, MODEL, load, only, problems, problems_of

THREE_MISTAKES = """\
apiVersion: mloc/v1
kind: InferenceTask
metadata:
  name: My Run
spec:
  taskType: inference
  resources:
    hardware:
      memory: 32Gb
  model:
    source: {identifier: some/model}
  inference:
    max_token: 12
    temperature: -1
    prompts: [hello]
"""


def test_all_problems_are_told_at_once_in_the_order_of_the_document() -> None:
    assert [str(problem) for problem in problems_of(THREE_MISTAKES)] == [
        "line 4, column 3: metadata.name: 'My Run' is not a name for a run; try 'my-run'",
        "line 9, column 7: spec.resources.hardware.memory: '32Gb' is not a quantity; try '32Gi'",
        "line 13, column 5: spec.inference.max_token: unknown key `max_token`; did you mean `max_tokens`?",
        "line 14, column 5: spec.inference.temperature: -1 must be at least 0",
    ]


@pytest.mark.parametrize(
    ("spec", "path", "words", "suggestion"),
    [
        ("  taskTyp: echo\n  taskType: echo\n", "spec.taskTyp", "unknown key", "did you mean `taskType`?"),
        ("  taskType: ech\n", "spec.taskType", "unknown task type 'ech'", "did you mean `echo`?"),
        ("  taskType: 3\n", "spec.taskType", "3 is not a task type", "it is one of"),
        ("  taskType: echo\n  sloSecnds: 3\n", "spec.sloSecnds", "unknown key", "did you mean `sloSeconds`?"),
        ("  taskType: echo\n  slo_secnds: 3\n", "spec.slo_secnds", "unknown key", "did you mean `slo_seconds`?"),
        ("  taskType: echo\n  gpu: 1\n", "spec.gpu", "unknown key", "it belongs under `resources.hardware`"),
        ("  taskType: echo\n  priority: 10\n", "spec.priority", "at most 9", ""),
        ("  taskType: echo\n  priority: high\n", "spec.priority", "'high' is not a whole number", ""),
        ("  taskType: echo\n  priority: true\n", "spec.priority", "true is not a whole number", ""),
        ("  taskType: echo\n  timeout: soon\n", "spec.timeout", "not a duration", "2h"),
        ("  taskType: echo\n  timeout: 0\n", "spec.timeout", "greater than 0", ""),
        ("  taskType: echo\n  timeout: -3s\n", "spec.timeout", "not a duration", "30m"),
        ("  taskType: echo\n  enforce_cpu: maybe\n", "spec.enforce_cpu", "must be true or false", ""),
        ("  taskType: echo\n  retry: 3\n", "spec.retry", "must be a mapping, not 3", ""),
        ("  taskType: echo\n  retry: {maxAttempts: -1}\n", "spec.retry.maxAttempts", "at least 1", ""),
        ("  taskType: echo\n"
         "  retry: {max_attempts: 1, maxAttempts: 2}\n", "spec.retry.maxAttempts", "the same key", "keep one"),
        ("  taskType: echo\n  resources: {replicas: 0}\n", "spec.resources.replicas", "at least 1", ""),
        ("  taskType: echo\n  resources: {replicas: 1.5}\n", "spec.resources.replicas", "not a whole number", ""),
        ("  taskType: echo\n  resources: {tags: [1]}\n", "spec.resources.tags[0]", "1 must be text", 'quote it: "1"'),
        ("  taskType: echo\n  resources: {tags: fast}\n", "spec.resources.tags", "must be a list", ""),
        ("  taskType: echo\n"
         "  resources: {hardware: {gpu: {count: -2}}}\n", "spec.resources.hardware.gpu.count", "at least 0", ""),
        ("  taskType: echo\n"
         "  resources: {hardware: {cpu: many}}\n", "spec.resources.hardware.cpu", "not a number of cores", "500m"),
        ("  taskType: echo\n  data: {typ: list}\n", "spec.data", "cannot be told", "add `type`"),
        ("  taskType: echo\n  data: {type: lst}\n", "spec.data.type", "not a kind of data", "did you mean `list`?"),
        ("  taskType: echo\n  data: {prompts: hi}\n", "spec.data.prompts", "must be a list of prompts", "- ..."),
        ("  taskType: echo\n  data: {prompts: [a, 3]}\n", "spec.data.prompts[1]", "3 is not an input", "quote"),
        ("  taskType: echo\n"
         "  data: {prompts: [[{role: u}]]}\n", "spec.data.prompts[0][0]", "not a chat message", "content"),
        ("  taskType: echo\n  data: {type: dataset}\n", "spec.data.url", "`url` is missing", ""),
        ("  taskType: echo\n  data: {url: a, split: b, max_samples: -1}\n", "spec.data.max_samples", "at least 1", ""),
        ("  taskType: echo\n  data: {type: file, url: a, format: xml}\n", "spec.data.format", "not one of jsonl", ""),
        ("  taskType: echo\n"
         "  data: {type: file, url: a, format: jsnl}\n", "spec.data.format", "not one of", "did you mean `jsonl`?"),
        ("  taskType: echo\n  data: [a]\n", "spec.data", "mapping", ""),
        ("  taskType: echo\n  model: m\n", "spec.model", "must be a mapping, not 'm'", ""),
        ("  taskType: echo\n  model: {source: {}}\n", "spec.model.source.identifier", "is missing", ""),
        ("  taskType: echo\n"
         "  model: {source: {type: hugingface, identifier: a}}\n",
         "spec.model.source.type", "not one of", "did you mean `huggingface`?"),
        ("  taskType: echo\n"
         "  model: {config: {fp16: true, bf16: true}}\n", "spec.model.config.fp16", "exclude", "keep one"),
        ("  taskType: echo\n  inference: {top_p: 0}\n", "spec.inference.top_p", "greater than 0", ""),
        ("  taskType: echo\n  inference: {top_p: 1.5}\n", "spec.inference.top_p", "at most 1", ""),
        ("  taskType: echo\n  inference: {n: 0}\n", "spec.inference.n", "at least 1", ""),
        ("  taskType: echo\n  inference: {regex: a, choice: [b]}\n", "spec.inference.choice", "exclude", "keep one"),
        ("  taskType: echo\n  inference: {max_failed_items: -1}\n", "spec.inference.max_failed_items", "share", ""),
        ("  taskType: echo\n"
         "  inference: {prompts: [a]}\n  data: {prompts: [b]}\n", "spec.inference.prompts", "both", "keep one"),
        ("  taskType: echo\n"
         "  output: {destination: {path: ../x}}\n", "spec.output.destination.path", "leaves the results root", "`..`"),
        ("  taskType: echo\n"
         "  output: {destination: {path: 'a/../../x'}}\n", "spec.output.destination.path", "leaves", ""),
        ("  taskType: echo\n  output: {destination: {type: http}}\n", "spec.output.destination", "needs `url`", ""),
        ("  taskType: echo\n"
         "  output: {destination: {type: http, url: 'ftp://x'}}\n", "spec.output.destination.url", "not an http", ""),
        ("  taskType: echo\n  checkpoint: {load: {}}\n", "spec.checkpoint.load", "exactly one of `url` and `path`", ""),
        ("  taskType: echo\n  onFailure: retry\n", "spec.onFailure", "not one of stop, continue", ""),
        ("  taskType: echo\n  lora: {r: 0}\n", "spec.lora.r", "at least 1", ""),
        ("  {}\n", "spec", "no `taskType`", "it is one of"),
        ("  []\n", "spec", "must be a mapping", ""),
    ],
)  # fmt: skip
def test_problem_of_a_spec(spec: str, path: str, words: str, suggestion: str) -> None:
    problem = only(problems(spec))
    assert problem.path == path
    assert words in problem.message
    assert suggestion in problem.suggestion
    assert problem.line is not None
    assert problem.line >= 4
    assert problem.column is not None


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("kind: EchoTask\nmetadata: {name: a}\nspec: {taskType: echo}", "apiVersion", "missing"),
        ("apiVersion: mloc/v2\nmetadata: {name: a}\nspec: {taskType: echo}", "apiVersion", "not a version"),
        ("apiVersion: mloc/v1\nspec: {taskType: echo}", "metadata", "missing"),
        ("apiVersion: mloc/v1\nmetadata: {}\nspec: {taskType: echo}", "metadata.name", "missing"),
        ("apiVersion: mloc/v1\nmetadata: a\nspec: {taskType: echo}", "metadata", "must be a mapping"),
        ("apiVersion: mloc/v1\nmetadata: {name: a}", "spec", "missing"),
        ("apiVersion: mloc/v1\nmetadata: {name: a}\nspec: {taskType: echo}\nstatus: {}", "status", "unknown key"),
        (f"apiVersion: mloc/v1\nmetadata: {{name: {'a' * 64}}}\nspec: {{taskType: echo}}", "metadata.name", "63"),
        ("apiVersion: mloc/v1\nmetadata: {name: -a}\nspec: {taskType: echo}", "metadata.name", "not a name"),
        ("apiVersion: mloc/v1\nmetadata: {name: a, labels: {b: 1}}\nspec: {taskType: echo}", "metadata.labels.b", "1"),
        ("apiVersion: mloc/v1\nkind: 3\nmetadata: {name: a}\nspec: {taskType: echo}", "kind", "must be text"),
        ("apiVersion: mloc/v1\nkind: EcoTask\nmetadata: {name: a}\nspec: {taskType: echo}", "kind", "unknown kind"),
    ],
)  # fmt: skip
def test_problem_around_the_spec(text: str, path: str, words: str) -> None:
    problem = only(problems_of(text))
    assert problem.path == path
    assert words in problem.message


def test_kind_that_contradicts_the_task_type_says_so() -> None:
    text = "apiVersion: mloc/v1\nkind: TrainingTask\nmetadata: {name: a}\nspec:\n" + MODEL
    problem = only(problems_of(text + "  taskType: inference\n  inference: {prompts: [a]}\n"))
    assert problem.message == "kind TrainingTask contradicts the task type: spec.taskType is inference"
    assert problem.suggestion == "write kind: InferenceTask"


@pytest.mark.parametrize("kind", ["SFTTask", "TrainingTask", "Workflow"])
def test_kinds_that_fit_sft(kind: str) -> None:
    text = f"apiVersion: mloc/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n{MODEL}"
    assert load_workflow(text + "  taskType: sft\n  data: {url: a, split: b}\n").kind == kind


def test_stage_that_lacks_what_its_task_type_needs() -> None:
    found = problems("  taskType: ppo\n")
    assert [problem.message for problem in found] == [
        "stage `ppo` (ppo) has no model",
        "stage `ppo` (ppo) has no `data`",
        "stage `ppo` (ppo) has nothing that scores completions",
    ]


def test_absolute_output_path_is_a_warning() -> None:
    (warning,) = load("  taskType: echo\n  output: {destination: {path: /srv/out}}\n").warnings
    assert (warning.path, warning.severity) == ("spec.output.destination.path", "warning")
    assert "MLOC_OUTPUT_ROOTS" in warning.suggestion


def test_pass_through_blocks_take_any_key() -> None:
    load(
        "  taskType: echo\n  training: {extra: {x: y}}\n"
        "  model: {vllm: {newFlag: 1}, transformers: {Other_One: {a: [b]}}}\n"
    )


def test_many_problems_are_cut_off() -> None:
    start = HEAD + "spec:\n  taskType: echo\n  resources: {tags: [" + ", ".join(["1"] * 50_000) + "]}\n"
    assert len(problems_of(start)) == 200


def test_very_long_keys_and_values_are_quoted_short() -> None:
    found = problems(
        f"  taskType: echo\n  timeout: {'x' * 10_000}\n  resources: {{hardware: {{memory: {'9' * 60}Q}}}}\n"
    )
    assert all(len(problem.message) < 200 for problem in found)
