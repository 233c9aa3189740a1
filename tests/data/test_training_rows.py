"""Rows to train on: every form of data and every usual layout of columns gives the few forms that trainers take."""

from __future__ import annotations

import csv
import datetime
import io
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mloc_tasks.data.inputs import Inputs, open_inputs
from mloc_tasks.data.items import ItemReader
from mloc_tasks.errors import InputError
from mloc_tasks.hosting import _write_rows
from mloc_tasks.spec import StageSpec

Rows = list[dict[str, Any]]

ASK = [{"role": "user", "content": "hi"}]
SAY = [{"role": "assistant", "content": "hello"}]
SNUB = [{"role": "assistant", "content": "what"}]
WELL = [{"role": "assistant", "content": "well"}]
SYSTEM = [{"role": "system", "content": "be kind"}]
PAIR = {"prompt": "hi", "chosen": "hello", "rejected": "what"}
CHAT_PAIR = {"prompt": ASK, "chosen": SAY, "rejected": SNUB}
ITEMS = [
    {"index": 0, "input": "hi", "output": "hello", "finish_reason": "stop"},
    {"index": 1, "ok": False, "error": "too long"},
    {"index": 2, "input": ASK, "output": "well", "finish_reason": "length"},
]


def upstream(stage: str) -> ItemReader:
    content = json.dumps({"ok": True, "items": ITEMS}).encode()
    return ItemReader(lambda _: io.BytesIO(content), origin=f"stage {stage!r}")


def opened(task_type: str, data: dict[str, Any], **options: Any) -> Inputs:
    spec = StageSpec.model_validate({"task_type": task_type, "data": data})
    return open_inputs(spec, upstream=upstream, **options)


def rows(task_type: str, data: dict[str, Any], **options: Any) -> Rows:
    inputs = opened(task_type, data, **options)
    return list(inputs.slice(0, inputs.count()))  # type: ignore[arg-type]


def row_of(task_type: str, row: object, tmp_path: Path, **columns: Any) -> dict[str, Any]:
    path = tmp_path / "row.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (made,) = rows(task_type, {"type": "file", "path": str(path), **columns})
    return made


