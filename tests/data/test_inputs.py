"""The inputs that a stage's spec asks for, from the typed spec to rows."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.data.inputs import Inputs, open_inputs
from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.slices import plan_slices
from mloc_tasks.errors import InputError
from mloc_tasks.spec import StageSpec

UPSTREAM = {
    "ask": [{"index": 0, "input": "topic", "output": "why?"}, {"index": 1, "input": "other", "output": "how?"}],
    "draft": [{"index": 0, "output": "because"}, {"index": 1, "output": "so"}],
}


def upstream(stage: str) -> ItemReader:
    document = json.dumps({"ok": True, "items": UPSTREAM[stage]}).encode()
    return ItemReader(lambda _: io.BytesIO(document), origin=f"stage {stage!r}")


def open_document(**document: Any) -> Inputs:
    return open_inputs(StageSpec.model_validate({"task_type": "inference", **document}), upstream=upstream)


def rows(**document: Any) -> list[object]:
    inputs = open_document(**document)
    return list(inputs.slice(0, inputs.count()))


CHAT = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "document",
    [
        {"inference": {"prompts": ["a", CHAT, "c"]}},
        {"data": {"prompts": ["a", CHAT, "c"]}},
        {"data": {"type": "list", "items": ["a", CHAT, "c"]}},
    ],
)
def test_inline_items_in_all_their_spellings(document: dict[str, Any]) -> None:
    assert rows(**document) == ["a", CHAT, "c"]


def test_no_inline_items_are_an_empty_input() -> None:
    inputs = open_document(data={"prompts": []})

    assert inputs.count() == 0
    assert list(inputs.slice(0, 0)) == []


def test_shuffle_seed_and_max_samples_apply_to_inline_items() -> None:
    prompts = [str(number) for number in range(50)]
    data = {"type": "list", "items": prompts, "shuffle": True, "seed": 3, "max_samples": 5}

    picked = rows(data=data)

    assert len(picked) == 5
    assert picked == rows(data=data) != rows(data={**data, "seed": 4})
    assert set(map(str, picked)) < set(prompts)
    assert rows(data={"type": "list", "items": prompts, "max_samples": 2}) == ["0", "1"]


def test_upstream_items_and_another_of_their_fields() -> None:
    assert rows(data={"type": "stage", "stage": "ask"}) == ["why?", "how?"]
    assert rows(data={"type": "stage", "stage": "ask", "column": "input"}) == ["topic", "other"]


def test_a_graph_template_joins_upstream_stages() -> None:
    columns = [{"label": "Q", "node": "ask"}, {"label": "A", "node": "draft", "path": "items[*].output"}]

    assert rows(data={"type": "graph_template", "template": {"name": "judge", "columns": columns}}) == [
        "Q:\nwhy?\n\nA:\nbecause",
        "Q:\nhow?\n\nA:\nso",
    ]


def test_a_file_is_sharded_as_a_scatter_and_its_shards_do(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"id": {number}, "q": "question {number}"}}\n' for number in range(10_000)))
    document = {
        "data": {"type": "file", "path": str(path), "column": "q"},
        "parallel": {"enabled": True, "max_shards": 7},
        "resources": {"replicas": 2},
    }
    spec = StageSpec.model_validate({"task_type": "inference", **document})
    inputs = open_inputs(spec, upstream=upstream)
    slices = plan_slices(inputs.count(), parallel=spec.parallel, replicas=spec.resources.replicas)
    offsets = inputs.offsets([start for start, _ in slices])

    shards = [
        open_document(**document).slice(start, stop, offset)
        for (start, stop), offset in zip(slices, offsets, strict=True)
    ]

    assert len(shards) == 7
    assert None not in offsets
    assert [row for shard in shards for row in shard] == [f"question {number}" for number in range(10_000)]
    assert [shard.start for shard in shards] == [start for start, _ in slices]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_is_read_over_http(tmp_path: Path, site: str) -> None:
    (tmp_path / "rows.csv").write_text('prompt\n"two\nlines"\nother\n')

    assert rows(data={"type": "file", "url": f"{site}/rows.csv"}) == ["two\nlines", "other"]
    with pytest.raises(InputError, match=r"missing\.csv: no such file"):
        rows(data={"type": "file", "url": f"{site}/missing.csv"})


def test_a_stage_without_inputs_says_what_to_give() -> None:
    with pytest.raises(InputError, match="no inputs") as caught:
        open_document()
    assert "inference.prompts" in caught.value.hint


def test_preferences_are_no_inputs() -> None:
    with pytest.raises(InputError, match="data of type preferences"):
        open_document(data={"preferences": [{"prompt": "p", "chosen": "c", "rejected": "r"}]})
