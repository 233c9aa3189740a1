"""The download cache: once for all processes, complete or not there, bounded, and never under a user's feet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from file_server import FileServer
from model_directories import Lines, filled, names_below

from mloc_tasks.artifacts import open_store, pack
from mloc_tasks.errors import ModelUnavailableError
from mloc_tasks.models.downloads import Downloads, address_of
from mloc_tasks.models.fetch_progress import fetch_progress
from mloc_tasks.models.materialise import materialise

KIB = 1 << 10
# Materialises the model at `argv[1]`; each line of its log goes to standard output, then "using PATH", and with that
# the process holds it until its input ends.
USER = """
import sys
from pathlib import Path
from mloc_tasks.models.materialise import materialise

document = {"model": {"source": {"identifier": sys.argv[1]}}}
with materialise(document, cache_dir=Path(sys.argv[2]), log=lambda line: print(line, flush=True)) as found:
    print("using", found["model"]["source"]["identifier"], flush=True)
    sys.stdin.read()
"""


class User:
    """Another process that uses a model."""

    def __init__(self, address: str, cache: Path) -> None:
        command = [sys.executable, "-c", USER, address, str(cache)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def says(self, beginning: str) -> str:
        """The rest of the next line of its log that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
        raise AssertionError(f"it ended without {beginning!r}")

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def archive_with(server: FileServer, tmp_path: Path, name: str, *, text: str = "{}", size: int = 0) -> str:
    """The address of an archive with a config.json and weights of `size` bytes."""
    directory = filled(tmp_path / f"packed-{name}", {"config.json": text, "weights": "w" * size})
    server.files[f"/{name}.tar"] = pack(directory, tmp_path / f"{name}.tar").read_bytes()
    return f"{server.url}/{name}.tar"


def fetched(address: str, cache: Path, log: Lines, *, max_bytes: int = 1 << 30) -> Path:
    document = {"model": {"source": {"identifier": address}}}
    with materialise(document, cache_dir=cache, log=log, max_bytes=max_bytes) as found:
        return Path(found["model"]["source"]["identifier"])


def entries(cache: Path) -> set[str]:
    return {path.name for path in (cache / "downloads").iterdir() if path.is_dir()}


def entry_of(path: Path, cache: Path) -> str:
    return path.relative_to(cache / "downloads").parts[0]


