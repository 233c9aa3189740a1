"""What each metric gives for an output and its reference."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.evaluate.metrics import metric_of
from mloc_tasks.executors.evaluate.scores import ScoringError
from mloc_tasks.spec.model.evaluate import Metric

FUNCTIONS = """
import random

CALLS = []

def length(output, reference, item):
    return len(output) / len(reference)

def same_case(output, reference, item):
    return output.isupper() == reference.isupper()

def both(output, reference, item):
    return {"chars": len(output), "index": item["index"]}

def broken(output, reference, item):
    raise KeyError("nothing here")

def text(output, reference, item):
    return "good"

def not_finite(output, reference, item):
    return float("nan")

def nothing(output, reference, item):
    return {}

constant = 3

class Holder:
    @staticmethod
    def score(output, reference, item):
        return 0.25
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with metric functions on the path; gives its name."""
    name = "metric_functions_of_test"
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def scored(spec: dict[str, Any], output: Any, reference: Any = None, *, references: bool = True) -> Any:
    metric = metric_of(Metric.model_validate(spec), has_references=references)
    return metric.score(output, reference, {"index": 7, "output": output})


@pytest.mark.parametrize(
    ("normalize", "output", "reference", "right"),
    [
        ([], "Paris", "Paris", True),
        ([], " Paris", "Paris", False),
        ([], "paris", "Paris", False),
        (["whitespace"], " New \n York ", "New York", True),
        (["case"], "STRASSE", "straße", True),
        (["punctuation"], "«Paris».", "Paris", True),
        (["punctuation", "whitespace"], "New - York", "New York", True),
        (True, " the ANSWER: 42! ", "The answer 42", True),
        (True, "41", "42", False),
    ],
)
def test_exact_match(normalize: Any, output: str, reference: str, right: bool) -> None:
    spec = {"type": "exact_match", "normalize": normalize}
    assert scored(spec, output, reference) == {("exact_match",): float(right)}


def test_a_reference_that_is_a_list_has_several_right_answers() -> None:
    assert scored({"type": "exact_match"}, "NYC", ["New York", "NYC"]) == {("exact_match",): 1.0}
    assert scored({"type": "contains"}, "it is NYC", ["New York", "NYC"]) == {("contains",): 1.0}


def test_values_that_are_no_text_are_compared_as_json() -> None:
    assert scored({"type": "exact_match"}, "42", 42) == {("exact_match",): 1.0}
    assert scored({"type": "exact_match"}, {"a": True}, '{"a": true}') == {("exact_match",): 1.0}


def test_a_row_without_reference_has_no_score() -> None:
    for reference in (None, []):
        with pytest.raises(ScoringError, match="no reference"):
            scored({"type": "exact_match"}, "x", reference)


@pytest.mark.parametrize(
    ("spec", "output", "reference", "right"),
    [
        ({"pattern": r"#### (-?\d+)"}, "so 6 * 7\n#### 42", "42", True),
        ({"pattern": r"#### (-?\d+)"}, "42", "42", False),
        ({"pattern": r"-?\d+"}, "6 times 7 is 42", "6", True),
        ({"pattern": r"-?\d+", "occurrence": "last"}, "6 times 7 is 42", "42", True),
        ({"pattern": r"(\d+)\.(\d+)", "group": 2}, "1.25", "25", True),
        ({"pattern": r"(?P<n>\d+)", "group": "n"}, "a 9", "9", True),
        ({"pattern": r"a(b)?"}, "a", "b", False),
        ({"pattern": "answer: (.*)", "normalize": True}, "answer: PARIS.", "paris", True),
        ({"pattern": r"is (\d+)", "reference_pattern": r"#### (\d+)"}, "it is 42", "6*7 = 42\n#### 42", True),
    ],
)
def test_what_a_regex_finds_is_compared(spec: dict[str, Any], output: str, reference: str, right: bool) -> None:
    assert scored({"type": "regex", **spec}, output, reference) == {("regex",): float(right)}


def test_a_regex_without_references_or_with_compare_false_only_has_to_match() -> None:
    assert scored({"type": "regex", "pattern": "a(b)?"}, "a", references=False) == {("regex",): 1.0}
    assert scored({"type": "regex", "pattern": "a", "compare": False}, "cat", "dog") == {("regex",): 1.0}
    assert scored({"type": "regex", "pattern": "^a", "compare": False}, "cat", "dog") == {("regex",): 0.0}


def test_a_reference_in_which_nothing_is_found_is_no_wrong_answer() -> None:
    spec = {"type": "regex", "pattern": "a", "reference_pattern": "b"}
    with pytest.raises(ScoringError, match="reference_pattern finds nothing"):
        scored(spec, "a", "c")


def test_a_function_gives_a_number_a_truth_value_or_several(functions: str) -> None:
    assert scored({"type": "function", "function": f"{functions}:length"}, "ab", "abcd") == {("function",): 0.5}
    named = {"type": "function", "name": "case", "function": f"{functions}:same_case"}
    assert scored(named, "A", "B") == {("case",): 1.0}
    several = {"type": "function", "name": "f", "function": f"{functions}:both"}
    assert scored(several, "abc") == {("f", "chars"): 3.0, ("f", "index"): 7.0}
    inner = {"type": "function", "function": f"{functions}:Holder.score"}
    assert scored(inner, "abc") == {("function",): 0.25}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("broken", "raised KeyError: 'nothing here'"),
        ("text", "gave str, not a number"),
        ("not_finite", "gave nan"),
        ("nothing", "gave no values"),
    ],
)
def test_what_goes_wrong_in_a_function_is_the_rows_error(function: str, words: str, functions: str) -> None:
    with pytest.raises(ScoringError, match=words):
        scored({"type": "function", "function": f"{functions}:{function}"}, "x", "y")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module_of_anybody:score", "cannot be imported: No module named"),
        ("{module}:no_such", "cannot be imported: .*no_such"),
        ("{module}:constant", "is int, not a function"),
    ],
)
def test_a_function_that_is_not_there_fails_the_stage(target: str, words: str, functions: str) -> None:
    with pytest.raises(ExecutionError, match=words):
        scored({"type": "function", "function": target.format(module=functions)}, "x")


def test_a_plugin_brings_a_metric_by_its_entry_point(
    functions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mloc_tasks.spec.metrics import installed_metrics

    folder = tmp_path / "test_metric-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: test-metric\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[mloc.metrics]\nrelative_length = {functions}:length\n")
    installed_metrics.cache_clear()
    try:
        assert scored({"type": "relative_length"}, "ab", "abcd") == {("relative_length",): 0.5}
    finally:
        installed_metrics.cache_clear()


def test_numbers_of_other_libraries_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    from mloc_tasks.executors.evaluate.functions import scores_of

    assert scores_of(numpy.float32(0.5), "m") == {("m",): 0.5}
    assert scores_of({"a": numpy.bool_(True)}, "m") == {("m", "a"): 1.0}
    with pytest.raises(ScoringError, match="inf"):
        scores_of({"a": math.inf}, "m")
