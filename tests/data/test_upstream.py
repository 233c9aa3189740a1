"""Rows made of other stages' results: their outputs, and prompts joined from several."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mloc_tasks.data.inputs import Inputs
from mloc_tasks.data.items import ItemReader, ItemWriter
from mloc_tasks.data.stage import StageRows
from mloc_tasks.data.template import Column, TemplateRows
from mloc_tasks.errors import InputError

FAILED = object()


def result(*outputs: object, **fields: Any) -> ItemReader:
    items = [
        {"index": index, "input": "q", "ok": False, "error": "too long"}
        if output is FAILED
        else {"index": index, "input": f"q{index}", "output": output, "score": index / 2}
        for index, output in enumerate(outputs)
    ]
    document = json.dumps({"ok": True, "items": items, "usage": {"total_tokens": 42}, **fields}).encode()
    return ItemReader(lambda _: io.BytesIO(document), origin="stage 'draft'")


def rows(inputs: Inputs) -> list[object]:
    return list(inputs.slice(0, inputs.count()))


def test_rows_are_the_upstream_outputs() -> None:
    assert rows(Inputs(StageRows(result("a", "b")))) == ["a", "b"]


def test_failed_upstream_items_are_left_out_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    inputs = Inputs(StageRows(result("a", FAILED, "b", FAILED, "c", "d")))

    with caplog.at_level(logging.WARNING):
        assert inputs.count() == 4
    assert inputs.skipped == 2
    assert "2 of 6 upstream items failed" in caplog.text
    assert rows(inputs) == ["a", "b", "c", "d"]
    assert inputs.offsets([0, 2, 3]) == [0, 4, 5]
    assert list(inputs.slice(2, 4, offset=4)) == list(inputs.slice(2, 4)) == ["c", "d"]


def test_a_slice_of_a_large_upstream_opens_only_its_parts(tmp_path: Path) -> None:
    with ItemWriter(tmp_path) as writer:
        for index in range(30_000):
            writer.write({"index": index, "output": f"a{index}"})
    (tmp_path / "responses.json").write_text(json.dumps(writer.responses(ok=True, model="m", usage={})))
    opened = []

    def open_file(name: str) -> BinaryIO:
        opened.append(name)
        return (tmp_path / name).open("rb")

    inputs = Inputs(StageRows(ItemReader(open_file)))

    assert inputs.count() == 30_000
    (offset,) = inputs.offsets([20_010])
    assert list(inputs.slice(20_010, 20_012, offset)) == ["a20010", "a20011"]
    assert opened == ["responses.json", "items-00002.jsonl"]


def test_an_upstream_item_without_output_names_stage_and_item() -> None:
    reader = ItemReader(lambda _: io.BytesIO(b'{"items": [{"index": 0, "embedding": [0.5]}]}'), origin="stage 'embed'")

    with pytest.raises(
        InputError, match="stage 'embed', item 0: no column 'output'; the columns are 'index', 'embedding'"
    ):
        rows(Inputs(StageRows(reader)))


@pytest.fixture
def upstream() -> Callable[[str], ItemReader]:
    results = {
        "ask": result("Capital of France?", "2 + 2?", "Who?"),
        "draft": result("Paris", "4", FAILED, metrics={"loss": 0.25}, notes=["n0", "n1", "n2"]),
        "short": result("only one"),
    }
    return results.__getitem__


def join(upstream: Callable[[str], ItemReader], *columns: Column) -> list[object]:
    return rows(Inputs(TemplateRows(columns, upstream)))


@pytest.mark.parametrize("path", ["items[*].output", "items.output", "result.items[*].output", "items", "items[*]", ""])
def test_item_columns_are_zipped_into_labelled_blocks(upstream: Callable[[str], ItemReader], path: str) -> None:
    prompts = join(upstream, Column("Question", "ask", path), Column("Draft", "draft", path))

    # The third draft failed, so the third row is left out.
    assert prompts == ["Question:\nCapital of France?\n\nDraft:\nParis", "Question:\n2 + 2?\n\nDraft:\n4"]


def test_single_values_are_repeated_in_every_row(upstream: Callable[[str], ItemReader]) -> None:
    prompts = join(
        upstream,
        Column("Rule", "short", "items[0].output"),
        Column("Loss", "draft", "result.metrics.loss"),
        Column("", "draft", "notes"),
    )

    assert prompts[1] == "Rule:\nonly one\n\nLoss:\n0.25\n\nn1"
    assert len(prompts) == 3


def test_only_single_values_make_one_prompt(upstream: Callable[[str], ItemReader]) -> None:
    assert join(upstream, Column("A", "ask", "items[-1]"), Column("T", "ask", "usage.total_tokens")) == [
        "A:\nWho?\n\nT:\n42"
    ]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column("N", "short"), "'Q' has 3, 'N' has 1"),
        (
            Column("N", "draft", "metrics.lost"),
            "path 'metrics.lost': no 'lost' in the result of 'draft'; there is loss",
        ),
        (Column("N", "draft", "items[2].output"), "this item of 'draft' failed: too long"),
        (Column("N", "draft", "items[7].output"), "'draft' has 3 items"),
        (Column("N", "draft", "items[-7].output"), "'draft' has 3 items"),
        (Column("N", "draft", "items[*"), "not a path"),
        (Column("N", "draft", "metrics.*"), "not a path"),
        (Column("N", "draft", "items[*].outptu"), "no 'outptu'"),
    ],
)
def test_what_cannot_be_joined_says_why(upstream: Callable[[str], ItemReader], column: Column, message: str) -> None:
    with pytest.raises(InputError) as caught:
        join(upstream, Column("Q", "ask"), column)
    assert message in str(caught.value)


def test_a_shard_of_a_template_starts_where_it_should(upstream: Callable[[str], ItemReader]) -> None:
    inputs = Inputs(TemplateRows([Column("Q", "ask")], upstream))

    assert inputs.offsets([1, 2]) == [1, 2]
    assert list(inputs.slice(1, 3, 1)) == ["Q:\n2 + 2?", "Q:\nWho?"]
