"""A stage of task type `evaluate` over upstream items: what it reads, writes and refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.data.inputs import open_inputs
from mloc_tasks.data.items import ItemReader, ItemWriter
from mloc_tasks.errors import ExecutionError, InputError
from mloc_tasks.executors import Task
from mloc_tasks.executors.evaluate import EvaluateExecutor
from mloc_tasks.spec import StageSpec
from tests.executors.executor_tasks import Recorder

ANSWERS = [
    {"index": 0, "input": "capital of France?", "output": "Paris"},
    {"index": 1, "input": "of Spain?", "output": "madrid"},
    {"index": 2, "input": "of Mars?", "ok": False, "error": "too long"},
    {"index": 3, "input": "of Italy?", "output": "It is Rome."},
]
CAPITALS = ["Paris", "Madrid", "none", "Rome"]


def upstream(items: list[dict[str, Any]]) -> ItemReader:
    content = json.dumps({"ok": True, "items": items}).encode()
    return ItemReader(lambda _: io.BytesIO(content), origin="stage 'draft'")


def evaluated(
    evaluate: dict[str, Any],
    out_dir: Path,
    *,
    reader: ItemReader | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the stage as an attempt does: inputs opened, counted, sliced."""
    data = data or {"type": "stage", "stage": "draft"}
    document = {"task_type": "evaluate", "data": data, "evaluate": evaluate}
    spec = StageSpec.model_validate(document)
    inputs = open_inputs(spec, upstream=lambda _: upstream(ANSWERS) if reader is None else reader)
    rows = inputs.slice(0, inputs.count())
    out_dir.mkdir(exist_ok=True)
    task = Task({"spec": document}, spec=spec, report=Recorder(), inputs=rows)
    return EvaluateExecutor().run(task, out_dir)


def test_items_have_their_scores_and_the_result_their_means(tmp_path: Path) -> None:
    result = evaluated({"metrics": ["exact_match", "contains"], "references": CAPITALS}, tmp_path)
    assert result["metrics"] == {"exact_match": 0.25, "contains": 0.5}
    assert result["items"][0] == {
        "index": 0,
        "input": "capital of France?",
        "output": "Paris",
        "reference": "Paris",
        "scores": {"exact_match": 1.0, "contains": 1.0},
    }
    assert result["items"][2] == {
        "index": 2,
        "input": "of Mars?",
        "ok": False,
        "error": "failed upstream: too long",
    }
    assert json.loads((tmp_path / "responses.json").read_text()) == result
    assert result.keys() <= (EvaluateExecutor.result_fields or set()) | {"items"}


def test_failed_rows_count_as_the_spec_says(tmp_path: Path) -> None:
    spec = {"metrics": ["contains"], "references": CAPITALS}
    zero = evaluated(spec, tmp_path / "zero")
    assert zero["summary"] == {
        "rows": 4,
        "scored": 3,
        "failed_upstream": 1,
        "failed_scoring": 0,
        "failed_rows": "zero",
        "metrics": {"contains": {"mean": 0.5, "stderr": pytest.approx(0.288675, abs=1e-6), "count": 4}},
    }
    left_out = evaluated({**spec, "failed_rows": "leave_out"}, tmp_path / "left_out")
    assert left_out["metrics"]["contains"] == pytest.approx(2 / 3)
    assert left_out["summary"]["metrics"]["contains"]["count"] == 3


def test_too_many_failed_rows_fail_the_stage(tmp_path: Path) -> None:
    spec = {"metrics": ["contains"], "references": CAPITALS}
    evaluated({**spec, "max_failed_items": 1}, tmp_path / "one")
    with pytest.raises(ExecutionError, match=r"evaluate.max_failed_items 0.1 allows 0.*row 2: failed upstream"):
        evaluated({**spec, "max_failed_items": "10%"}, tmp_path / "none")


def test_tables_for_spreadsheets_and_people(tmp_path: Path) -> None:
    answers = [{"index": 0, "output": 'a "quoted", line\nand another'}, {"index": 1, "ok": False, "error": "lost"}]
    evaluated({"metrics": ["contains"], "references": ["quoted", "x"]}, tmp_path, reader=upstream(answers))
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"index": "0", "output": answers[0]["output"], "reference": "quoted", "error": "", "contains": "1.0"},
        {"index": "1", "output": "", "reference": "", "error": "failed upstream: lost", "contains": ""},
    ]
    summary = (tmp_path / "summary.md").read_text()
    assert "| contains | 0.5000 | 0.5000 | 2 |" in summary
    assert "2 rows; 1 of them failed and count as 0." in summary


def test_references_out_of_the_items_themselves(tmp_path: Path) -> None:
    answers = [
        {"index": 0, "input": [{"role": "user", "content": "say A"}], "output": "A", "meta": {"gold": ["A", "a"]}},
        {"index": 1, "ok": False, "error": "lost"},
    ]
    spec = {"metrics": ["exact_match"], "reference_path": "meta.gold"}
    assert evaluated(spec, tmp_path / "a", reader=upstream(answers))["items"][0]["reference"] == ["A", "a"]
    spec = {"metrics": ["contains"], "reference_path": "output", "output_path": "input[0].content"}
    assert evaluated(spec, tmp_path / "b", reader=upstream(answers))["items"][0]["scores"] == {"contains": 1.0}


