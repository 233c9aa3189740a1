"""Rows out of files: counted and sliced without loading them, errors that name file, line and next step."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mloc_tasks.data.files import FileRows
from mloc_tasks.data.format_json import MAX_JSON_BYTES
from mloc_tasks.data.inputs import Inputs
from mloc_tasks.data.rows import PromptReading
from mloc_tasks.data.selection import FirstRows, ShuffledRows
from mloc_tasks.errors import InputError

PROMPTS = [f"question {number}\n with, more ünïcode" for number in range(3_000)]


def rows(source: FileRows) -> list[object]:
    inputs = Inputs(source)
    return list(inputs.slice(0, inputs.count()))


def write_jsonl(path: Path, prompts: list[str]) -> None:
    path.write_text("".join(json.dumps({"id": n, "prompt": p}) + "\n" for n, p in enumerate(prompts)))


def write_json(path: Path, prompts: list[str]) -> None:
    path.write_text(json.dumps([{"id": n, "prompt": p} for n, p in enumerate(prompts)]))


def write_csv(path: Path, prompts: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt"])
        writer.writerows(enumerate(prompts))


def write_parquet(path: Path, prompts: list[str]) -> None:
    table = arrow.table({"id": list(range(len(prompts))), "prompt": arrow.array(prompts, arrow.string())})
    parquet.write_table(table, path, row_group_size=700)


WRITERS: dict[str, Callable[[Path, list[str]], None]] = {
    "jsonl": write_jsonl,
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("extension", WRITERS)
def test_slices_are_the_rows_with_and_without_offsets(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rows.{extension}"
    WRITERS[extension](path, PROMPTS)
    starts = [0, 1, 699, 700, 1023, 1024, 2500, 2999]

    counted = Inputs(FileRows(str(path)))
    assert counted.count() == len(PROMPTS)
    offsets = counted.offsets(starts)

    assert all((offset is not None) is (extension in ("jsonl", "csv")) for offset in offsets)
    for start, offset in zip(starts, offsets, strict=True):
        stop = min(start + 3, len(PROMPTS))
        fresh = Inputs(FileRows(str(path)))  # a shard's worker has counted nothing
        assert list(fresh.slice(start, stop)) == PROMPTS[start:stop]
        assert list(fresh.slice(start, stop, offset)) == PROMPTS[start:stop]


@pytest.mark.parametrize("extension", WRITERS)
def test_files_of_a_glob_follow_each_other_in_order(tmp_path: Path, extension: str) -> None:
    for number, (first, last) in enumerate([(0, 5), (5, 5), (5, 2_000), (2_000, 3_000)]):
        WRITERS[extension](tmp_path / f"part-{number}.{extension}", PROMPTS[first:last])
    pattern = str(tmp_path / f"part-*.{extension}")
    counted = Inputs(FileRows(pattern))
    starts = [0, 4, 5, 1_999, 2_000, 2_999]

    assert counted.count() == len(PROMPTS)
    for start, offset in zip(starts, counted.offsets(starts), strict=True):
        stop = min(start + 1_500, len(PROMPTS))
        assert list(Inputs(FileRows(pattern)).slice(start, stop)) == PROMPTS[start:stop]
        assert list(Inputs(FileRows(pattern)).slice(start, stop, offset)) == PROMPTS[start:stop]


@pytest.mark.parametrize("extension", WRITERS)
def test_a_file_without_rows_is_an_empty_input(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rows.{extension}"
    WRITERS[extension](path, [])

    assert rows(FileRows(str(path))) == []


field = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(prompts=st.lists(field, max_size=40), separator=st.sampled_from(["\n", "\r\n"]), bom=st.booleans())
def test_any_csv_reads_back_from_any_record(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], separator: str, bom: bool
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=separator, quoting=csv.QUOTE_ALL)  # else a lone \r stays bare
    writer.writerows([["n", "prompt"], *([str(n), prompt] for n, prompt in enumerate(prompts))])
    path.write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    inputs = Inputs(FileRows(str(path)))

    assert inputs.count() == len(prompts)
    for start, offset in enumerate(inputs.offsets(range(len(prompts)))):
        assert offset is not None
        assert list(inputs.slice(start, start + 1, offset)) == [prompts[start]]


def test_text_lines_are_prompts_and_blank_lines_are_not(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffone\r\n\n  \ntwo \u2028 half\nlast".encode())
    inputs = Inputs(FileRows(str(path)))

    assert rows(FileRows(str(path))) == ["one", "two \u2028 half", "last"]
    assert list(inputs.slice(2, 3, inputs.offsets([2])[0])) == ["last"]


def test_rows_may_be_chats_strings_and_numbers(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"messages": chat, "id": 1}, "plain", chat, {"text": 12, "id": 2}])))

    assert rows(FileRows(str(path))) == [chat, "plain", chat, "12"]


def test_a_parquet_column_of_chats_is_read(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    parquet.write_table(arrow.table({"messages": [chat, chat[:1]], "id": [1, 2]}), tmp_path / "chats.parquet")

    assert rows(FileRows(str(tmp_path / "chats.parquet"))) == [chat, chat[:1]]


def error_of(path: Path, content: str | bytes, *, column: str | None = None) -> InputError:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        rows(FileRows(str(path), reading=PromptReading(column)))
    return caught.value


@pytest.mark.parametrize(
    ("name", "content", "column", "message", "hint"),
    [
        ("a.jsonl", '{"prompt": "x"}\n\n{"prompt": }\n', None, "a.jsonl, line 3: not JSON", "each line"),
        ("a.jsonl", '[\n{"prompt": "x"}]', None, "a.jsonl, line 1: not JSON", "data.format: json"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": null}', None, "line 2, column 'prompt': a prompt is text", ""),
        ("a.jsonl", '{"qestion": "x"}', "question", "no column 'question'; the columns are 'qestion'", "qestion"),
        ("a.jsonl", '{"a": "x", "b": "y"}', None, "which column holds the prompt? The columns are 'a', 'b'", "column"),
        ("a.jsonl", '{"messages": [{"content": "x"}]}', None, "message 0 of the chat", "role"),
        ("a.jsonl", b'{"prompt": "\xff"}', None, "a.jsonl, line 1: not JSON", ""),
        ("a.json", '{"a": 1}\n{"a": 2}', None, "a.json: not JSON", "data.format: jsonl"),
        ("a.json", '{"prompt": "x"}', None, "holds one dict, not an array", ""),
        ("a.json", '["x", 5.5, {"prompt": true}]', None, "a.json, element 2, column 'prompt'", ""),
        ("a.csv", "id,prompt\n1,x\n2,y,z\n", None, "a.csv, line 3: 3 fields under 2 column names", "quote"),
        ("a.csv", 'id,prompt\n1,"x\n2,y\n', None, "a.csv, line 2: malformed CSV record", "quote"),
        ("a.csv", "id,prompt\n1,x\n", "promt", "no column 'promt'; the columns are 'id', 'prompt'", "prompt"),
        ("a.txt", b"fine\n\xff\n", None, "a.txt, line 2: not UTF-8", "UTF-8"),
        ("a.parquet", "nonsense", None, "not a parquet file", ""),
        ("a.dat", "x", None, "its name does not tell its format", "data.format"),
    ],
)
def test_a_bad_row_is_named_with_the_next_step(
    tmp_path: Path, name: str, content: str | bytes, column: str | None, message: str, hint: str
) -> None:
    error = error_of(tmp_path / name, content, column=column)

    assert message in str(error)
    assert hint in error.hint


def test_a_missing_column_is_found_when_counting(tmp_path: Path) -> None:
    for extension, write in WRITERS.items():
        path = tmp_path / f"rows.{extension}"
        write(path, PROMPTS[:3])
        with pytest.raises(InputError, match="no column 'q'"):
            Inputs(FileRows(str(path), reading=PromptReading("q"))).count()


def test_a_bad_line_is_numbered_right_when_the_slice_starts_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('"a"\n' * 1_500 + "\n" + "oops\n")
    inputs = Inputs(FileRows(str(path)))
    (offset,) = inputs.offsets([1_400])

    with pytest.raises(InputError, match="line 1502: not JSON"):
        list(inputs.slice(1_400, 1_501, offset))


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("questoins.jsonl", "no such file", "questions.jsonl"),
        ("*.csv", "no file matches", "working directory"),
        (".", "is a folder", "*.jsonl"),
        ("ftp://host/rows.jsonl", "ftp:// is not supported", "s3://"),
        ("s3://bucket/*.jsonl", "globs work for local files only", "one object"),
    ],
)
def test_an_address_that_means_no_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str, hint: str
) -> None:
    (tmp_path / "questions.jsonl").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError) as caught:
        FileRows(url)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_file_urls_and_names_with_glob_characters_are_paths(tmp_path: Path) -> None:
    path = tmp_path / "rows [1] ü.txt"
    path.write_text("one\n")

    assert rows(FileRows(path.as_uri())) == rows(FileRows(str(path))) == ["one"]


class Unseekable(io.BytesIO):
    """A server without range requests."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


