"""Text that is not a document: an error with its place, never a hang and never a traceback."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
import yaml

from mloc_tasks.spec import SpecError, load_workflow
from mloc_tasks.spec.source import LARGEST_DOCUMENT
from tests.spec.reading import DOCUMENTS, HEAD, load, only, problems, problems_of

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("", "empty", None),
        ("# nothing\n", "empty", None),
        ("- a\n", "a mapping, not a list", 1),
        ("text", "a mapping, not 'text'", 1),
        ("~", "a mapping, not null", 1),
        ("a: 1\n---\nb: 2\n", "several documents", 2),
        ("a: 1\nb: 2\na: 3\n", "`a` stands twice in this mapping, first on line 1", 3),
        ("a: 1\n\tb: 2\n", "a tab", 2),
        ("a:\n\t- b\n", "a tab", 2),
        ("a: {b: 1\n", "not YAML", 2),
        ("a: 'b\n", "not YAML", 2),
        ("a: b: c\n", "not YAML", 1),
        ("a: {b: ${x.y}}\n", "not YAML", 1),
        ("a: .nan\n", "not a finite number", 1),
        ("a: -.inf\n", "not a finite number", 1),
        ("a: 1e999\n", "not a finite number", 1),
        (f"a: {'9' * 5000}\n", "5000 digits", 1),
        ("a: &x [*x]\n", "inside of what it repeats", 1),
        ("a: *x\n", "`*x` repeats nothing", 1),
        ("a: !!python/object:os.system {}\n", "tag", 1),
        ("a: !!python/name:os.system\n", "tag", 1),
        ("a: !mine b\n", "tag", 1),
        ("a: !!binary aGk=\n", "tag", 1),
        ("1: b\n", "the key '1' is not text", 1),
        ("null: b\n", "is not text", 1),
        ("? [a]\n: b\n", "a key must be text", 1),
        ("a: {{ b }}\n", "a key must be text", 1),
        ("<<: 3\n", "`<<` takes a mapping", 1),
        ("a: \0\n", "NUL", 1),
        ("a: \x07\n", "character", 1),
        ("%YAML 3.0\n---\na: 1\n", "not YAML", 1),
    ],
)
def test_text_is_refused_with_its_line(text: str, words: str, line: int | None) -> None:
    problem = only(problems_of(text))
    assert words in problem.message
    assert problem.line == line


@pytest.mark.parametrize("data", [b"\xff\xfea\0:\0", b"a: caf\xe9\n", b"ok: 1\nb: \xc3\x28\n"])
def test_bytes_that_are_not_utf8_are_refused(data: bytes) -> None:
    assert "not UTF-8" in only(problems_of(data)).message


def test_byte_order_mark_is_ignored() -> None:
    assert not problems_of(b"\xef\xbb\xbf" + f"{HEAD}spec: {{taskType: echo}}\n".encode())


def test_surrogates_in_text_are_refused() -> None:
    assert "character" in only(problems_of("a: '\ud800'")).message


@pytest.mark.parametrize("make", [str, str.encode])
def test_large_documents_are_refused_before_parsing(make: type[str]) -> None:
    start = time.process_time()
    assert "limit is 1048576" in only(problems_of(make("- x\n" * LARGEST_DOCUMENT))).message
    assert time.process_time() - start < 0.1


def test_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**32)
    assert "limit" in only(problems_of(path)).message


def _laughs(levels: int, leaf: str) -> str:
    lines = [f"a0: &a0 [{', '.join([leaf] * 10)}]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


LAUGHS = {
    "lists": _laughs(12, "x"),
    "long texts": _laughs(4, "x" * 5000),
    "mappings": "a: &a {k: v}\n"
    + "\n".join(f"a{n}: &a{n} {{x: *a{n - 1 or ''}, y: *a{n - 1 or ''}}}" for n in range(1, 40)),
    "keys": "? &k " + "x" * 100_000 + "\n: 1\nb: [" + ", ".join(["*k"] * 1000) + "]",
    "merges": "a: &a {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}\nb:\n" + "- {<<: *a}\n" * 1000,
}


@pytest.mark.parametrize("text", LAUGHS.values(), ids=LAUGHS.keys())
def test_aliases_that_multiply_are_refused_quickly_and_in_little_memory(text: str) -> None:
    problems_of(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    assert "expands to more than" in only(problems_of(text)).message
    assert time.process_time() - start < 0.1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 50 * MIB


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "{a: " * 50_000, "- " * 100_000, "? " * 50_000])
def test_deep_nesting_is_refused(text: str) -> None:
    start = time.process_time()
    assert problems_of(text)
    assert time.process_time() - start < 1


def test_deep_python_values_are_refused() -> None:
    value: object = 1
    for _ in range(100_000):
        value = [value]
    assert "nested" in only(problems_of({"a": value})).message


def test_cyclic_python_values_are_refused() -> None:
    value: list[object] = []
    value.append(value)
    assert "nested" in only(problems_of({"a": value})).message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2}, b"bytes", {"a"}])
def test_python_values_without_a_place_in_yaml_are_refused(value: object) -> None:
    assert only(problems_of({"spec": {"message": value}})).path.startswith("spec.message")


def test_anchors_and_merge_keys_work() -> None:
    spec = (
        "  stages:\n"
        "  - &first {name: a, taskType: echo, params: {x: 1, y: 2}}\n"
        "  - {<<: *first, name: b, params: &p {x: 3}}\n"
        "  - {<<: [{message: hi}, *first], name: c, params: *p}\n"
    )
    workflow = load(spec)
    assert workflow.stage("b").document["params"] == {"x": 3}
    assert workflow.stage("c").document["message"] == "hi"


def test_scalars_follow_the_core_schema() -> None:
    message = "[yes, off, 2026-01-01, 12:30:45, 1.41e-5, 0x10, 010, 1_000, ~, true, '1', !!str 1]"
    (stage,) = load(f"  taskType: echo\n  message: {message}\n").stages
    assert stage.document["message"] == [
        "yes", "off", "2026-01-01", "12:30:45", 1.41e-5, 16, 10, "1_000", None, True, "1", "1",
    ]  # fmt: skip


def test_words_for_booleans_are_taken_where_a_boolean_is_wanted() -> None:
    (stage,) = load("  taskType: echo\n  enforce_cpu: yes\n").stages
    assert stage.spec.enforce_cpu is True


def test_owner_may_be_called_yes() -> None:
    text = "apiVersion: mloc/v1\nmetadata: {name: a, owner: yes}\nspec: {taskType: echo}\n"
    assert load_workflow(text).metadata.owner == "yes"


def test_text_that_reads_as_a_number_is_shown_as_written() -> None:
    text = "apiVersion: mloc/v1\nmetadata: {name: a, owner: 1.10}\nspec: {taskType: echo}\n"
    problem = only(problems_of(text))
    assert (problem.message, problem.suggestion) == ("1.10 must be text", 'quote it: "1.10"')


def test_problem_inside_an_alias_stands_where_it_is_written() -> None:
    first = "  - {name: a, taskType: echo, retry: &r {maxAttempts: 0}}\n"
    found = problems("  stages:\n" + first + "  - {name: b, taskType: echo, retry: *r}\n")
    assert [(problem.path, problem.line) for problem in found] == [
        ("spec.stages[0].retry.maxAttempts", 6),
        ("spec.stages[1].retry.maxAttempts", 6),
    ]


def test_name_of_a_file_as_text_says_how_to_read_it() -> None:
    assert "pathlib.Path" in only(problems_of("templates/echo.yaml")).suggestion


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a:\n\tb: 1\n", "a: &x [*x]\n", "a: [1\n", "<<: 3\n", "- a: *b\n"])
def test_without_libyaml_the_same_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = only(problems_of(text))
    monkeypatch.setattr("mloc_tasks.spec.source._Loader", yaml.SafeLoader)
    found = only(problems_of(text))
    assert found.line == expected.line
    for path in DOCUMENTS:
        load_workflow(path)


def test_file_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_workflow(tmp_path / "none.yaml")


def test_error_prints_and_pickles() -> None:
    import pickle

    with pytest.raises(SpecError) as caught:
        load_workflow("a: 1\na: 2")
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems
    assert "line 2, column 1" in str(again)