@pytest.mark.parametrize("key", ["reference_path", "output_path"])
def test_a_path_that_leads_nowhere_names_what_is_there(key: str, tmp_path: Path) -> None:
    spec: dict[str, Any] = {"metrics": ["contains"], "reference_path": "input", key: "answer.text"}
    with pytest.raises((InputError, ExecutionError), match=rf"item 0.*{key}.*`answer`.*index, input, output"):
        evaluated(spec, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "more"),
    [
        ("gold.jsonl", '{"q": 1, "a": "Paris"}\n{"a": "Madrid"}\n{"a": "none"}\n{"a": "Rome"}\n', {"column": "a"}),
        ("gold.csv", "q,a\n1,Paris\n2,Madrid\n3,none\n4,Rome\n", {"column": "a"}),
        ("gold.txt", "Paris\nMadrid\nnone\nRome\n", {}),
        ("long.txt", "Paris\nMadrid\nnone\nRome\nOslo\n", {"max_samples": 4}),
    ],
)
def test_references_from_a_file(name: str, content: str, more: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    references = {"type": "file", "url": str(tmp_path / name), **more}
    result = evaluated({"metrics": ["contains"], "references": references}, tmp_path / "out")
    assert [item.get("reference") for item in result["items"]] == ["Paris", "Madrid", None, "Rome"]


def test_references_from_a_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps({"q": "?", "a": name}) + "\n" for name in CAPITALS))
    references = {"type": "dataset", "url": str(tmp_path / "gold.jsonl"), "column": "a", "split": "train[:4]"}
    result = evaluated({"metrics": ["contains"], "references": references}, tmp_path / "out")
    assert result["metrics"] == {"contains": 0.5}


def test_as_many_references_as_items(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 references for 4 items") as caught:
        evaluated({"metrics": ["contains"], "references": CAPITALS[:3]}, tmp_path)
    assert "failed ones counted" in caught.value.hint


def test_answers_out_of_a_file_with_a_column_of_references(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("answer,gold\nParis,Paris\nrome,Oslo\n")
    data = {"type": "file", "url": str(tmp_path / "old.csv"), "column": "answer"}
    result = evaluated({"metrics": ["exact_match"], "reference_path": "gold"}, tmp_path / "out", data=data)
    assert result["metrics"] == {"exact_match": 0.5}
    assert result["items"][1] == {"index": 1, "output": "rome", "reference": "Oslo", "scores": {"exact_match": 0.0}}


def test_chosen_rows_keep_their_references(tmp_path: Path) -> None:
    data = {"type": "stage", "stage": "draft", "shuffle": True, "seed": 5, "max_samples": 3}
    result = evaluated({"metrics": ["contains"], "references": CAPITALS}, tmp_path, data=data)
    assert [item["index"] for item in result["items"]] == [0, 1, 2]
    pairs = {item["output"]: item["reference"] for item in result["items"] if "output" in item}
    assert pairs.items() <= {("Paris", "Paris"), ("madrid", "Madrid"), ("It is Rome.", "Rome")}


def test_a_metric_whose_names_change_fails_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "changing_metric_of_test.py").write_text("def score(o, r, i):\n    return {o: 1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    answers = [{"index": 0, "output": "x"}, {"index": 1, "output": "x"}, {"index": 2, "output": "y"}]
    spec = {"metrics": [{"type": "function", "name": "f", "function": "changing_metric_of_test:score"}]}
    result = evaluated(spec, tmp_path / "out", reader=upstream(answers))
    assert result["metrics"] == {"f": {"x": pytest.approx(2 / 3)}}
    assert result["items"][2]["error"] == "f gave f.y here, but f.x before"


def test_no_rows_have_no_mean(tmp_path: Path) -> None:
    result = evaluated({"metrics": ["contains"], "references": []}, tmp_path, reader=upstream([]))
    assert result["metrics"] == {"contains": None}
    assert result["items"] == []


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    rows = 12_000
    folder = tmp_path / "draft"
    folder.mkdir()
    with ItemWriter(folder) as writer:
        for index in range(rows):
            writer.write({"index": index, "input": "x" * 200, "output": str(index % 10)})
    document = writer.responses(ok=True, model="", usage={})
    (folder / "responses.json").write_text(json.dumps(document))
    references = tmp_path / "gold.txt"
    references.write_text("0\n" * rows)
    spec = {"metrics": ["exact_match"], "references": {"type": "file", "url": str(references)}}
    peak = _peak_bytes(
        lambda: evaluated(spec, tmp_path / "out", reader=ItemReader(lambda name: (folder / name).open("rb")))
    )
    assert peak < 12 * 2**20  # ItemWriter holds up to 10,000 items before it begins to write parts
    result = json.loads((tmp_path / "out" / "responses.json").read_text())
    assert result["metrics"] == {"exact_match": 0.1}
    assert result["items_total"] == rows
    assert [part["name"] for part in result["items_parts"]] == [f"items-0000{n}.jsonl" for n in range(2)]
    with (tmp_path / "out" / "table.csv").open() as table:
        assert sum(1 for _ in table) == rows + 1


def _peak_bytes(run: Any) -> int:
    import tracemalloc

    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