@pytest.mark.parametrize(
    ("task_type", "row", "columns", "made"),
    [
        # sft: prompt and completion, under every usual name
        ("sft", {"prompt": "a", "completion": "b"}, {}, {"prompt": "a", "completion": "b"}),
        ("sft", {"question": "a", "answer": 42}, {}, {"prompt": "a", "completion": "42"}),
        ("lora_sft", {"query": "a", "response": "b"}, {}, {"prompt": "a", "completion": "b"}),
        ("sft", {"input": "a", "output": "b"}, {}, {"prompt": "a", "completion": "b"}),
        # Alpaca and Dolly: what the instruction is about stands in another column
        (
            "sft",
            {"instruction": "sum", "input": "1 1", "output": "2"},
            {},
            {"prompt": "sum\n\n1 1", "completion": "2", "input": "1 1"},
        ),
        (
            "sft",
            {"instruction": "hi", "input": "", "output": "yo"},
            {},
            {"prompt": "hi", "completion": "yo", "input": ""},
        ),
        (
            "sft",
            {"instruction": "a", "input": "b", "output": "c"},
            {"prompt_column": "instruction"},
            {"prompt": "a", "completion": "c", "input": "b"},
        ),
        # named columns
        (
            "sft",
            {"text": "x", "frage": "a", "antwort": "b"},
            {"prompt_column": "frage", "response_column": "antwort"},
            {"prompt": "a", "completion": "b"},
        ),
        ("sft", {"prompt": "a", "best": "b"}, {"response_column": "best"}, {"prompt": "a", "completion": "b"}),
        ("sft", {"prompt": "a", "output": "b"}, {"column": "output"}, {"text": "b"}),
        ("sft", {"q": "a", "b": "b"}, {"column": "q", "response_column": "b"}, {"prompt": "a", "completion": "b"}),
        # whole texts and conversations
        ("sft", {"text": "a", "id": 7}, {}, {"text": "a", "id": 7}),
        ("sft", {"body": "a"}, {}, {"text": "a"}),
        ("sft", "a", {}, {"text": "a"}),
        ("sft", ASK + SAY, {}, {"messages": ASK + SAY}),
        ("sft", {"messages": ASK + SAY, "prompt": "hi", "chosen": "x", "text": "t"}, {}, {"messages": ASK + SAY}),
        (
            "sft",
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}], "id": "7"},
            {},
            {"messages": ASK + SAY, "id": "7"},
        ),
        (
            "sft",
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}], "name": None}]},
            {},
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]},
        ),
        # a text beside messages becomes a message
        ("sft", {"prompt": ASK, "completion": "hello"}, {}, {"prompt": ASK, "completion": SAY}),
        ("sft", {"prompt": "hi", "completion": SAY}, {}, {"prompt": ASK, "completion": SAY}),
        # preferences
        ("dpo", PAIR, {}, PAIR),
        ("dpo", {**PAIR, "messages": ASK, "margin": 2.5}, {}, {**PAIR, "margin": 2.5}),
        (
            "dpo",
            {"question": "hi", "good": "hello", "bad": "what"},
            {"chosen_column": "good", "rejected_column": "bad"},
            PAIR,
        ),
        ("dpo", {**PAIR, "chosen": SAY, "rejected": SNUB}, {}, CHAT_PAIR),
        ("dpo", {**PAIR, "prompt": ASK}, {}, CHAT_PAIR),
        ("reward", {**PAIR, "prompt": SYSTEM + ASK}, {}, {**CHAT_PAIR, "prompt": SYSTEM + ASK}),
        # UltraFeedback: whole conversations, and the prompt once more beside them
        (
            "dpo",
            {"prompt": "hi", "chosen": ASK + SAY, "rejected": ASK + SNUB, "score_chosen": 8.0},
            {},
            {"chosen": ASK + SAY, "rejected": ASK + SNUB, "score_chosen": 8.0},
        ),
        ("reward", {"chosen": "a", "rejected": "b"}, {}, {"chosen": "a", "rejected": "b"}),
        ("sft", PAIR, {"response_column": "chosen"}, {"prompt": "hi", "completion": "hello"}),
        # prompts, with everything else for reward functions
        ("ppo", {"prompt": "a", "label": 1}, {}, {"prompt": "a", "label": 1}),
        ("ppo", "a", {}, {"prompt": "a"}),
        ("ppo", {"topic": "a"}, {}, {"prompt": "a"}),
        ("grpo", {"question": "a", "answer": "4", "text": "x"}, {}, {"prompt": "a", "answer": "4", "text": "x"}),
        ("grpo", {"prompt": "a", "query": "b"}, {"prompt_column": "query"}, {"prompt": "b"}),
        ("grpo", {"messages": ASK + SAY}, {}, {"prompt": ASK}),
        ("grpo", SYSTEM + ASK, {}, {"prompt": SYSTEM + ASK}),
        ("ppo", {"instruction": "sum", "input": "1 1"}, {}, {"prompt": "sum\n\n1 1", "input": "1 1"}),
    ],
)  # fmt: skip
def test_a_row_s_columns_become_what_the_method_takes(
    task_type: str, row: object, columns: dict[str, str], made: dict[str, Any], tmp_path: Path
) -> None:
    assert row_of(task_type, row, tmp_path, **columns) == made


@pytest.mark.parametrize(
    ("task_type", "row", "columns", "message", "hint"),
    [
        ("sft", {"a": "x", "b": "y"}, {}, "line 1: no column to learn from; the columns are 'a', 'b'", "prompt_column"),
        ("sft", {"prompt": "x", "b": "y"}, {}, "no column of the response", "set data.response_column"),
        ("sft", {"a": "x", "answer": "y"}, {}, "no column of the prompt", "prompt or instruction or question"),
        ("sft", {"prompt": "x", "answr": "y"}, {"response_column": "answer"}, "no column 'answer'", "_column: answr"),
        ("sft", {"messages": "hello"}, {}, "messages are a text", "data.column"),
        ("sft", {"messages": []}, {}, "column 'messages': the chat has no messages", ""),
        ("sft", {"messages": [{"role": "user"}]}, {}, "message 0 of the chat", '"role": "user"'),
        ("sft", {"messages": [*ASK, "x"]}, {}, "message 1 of the chat", ""),
        ("sft", {"conversations": [{"from": "alien", "value": "x"}]}, {}, "is from 'alien'", "human"),
        ("sft", {"prompt": "a", "completion": None}, {}, "column 'completion' is empty (null)", ""),
        ("sft", {"text": {"a": 1}}, {}, "column 'text' is a mapping, neither text nor", ""),
        ("dpo", {"prompt": "a", "chosen": "b"}, {}, "no column of the rejected; the columns", "data.rejected_column"),
        ("dpo", {"chosen": "a", "rejected": "b", "ask": "c"}, {}, "are 'chosen', 'rejected', 'ask'", "prompt_column"),
        ("dpo", {"chosen": SAY, "rejected": SNUB}, {}, "no column of the prompt", ""),
        ("dpo", {"prompt": "a", "chosen": ASK, "rejected": SAY}, {}, "the last message of chosen", ""),
        ("dpo", {"prompt": "a", "chosen": ASK + SAY, "rejected": "b"}, {}, "one of chosen and rejected is", "both"),
        ("dpo", "a text", {}, "line 1: one text or chat is no pair", "data.preferences"),
        ("reward", ASK, {}, "no pair", ""),
        ("ppo", {"a": "x", "b": "y"}, {}, "no column of the prompt; the columns are 'a', 'b'", "data.prompt_column"),
        ("ppo", {"messages": SAY}, {}, "nothing to answer", ""),
        ("grpo", {"promt": "x"}, {"column": "prompt"}, "no column 'prompt'", "data.column: promt"),
    ],
)  # fmt: skip
def test_a_row_that_lacks_something_is_named_with_the_key_to_set(
    task_type: str, row: object, columns: dict[str, str], message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        row_of(task_type, row, tmp_path, **columns)

    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert "row.jsonl, line 1" in str(caught.value)


def test_the_row_that_is_wrong_is_the_one_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [PAIR, PAIR, {"prompt": "a", "chosen": "b"}, PAIR]))
    inputs = opened("dpo", {"type": "file", "url": str(path)})

    assert inputs.count() == 4
    with pytest.raises(InputError, match=r"rows\.jsonl, line 3: no column of the rejected"):
        list(inputs.slice(0, 4))


