"""Digests of large files are computed once for each state of the file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mloc_tasks.models.digest import file_digest


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "model", tmp_path / "cache"
    path.write_bytes(b"one")
    stat = path.stat()
    assert file_digest(path, cache_dir=cache) == hashlib.sha256(b"one").hexdigest()

    path.write_bytes(b"two")  # same size; with the old time it looks unchanged, so it must not be read
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_digest(path, cache_dir=cache) == hashlib.sha256(b"one").hexdigest()

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file_digest(path, cache_dir=cache) == hashlib.sha256(b"two").hexdigest()


def test_record_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    path, cache = tmp_path / "model", tmp_path / "cache"
    path.write_bytes(b"one")
    file_digest(path, cache_dir=cache)
    (record,) = (cache / "digests").iterdir()
    record.write_text('{"identity": [')
    assert file_digest(path, cache_dir=cache) == hashlib.sha256(b"one").hexdigest()