@pytest.mark.parametrize("extension", WRITERS)
@pytest.mark.parametrize("stream", [io.BytesIO, Unseekable])
def test_remote_files_are_read_with_or_without_seeking(
    tmp_path: Path, extension: str, stream: Callable[[bytes], BinaryIO]
) -> None:
    WRITERS[extension](tmp_path / "rows", PROMPTS)
    content = (tmp_path / "rows").read_bytes()
    url = f"https://example.org/rows.{extension}?token=a.b"
    inputs = Inputs(FileRows(url, open_url=lambda _: stream(content)))

    assert inputs.count() == len(PROMPTS)
    (offset,) = inputs.offsets([1_500])
    assert (offset is not None) is (extension in ("jsonl", "csv") and stream is io.BytesIO)
    assert list(inputs.slice(1_500, 1_510, offset)) == PROMPTS[1_500:1_510]


def test_an_offset_spares_reading_what_comes_before(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", PROMPTS)
    content = (tmp_path / "rows.jsonl").read_bytes()
    read = 0

    class Counting(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            line = super().readline(size)
            read += len(line)
            return line

    inputs = Inputs(FileRows("s3://bucket/rows.jsonl", open_url=lambda _: Counting(content)))
    (offset,) = inputs.offsets([2_990])
    read = 0

    assert list(inputs.slice(2_990, 2_995, offset)) == PROMPTS[2_990:2_995]
    assert read < len(content) / 100


def test_a_large_json_array_is_refused_and_jsonl_suggested(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with path.open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)

    with pytest.raises(InputError, match="more than 32 MiB") as caught:
        FileRows(str(path)).count()
    assert "jsonl" in caught.value.hint


def test_counting_and_streaming_hold_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps({"prompt": "x" * 1_000}) + "\n" for _ in range(20_000))
    tracemalloc.start()
    try:
        inputs = Inputs(FileRows(str(path)))
        assert sum(1 for _ in inputs.slice(0, inputs.count())) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 1e6


def test_a_file_that_shrank_since_it_was_counted_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("one\ntwo\nthree\n")
    rows_slice = Inputs(FileRows(str(path))).slice(0, 3)
    path.write_text("one\n")

    with pytest.raises(InputError, match="the input ends after row 1, not 3"):
        list(rows_slice)


def test_shuffle_is_a_permutation_that_all_workers_agree_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, PROMPTS)

    def shuffled(seed: int) -> Inputs:
        return Inputs(ShuffledRows(FileRows(str(path)), seed))

    whole = list(shuffled(7).slice(0, len(PROMPTS)))
    assert whole != PROMPTS
    assert sorted(map(str, whole)) == sorted(PROMPTS)
    assert list(shuffled(7).slice(1_000, 1_010)) == whole[1_000:1_010]
    assert list(shuffled(8).slice(0, 10)) != whole[:10]


def test_max_samples_stops_counting_early(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", PROMPTS[:10])
    write_jsonl(tmp_path / "b.jsonl", PROMPTS[10:])
    (tmp_path / "c.jsonl").write_text("never looked at")
    inputs = Inputs(FirstRows(FileRows(str(tmp_path / "*.jsonl")), 15))

    assert inputs.count() == 15
    assert list(inputs.slice(8, 15)) == PROMPTS[8:15]