def _jsonl(path: Path, table: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table))


def _json(path: Path, table: Rows) -> None:
    path.write_text(json.dumps(table))


def _csv(path: Path, table: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def _parquet(path: Path, table: Rows) -> None:
    parquet.write_table(arrow.Table.from_pylist(table), path, row_group_size=7)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {"jsonl": _jsonl, "json": _json, "csv": _csv, "parquet": _parquet}


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


_text = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1)


@pytest.mark.parametrize("extension", WRITERS)
@settings(max_examples=15, deadline=None)
@given(
    table=st.lists(st.fixed_dictionaries(dict.fromkeys(PAIR, _text) | {"source": _text}), min_size=1, max_size=20),
    data=st.data(),
)
def test_every_format_gives_the_same_rows_in_every_slice(
    tmp_path_factory: pytest.TempPathFactory, extension: str, table: Rows, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows.{extension}"
    WRITERS[extension](path, table)
    form = {"type": "file", "url": str(path)}
    start = data.draw(st.integers(0, len(table) - 1))
    stop = data.draw(st.integers(start, len(table)))

    counted = opened("dpo", form)
    assert counted.count() == len(table)
    (offset,) = counted.offsets([start])
    fresh = opened("dpo", form)

    assert rows("dpo", form) == table
    assert list(fresh.slice(start, stop)) == table[start:stop]
    assert list(fresh.slice(start, stop, offset)) == table[start:stop]
    assert sorted(map(_line, rows("dpo", {**form, "shuffle": True, "seed": 1}))) == sorted(map(_line, table))
    assert rows("dpo", {**form, "max_samples": 3}) == table[:3]


def test_lines_of_text_are_texts_or_prompts(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one\n\ntwo\n")
    data = {"type": "file", "url": str(path)}

    assert rows("sft", data) == [{"text": "one"}, {"text": "two"}]
    assert rows("ppo", data) == [{"prompt": "one"}, {"prompt": "two"}]
    with pytest.raises(InputError, match=r"lines\.txt, line 1: one text"):
        rows("dpo", data)


def test_rows_come_from_an_address_as_well() -> None:
    content = json.dumps(PAIR).encode() + b"\n"
    for url in ("s3://bucket/pairs.jsonl", "https://host/pairs.jsonl?version=2"):
        assert rows("dpo", {"type": "file", "url": url}, open_url=lambda _: io.BytesIO(content)) == [PAIR]


def test_a_chat_in_a_table_is_the_chat_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "chats.parquet"
    table = [{"messages": ASK + SAY, "day": datetime.date(2026, 1, 2)}, {"messages": SYSTEM + ASK + SAY, "day": None}]
    _parquet(path, table)

    assert rows("sft", {"type": "file", "url": str(path)}) == [{**table[0], "day": "2026-01-02"}, table[1]]


def test_values_that_json_lacks_are_text_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.parquet"
    when = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    _parquet(path, [{"text": "a", "when": when, "price": Decimal("1.50"), "image": b"\x89PNG", "bits": [1, 0]}] * 2)

    made = rows("sft", {"type": "file", "url": str(path)})

    assert made == [{"text": "a", "when": when.isoformat(), "price": "1.50", "bits": [1, 0]}] * 2
    assert [record.message for record in caplog.records] == [
        "column 'image' is left out: JSON has no form for its values (bytes)"
    ]
    with pytest.raises(InputError, match="column 'image' is bytes, neither text nor"):
        rows("sft", {"type": "file", "url": str(path), "column": "image"})


@pytest.fixture
def published(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for data files; the library takes splits from names in its path, `test` among them."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf-cache"))
    return tmp_path_factory.mktemp("published")


def test_a_dataset_s_columns_and_messages_are_read(published: Path) -> None:
    table = datasets.Dataset.from_list(
        [
            {"prompt": "hi", "chosen": ASK + SAY, "rejected": ASK + SNUB, "score": float(number), "image": b"\x89PNG"}
            for number in range(6)
        ]
    )
    table.to_parquet(published / "train.parquet")

    made = rows("dpo", {"type": "dataset", "url": str(published), "split": "train[:50%]"})

    assert made == [{"chosen": ASK + SAY, "rejected": ASK + SNUB, "score": float(number)} for number in range(3)]
    shuffled = {"type": "dataset", "url": str(published), "shuffle": True, "seed": 3, "max_samples": 4}
    assert rows("dpo", shuffled) == rows("dpo", shuffled)
    assert len(rows("dpo", shuffled)) == 4


def test_a_dataset_without_the_columns_is_an_error_before_a_row_is_read(published: Path) -> None:
    datasets.Dataset.from_dict({"a": ["x"], "b": ["y"]}).to_parquet(published / "train.parquet")

    with pytest.raises(InputError, match="no column of the chosen; the columns are 'a', 'b'"):
        opened("reward", {"type": "dataset", "url": str(published), "split": "train"}).count()


def test_rows_written_in_the_spec() -> None:
    assert rows("sft", {"items": ["a", ASK + SAY]}) == [{"text": "a"}, {"messages": ASK + SAY}]
    assert rows("ppo", {"prompts": ["a", ASK]}) == [{"prompt": "a"}, {"prompt": ASK}]
    assert rows("dpo", {"preferences": [PAIR, CHAT_PAIR]}) == [PAIR, CHAT_PAIR]
    assert rows("reward", {"preferences": [PAIR], "max_samples": 1}) == [PAIR]
    assert rows("grpo", {"preferences": [PAIR]}) == [PAIR]
    with pytest.raises(InputError, match=r"spec\.data\.items\[0\]: one text or chat is no pair"):
        rows("dpo", {"items": ["a"]})


def test_what_a_stage_was_asked_and_said_is_prompt_and_completion() -> None:
    data = {"type": "stage", "stage": "ask"}
    made = [
        {"index": 0, "prompt": "hi", "completion": "hello", "finish_reason": "stop"},
        {"index": 2, "prompt": ASK, "completion": WELL, "finish_reason": "length"},
    ]

    assert rows("sft", data) == made
    assert [row["prompt"] for row in rows("ppo", data)] == ["hi", ASK]
    assert [row["prompt"] for row in rows("grpo", {**data, "column": "output"})] == ["hello", "well"]
    assert opened("sft", data).count() == 2
    with pytest.raises(InputError, match="item 0: no column of the chosen"):
        rows("dpo", data)


def test_a_prompt_joined_of_stages_is_trained_on() -> None:
    template = {"name": "t", "columns": [{"label": "Q", "node": "ask", "path": "items[0].output"}]}

    assert rows("grpo", {"type": "graph_template", "template": template}) == [{"prompt": "Q:\nhello"}]


def test_a_million_rows_are_counted_and_entered_without_loading_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = b'{"prompt":"question","completion":"answer"}\n'
    with path.open("wb") as file:
        for _ in range(1000):
            file.write(line * 1000)
    inputs = opened("sft", {"type": "file", "url": str(path)})

    tracemalloc.start()
    try:
        assert inputs.count() == 1_000_000
        (offset,) = inputs.offsets([999_999])
        (last,) = inputs.slice(999_999, 1_000_000, offset)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert last == {"prompt": "question", "completion": "answer"}
    assert peak < 4 * 2**20


def test_rows_reach_the_host_one_json_value_a_line(tmp_path: Path) -> None:
    pair = {**PAIR, "chosen": "line\u2028one\ntwo ünïcode \ud800", "score": float("inf")}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n" + json.dumps(PAIR) + "\n")
    inputs = opened("dpo", {"type": "file", "url": str(tmp_path / "pairs.jsonl")})

    told = _write_rows(inputs.slice(0, 2), tmp_path / "rows")

    assert told == {"path": str(tmp_path / "rows"), "start": 0, "count": 2}
    assert [json.loads(line) for line in (tmp_path / "rows").read_bytes().splitlines()] == [pair, PAIR]
