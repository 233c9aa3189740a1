"""Documents of task types `evaluate` and `embedding`: what they may say, and what is refused where."""

from __future__ import annotations

import pytest

from mloc_tasks.spec.model.evaluate import parse_item_path
from tests.spec.reading import MODEL, load, only, problems

STAGES = "  stages:\n    - {name: draft, taskType: echo, data: {prompts: [a, b]}}\n"


def _scoring(evaluate: str, more: str = "") -> str:
    return (
        f"{STAGES}    - name: score\n      taskType: evaluate\n      data: {{type: stage, stage: draft}}\n"
        f"      evaluate: {evaluate}\n{more}"
    )


def test_a_metric_by_its_name_alone() -> None:
    found = load(_scoring("{metrics: [exact_match, contains], references: [x, y]}")).stage("score").spec.evaluate
    assert found is not None
    assert [(metric.type, metric.label, metric.normalize) for metric in found.metrics] == [
        ("exact_match", "exact_match", ()),
        ("contains", "contains", ()),
    ]
    assert found.references is not None
    assert found.references.items == ("x", "y")


def test_camel_case_and_short_forms() -> None:
    spec = (
        load(
            _scoring(
                "{metrics: [{type: regex, pattern: 'A: (?P<n>\\d+)', group: n, referencePattern: 'B: (?P<n>\\d+)'}, "
                "{type: exact_match, name: loose, normalize: true}], "
                "referenceColumn: 'input[0].content', failedRows: leave_out}"
            )
        )
        .stage("score")
        .spec
    )
    assert spec.evaluate is not None
    regex, loose = spec.evaluate.metrics
    assert (regex.group, regex.reference_pattern) == ("n", r"B: (?P<n>\d+)")
    assert loose.normalize == ("case", "whitespace", "punctuation")
    assert spec.evaluate.reference_path == "input[0].content"


def test_references_may_come_from_an_upstream_result() -> None:
    spec = load(_scoring("{metrics: [exact_match], references: '${draft.result.answers}'}")).stage("score")
    assert spec.depends_on == ("draft",)


@pytest.mark.parametrize(
    ("evaluate", "path", "words", "advice"),
    [
        ("{metrics: [exact_mach], references: [x]}", "metrics[0]", "unknown metric 'exact_mach'", "`exact_match`"),
        ("{metrics: [{type: bleu}]}", "metrics[0].type", "unknown metric 'bleu'", "known are exact_match"),
        ("{metrics: [{type: regex, pattern: 'a(b'}]}", "metrics[0].pattern", "at character 2", ""),
        ("{metrics: [{type: regex}]}", "metrics[0]", "needs a `pattern`", "pattern:"),
        ("{metrics: [{type: regex, pattern: 'a', group: 1}]}", "metrics[0].group", "no group 1", "0 in parentheses"),
        ("{metrics: [{type: regex, pattern: '(?P<n>a)', group: m}]}", "metrics[0].group", "no group 'm'", "n"),
        ("{metrics: [exact_match]}", "metrics[0]", "needs references", "reference_path"),
        ("{metrics: [{type: regex, pattern: a, compare: true}]}", "metrics[0]", "needs references", ""),
        ("{metrics: [{type: exact_match, patern: a}], references: [x]}", "metrics[0].patern", "unknown key", "pattern"),
        ("{metrics: [{type: contains, pattern: a}], references: [x]}", "metrics[0].pattern", "means nothing", "regex"),
        (
            "{metrics: [{type: contains, normalize: [cas]}], references: [x]}",
            "metrics[0].normalize[0]",
            "cas",
            "`case`",
        ),
        ("{metrics: [{type: function, function: score}]}", "metrics[0].function", "name a function", "module:function"),
        ("{metrics: [{type: contains, name: 'a b'}], references: [x]}", "metrics[0].name", "metric's name", "letters"),
        ("{metrics: [contains, contains], references: [x]}", "metrics[1]", "two metrics are called", "name"),
        ("{metrics: []}", "metrics", "must not be empty", ""),
        ("{references: [x]}", "metrics", "is missing", ""),
        ("{metrics: [contains], references: [x], reference_path: input}", "reference_path", "exclude", "keep one"),
        ("{metrics: [contains], references: {type: file, url: a.jsonl}}", "references", "need a `column`", ""),
        ("{metrics: [contains], references: {type: file, column: a}}", "references", "need a `url`", ""),
        ("{metrics: [contains], references: {url: a.csv, column: a}}", "references.type", "is missing", ""),
        ("{metrics: [contains], references: {type: fle, url: a}}", "references.type", "'fle'", "`file`"),
        ("{metrics: [contains], reference_path: 'a..b'}", "reference_path", "not a path", "input[0].content"),
        ("{metrics: [contains], references: [x], failed_rows: one}", "failed_rows", "zero, leave_out", ""),
        ("{metrics: [contains], references: [x], max_failed_items: many}", "max_failed_items", "a share", ""),
    ],
)
def test_mistakes_name_the_place_and_the_way_out(evaluate: str, path: str, words: str, advice: str) -> None:
    problem = only(problems(_scoring(evaluate)))
    assert problem.path == f"spec.stages[1].evaluate.{path}"
    assert words in problem.message
    assert advice in problem.suggestion
    assert problem.line == 10


def test_a_stage_that_does_not_say_what_it_measures() -> None:
    problem = only(
        problems(f"{STAGES}    - {{name: score, taskType: evaluate, data: {{type: stage, stage: draft}}}}\n")
    )
    assert "does not say what it measures" in problem.message


def test_scores_cannot_be_split_into_shards() -> None:
    problem = only(problems(_scoring("{metrics: [contains], references: [x, y]}", "      parallel: {enabled: true}\n")))
    assert "cannot be split" in problem.message
    assert "parallel: {enabled: false} in `score`" in problem.suggestion
    assert problem.path == "spec.stages[1].parallel"


def test_references_check_the_fields_of_scores() -> None:
    after = "    - {name: end, taskType: echo, message: '${score.result.%s}'}\n"
    scoring = _scoring("{metrics: [contains], references: [x, y]}", after)
    load(scoring % "metrics.contains")
    assert "has no `metric`" in only(problems(scoring % "metric.contains")).message


def test_shards_have_their_vectors_in_the_items() -> None:
    head = f"  taskType: embedding\n{MODEL}  data: {{prompts: [a]}}\n  parallel: {{enabled: true}}\n"
    load(f"{head}  embedding: {{output: items}}\n")
    load(head)
    problem = only(problems(f"{head}  embedding: {{output: both}}\n"))
    assert problem.path == "spec.embedding.output"
    assert "output: items" in problem.suggestion


def test_paths_into_items() -> None:
    assert parse_item_path("input[0].content") == ("input", 0, "content")
    for text in (".a", "a.", "[0]", "a[x]", "a b"):
        with pytest.raises(ValueError, match="not a path"):
            parse_item_path(text)
