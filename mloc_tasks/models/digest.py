"""SHA-256 of large files, remembered by path, size and modification time so that each is read once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


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
    record.parent.mkdir(parents=True, exist_ok=True)
    written = record.with_suffix(f".{os.getpid()}.tmp")
    written.write_text(json.dumps({"identity": identity, "sha256": digest}), encoding="utf-8")
    os.replace(written, record)
    return digest
