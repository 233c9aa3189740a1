"""Digests of large files are computed once for each state of the file."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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


def test_threads_that_read_one_file_at_once_all_get_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "model", tmp_path / "cache"
    path.write_bytes(b"one")
    both_have_written, replace = threading.Barrier(2, timeout=30), os.replace

    def replace_late(source: str | Path, target: str | Path) -> None:
        both_have_written.wait()
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_late)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: file_digest(path, cache_dir=cache), range(2)))
    assert found == [hashlib.sha256(b"one").hexdigest()] * 2
    assert len(list((cache / "digests").iterdir())) == 1
