"""Merging a million items takes neither memory nor long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mloc_tasks.data.items import ItemReader

SHARDS = 20
ROWS = 1_000_000

# In a process of its own, so that the peak is the merge's and not that of the tests before it.
MERGE = """
import json, resource, sys, time
from pathlib import Path
from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.merge import merge_shards

def reader(folder):
    return ItemReader(lambda name: (folder / name).open("rb"))

root = Path(sys.argv[1])
began = time.process_time()
document = merge_shards((reader(folder) for folder in sorted(root.glob("shard-*"))), root / "merged")
(root / "merged/responses.json").write_text(json.dumps(document))
# Linux carries ru_maxrss over from the forking process (a pytest with torch in it, say); VmHWM starts at exec.
status = Path("/proc/self/status")
if status.exists():
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": time.process_time() - began, "peak": peak}))
"""


def test_a_million_items_merge_under_100_mb_and_10_seconds(tmp_path: Path) -> None:
    size = ROWS // SHARDS
    for shard in range(SHARDS):
        write_shard(tmp_path / f"shard-{shard:02d}", shard * size, size)
    (tmp_path / "merged").mkdir()

    run = subprocess.run(
        [sys.executable, "-c", MERGE, str(tmp_path)], check=True, stdout=subprocess.PIPE, timeout=60, text=True
    )

    measured = json.loads(run.stdout)
    assert measured["peak"] < 100e6
    assert measured["seconds"] < 10
    merged = ItemReader(lambda name: (tmp_path / "merged" / name).open("rb"))
    assert len(merged) == ROWS
    assert len(merged.parts) == ROWS // 10_000
    assert merged.document["usage"] == {"num_requests": ROWS}
    for index in (0, 49_999, 50_000, 777_777, ROWS - 1):
        assert next(merged.items(index, index + 1))["index"] == index


def write_shard(folder: Path, start: int, size: int) -> None:
    """What `ItemWriter` writes, by hand: a million calls of it would take longer than what is measured."""
    folder.mkdir()
    parts: list[dict[str, object]] = []
    for first in range(start, start + size, 10_000):
        name = f"items-{len(parts):05d}.jsonl"
        with (folder / name).open("w") as file:
            file.writelines(
                f'{{"index":{index},"input":"question {index}","output":"answer","finish_reason":"stop"}}\n'
                for index in range(first, first + 10_000)
            )
        parts.append({"name": name, "start": first, "count": 10_000})
    document = {"ok": True, "model": "m", "items": [], "items_failed": 0, "items_truncated": True}
    document |= {"items_total": size, "items_parts": parts, "usage": {"num_requests": size}}
    (folder / "responses.json").write_text(json.dumps(document))