def test_same_content_is_fetched_once_and_changed_content_anew(
    server: FileServer, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    url = archive_with(server, tmp_path, "model", text="one")
    first = fetched(url, cache, lines)
    assert fetched(url, cache, lines) == first
    assert lines.fetches == 1
    archive_with(server, tmp_path, "model", text="two")
    assert (fetched(url, cache, lines) / "config.json").read_text() == "two"
    assert (first / "config.json").read_text() == "one", "whoever uses it still has it"


def test_changed_object_prefix_and_local_archive_are_fetched_anew(
    bucket: str, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    store = open_store(bucket)
    local = tmp_path / "model.tar"
    for number, text in enumerate(("one", "two")):
        archive = pack(filled(tmp_path / "directory", {"config.json": text}), tmp_path / "new.tar")
        store.put_file(archive, "model.tar")
        store.put_file(tmp_path / "directory" / "config.json", "models/tiny/config.json")
        os.replace(archive, local)
        os.utime(local, ns=(number, number))
        for address in (f"{bucket}/model.tar", f"{bucket}/models/tiny", str(local)):
            for _ in range(2):
                assert (fetched(address, cache, lines) / "config.json").read_text() == text
    assert lines.fetches == 6


def test_second_process_waits_for_the_first_and_fetches_nothing(
    server: FileServer, tmp_path: Path, cache: Path
) -> None:
    url = archive_with(server, tmp_path, "model", size=4096 * KIB)
    server.gate.clear()
    first = User(url, cache)
    first.says("fetching")
    second = User(url, cache)
    second.says("waiting for another process")
    assert entries(cache) == {name for name in entries(cache) if name.startswith(".")}
    server.gate.set()
    assert first.says("using") == second.says("using")
    first.end()
    second.end()


def test_process_killed_in_the_middle_leaves_nothing_that_counts(
    server: FileServer, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    url = archive_with(server, tmp_path, "model", size=4096 * KIB)
    other = archive_with(server, tmp_path, "other")
    server.gate.clear()
    killed = User(url, cache)
    killed.says("fetching")
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    (left_over,) = entries(cache)
    assert left_over.startswith(".")
    server.gate.set()
    fetched(other, cache, lines)
    assert left_over not in entries(cache), "the next fetch, of whatever, cleans up"
    assert (fetched(url, cache, lines) / "weights").stat().st_size == 4096 * KIB


def test_threads_fetch_once(server: FileServer, tmp_path: Path, cache: Path, lines: Lines) -> None:
    url = archive_with(server, tmp_path, "model")
    threads = [threading.Thread(target=fetched, args=(url, cache, lines)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines.fetches == 1


def test_change_during_the_fetch_is_noticed_and_may_be_tried_again(
    server: FileServer, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    url = archive_with(server, tmp_path, "model", text="one")

    def log(line: str) -> None:
        lines(line)
        if lines.fetches == 1:
            archive_with(server, tmp_path, "model", text="two!")

    document = {"model": {"source": {"type": "http", "identifier": url}}}
    changed = pytest.raises(ModelUnavailableError, match="was changed while it was being fetched")
    with changed, materialise(document, cache_dir=cache, log=log):
        pass
    assert entries(cache) == set()
    assert (fetched(url, cache, lines) / "config.json").read_text() == "two!"


def test_least_recently_used_go_first_when_the_cache_is_full(
    server: FileServer, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    urls = [archive_with(server, tmp_path, f"model-{i}", size=100 * KIB) for i in range(4)]
    first, second, third = (fetched(url, cache, lines, max_bytes=350 * KIB) for url in urls[:3])
    fetched(urls[0], cache, lines, max_bytes=350 * KIB)
    fourth = fetched(urls[3], cache, lines, max_bytes=350 * KIB)
    assert entries(cache) == {entry_of(path, cache) for path in (first, third, fourth)}
    assert not second.exists()
    locks = [path for path in (cache / "downloads").iterdir() if path.is_file()]
    assert len(locks) == 3, "that of a removed entry is gone, too"


def test_what_is_in_use_stays_however_small_the_bound(
    server: FileServer, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    urls = [archive_with(server, tmp_path, f"model-{i}", size=100 * KIB) for i in range(3)]
    elsewhere = User(urls[0], cache)
    used = Path(elsewhere.says("using"))
    document = {"model": {"source": {"identifier": urls[1]}}}
    with materialise(document, cache_dir=cache, log=lines, max_bytes=1) as found:
        newest = fetched(urls[2], cache, lines, max_bytes=1)
        assert used.exists()
        assert Path(found["model"]["source"]["identifier"]).exists()
        assert newest.exists()
    elsewhere.end()
    Downloads(cache, max_bytes=1, log=lines).trim()
    assert names_below(cache) == []


def test_several_parts_of_a_document_are_held_together(
    server: FileServer, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    url = archive_with(server, tmp_path, "model", size=100 * KIB)
    adapter = filled(tmp_path / "adapter", {"adapter_config.json": "{}", "weights": "w" * 100 * KIB})
    document = {
        "model": {
            "source": {"identifier": url},
            "adapters": [{"name": "mine", "path": str(pack(adapter, tmp_path / "adapter.tar"))}],
        },
        "checkpoint": {"load": {"url": url}},
    }
    with ExitStack() as held:
        found = held.enter_context(materialise(document, cache_dir=cache, log=lines, max_bytes=1))
        paths = [found["model"]["source"]["identifier"], found["model"]["adapters"][0]["path"]]
        assert all(Path(path).is_dir() for path in paths)
        assert found["checkpoint"]["load"]["path"] == paths[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_is_named_before_and_while_it_fills(
    small_disk: Path, server: FileServer, tmp_path: Path, lines: Lines
) -> None:
    large = archive_with(server, tmp_path, "large", size=3072 * KIB)
    small = archive_with(server, tmp_path, "small", size=1024 * KIB)
    with pytest.raises(ModelUnavailableError, match=r"needs 3\.0 MiB, and the disk that holds .* has 2\.0 MiB free"):
        fetched(large, small_disk, lines)
    assert lines.fetches == 0
    for url in (large, small):  # of which the second arrives, but does not fit unpacked as well
        server.sizes_known = url == small
        with pytest.raises(ModelUnavailableError, match="no space left") as caught:
            fetched(url, small_disk, lines)
        assert "MLOC_CACHE_DIR" in caught.value.hint
    assert entries(small_disk) == set()


def test_room_is_made_on_a_disk_smaller_than_the_bound(
    small_disk: Path, server: FileServer, tmp_path: Path, lines: Lines
) -> None:
    first, second = (archive_with(server, tmp_path, f"model-{i}", size=800 * KIB) for i in range(2))
    old = fetched(first, small_disk, lines)
    with pytest.raises(ModelUnavailableError, match="no space left"):
        fetched(second, small_disk, lines)
    assert not old.exists(), "what nobody uses makes room for the next attempt"
    assert fetched(second, small_disk, lines).exists()


def test_damaged_entry_is_made_anew(server: FileServer, tmp_path: Path, cache: Path, lines: Lines) -> None:
    url = archive_with(server, tmp_path, "model")
    path = fetched(url, cache, lines)
    (cache / "downloads" / entry_of(path, cache) / "entry.json").write_text("{")
    (path / "config.json").unlink()
    assert fetched(url, cache, lines) == path
    assert (path / "config.json").exists()


def test_fetched_path_is_known_by_the_address_it_came_from(
    server: FileServer, tmp_path: Path, cache: Path, lines: Lines
) -> None:
    url = archive_with(server, tmp_path, "model")
    assert address_of(fetched(f"{url}?signature=secret", cache, lines)) == url
    assert address_of(tmp_path) == str(tmp_path)


def test_progress_is_told_while_content_arrives(tmp_path: Path) -> None:
    told = threading.Event()
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        told.set()

    (tmp_path / "part").write_bytes(os.urandom(64 * KIB))
    with fetch_progress(tmp_path, "s3://bucket/model", total=128 * KIB, log=log, interval=0.01):
        assert told.wait(10)
    assert lines[0].startswith("fetching s3://bucket/model: 64.0 KiB of 128.0 KiB (50%), ")
