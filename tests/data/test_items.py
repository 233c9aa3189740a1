"""Writing, reading and merging a stage's items."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mloc_tasks.data.items import PART_ITEMS, ItemReader, ItemWriter
from mloc_tasks.data.merge import merge_shards
from mloc_tasks.errors import ExecutionError, InputError

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "latency_sec": 0.5, "num_requests": 1}


def item(index: int, **more: Any) -> dict[str, Any]:
    return {"index": index, "input": f"q{index}", "output": f"a{index}", "finish_reason": "stop", **more}


def write(
    folder: Path, items: Iterator[dict[str, Any]], *, parts: bool = False, ok: bool = True, **extra: Any
) -> ItemReader:
    folder.mkdir(exist_ok=True)
    with ItemWriter(folder, parts=parts) as writer:
        for each in items:
            writer.write(each)
    document = writer.responses(ok=ok, model="m", usage=USAGE, **extra)
    (folder / "responses.json").write_text(json.dumps(document))
    return reader(folder)


def reader(folder: Path) -> ItemReader:
    return ItemReader(lambda name: (folder / name).open("rb"))


def test_few_items_stand_inline_in_the_seeds_shape(tmp_path: Path) -> None:
    result = write(tmp_path, (item(index) for index in range(3)))

    assert result.document == {"ok": True, "model": "m", "items": [item(0), item(1), item(2)], "usage": USAGE}
    assert [path.name for path in tmp_path.iterdir()] == ["responses.json"]
    assert len(result) == 3
    assert list(result.items(1, 2)) == [item(1)]


@pytest.mark.parametrize(("total", "files"), [(PART_ITEMS - 1, 0), (PART_ITEMS, 1), (PART_ITEMS + 1, 2)])
def test_items_spill_to_parts_from_ten_thousand_on(tmp_path: Path, total: int, files: int) -> None:
    result = write(tmp_path, (item(index) for index in range(total)))

    assert len(list(tmp_path.glob("items-*.jsonl"))) == files == len(result.parts)
    assert len(result) == total
    assert [each["index"] for each in result.items()] == list(range(total))
    assert len(result.document["items"]) == (100 if files else total)
    assert result.document.get("items_truncated", False) is bool(files)
    assert result.document.get("items_total", total) == total


def test_a_shard_writes_parts_whatever_its_size_with_global_indexes(tmp_path: Path) -> None:
    result = write(tmp_path, (item(index) for index in range(40, 44)), parts=True)

    assert result.document["items_parts"] == [{"name": "items-00000.jsonl", "start": 40, "count": 4}]
    assert result.document["items_truncated"] is False
    assert list(result.items(1, 3)) == [item(41), item(42)]


def test_an_empty_shard_has_an_empty_result(tmp_path: Path) -> None:
    result = write(tmp_path, iter(()), parts=True)

    assert (len(result), list(result.items()), result.document["items_parts"]) == (0, [], [])


def test_a_reader_opens_only_the_parts_it_needs(tmp_path: Path) -> None:
    write(tmp_path, (item(index) for index in range(3 * PART_ITEMS)))
    opened: list[str] = []

    def open_file(name: str) -> BinaryIO:
        opened.append(name)
        return (tmp_path / name).open("rb")

    rows = list(ItemReader(open_file).items(PART_ITEMS + 5, PART_ITEMS + 7))

    assert [row["index"] for row in rows] == [PART_ITEMS + 5, PART_ITEMS + 6]
    assert opened == ["responses.json", "items-00001.jsonl"]


def test_items_out_of_order_are_refused(tmp_path: Path) -> None:
    writer = ItemWriter(tmp_path)
    writer.write(item(7))
    with pytest.raises(ValueError, match="item 9 written where item 8 is due"):
        writer.write(item(9))


def test_what_json_cannot_say_does_not_lose_the_row(tmp_path: Path) -> None:
    row = item(0, logprobs=[-0.5, -math.inf, math.nan], output="cut \ud83d here\u2028and \U0001f600")
    result = write(tmp_path, iter([row]), parts=True)

    (read,) = result.items()
    assert read["logprobs"] == [-0.5, None, None]
    assert read["output"] == "cut \ufffd here\u2028and \U0001f600"


def test_a_part_shorter_than_promised_is_an_error(tmp_path: Path) -> None:
    result = write(tmp_path, (item(index) for index in range(5)), parts=True)
    part = tmp_path / "items-00000.jsonl"
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:3]))

    with pytest.raises(InputError, match="ends 2 lines early"):
        list(result.items())


def test_a_result_without_items_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "responses.json").write_text('{"ok": true, "final_model_url": "x"}')

    with pytest.raises(InputError, match=r"no items to read \(its fields: final_model_url, ok"):
        len(reader(tmp_path))


def test_failed_items_are_counted_inline_and_in_parts(tmp_path: Path) -> None:
    rows = [item(0), {"index": 1, "input": "q", "ok": False, "error": "too long"}]

    assert write(tmp_path / "few", iter(rows)).failed == 1
    assert write(tmp_path / "parts", iter(rows), parts=True).failed == 1


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., list[ItemReader]]:
    def make(*sizes: int, **extra: Any) -> list[ItemReader]:
        readers, start = [], 0
        for number, size in enumerate(sizes):
            rows = (item(index) for index in range(start, start + size))
            readers.append(write(tmp_path / f"shard{number}", rows, parts=True, **extra))
            start += size
        return readers

    return make


@pytest.mark.parametrize("sizes", [(3, 0, 2), (1,), (0,), (9_990, 9), (9_990, 10), (25_000, 1, 12_345)])
def test_merged_shards_equal_the_unsharded_result(
    tmp_path: Path, shards: Callable[..., list[ItemReader]], sizes: tuple[int, ...]
) -> None:
    merged, whole = tmp_path / "merged", tmp_path / "whole"
    merged.mkdir()
    document = merge_shards(iter(shards(*sizes)), merged)
    (merged / "responses.json").write_text(json.dumps(document))
    write(whole, (item(index) for index in range(sum(sizes))))

    assert {**document, "usage": None} == {**reader(whole).document, "usage": None}
    for path in whole.glob("items-*"):
        assert (merged / path.name).read_bytes() == path.read_bytes()


def test_usage_adds_up_and_latency_is_the_longest(tmp_path: Path, shards: Callable[..., list[ItemReader]]) -> None:
    document = merge_shards(shards(2, 2, 2), tmp_path)

    assert document["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 6,
        "total_tokens": 9,
        "latency_sec": 0.5,
        "num_requests": 3,
    }


def test_fields_that_all_shards_agree_on_are_kept(tmp_path: Path) -> None:
    first = write(tmp_path / "a", iter([item(0)]), executor="transformers", device="cpu")
    second = write(tmp_path / "b", iter([item(1)]), ok=False, executor="transformers", device="cuda")

    document = merge_shards([first, second], tmp_path)

    assert document["ok"] is False
    assert document["executor"] == "transformers"
    assert "device" not in document


def test_a_shard_with_indexes_of_its_own_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a", iter([item(0), item(1)]), parts=True)
    second = write(tmp_path / "b", iter([item(0), item(1)]), parts=True)

    with pytest.raises(ExecutionError, match="shard 1 begins with item 0, expected 2"):
        merge_shards([first, second], tmp_path)
