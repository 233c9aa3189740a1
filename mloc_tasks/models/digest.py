"""SHA-256 of large files, remembered by path, size and modification time so that each is read once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mloc_tasks.artifacts.staging import new_file, write_all


def file_digest(path: Path, *, cache_dir: Path) -> str:
    """Hexadecimal SHA-256 of `path`. Reads the file only when its size or modification time changed since last time."""
    path = path.resolve()
    stat = path.stat()
    identity = [str(path), stat.st_size, stat.st_mtime_ns]
    record = cache_dir / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["identity"] == identity:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no record yet, or one that was cut off: it is made anew
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    # Under a name of its own: threads write it at the same time, and so do containers whose process ids are equal.
    with new_file(str(record)) as written:
        write_all(written, json.dumps({"identity": identity, "sha256": digest}).encode())
    return digest
