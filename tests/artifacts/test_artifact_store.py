"""What every store does, whatever keeps the files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mloc_tasks.artifacts import ArtifactInfo, ArtifactStore, open_url
from mloc_tasks.errors import ArtifactExistsError, ArtifactNotFoundError, StoreError

BAD_NAMES = [
    "",
    "/abs",
    "a/../b",
    "..",
    "a/./b",
    ".",
    "a//b",
    "a/",
    "a\\b",
    "a\0b",
    "a\nb",
    ".mloc-x/a",
    "\ud800",
    "x" * 256,
]


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def names(store: ArtifactStore, prefix: str = "") -> list[str]:
    return sorted(info.name for info in store.list(prefix))


def test_a_directory_comes_back_as_it_was_put(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    before = content(source)
    put = store.put_dir(source, "run/stage/0/1")
    got = store.get_dir("run/stage/0/1", tmp_path / "target")
    assert content(tmp_path / "target") == before == content(source)
    assert put == got == store.manifest("run/stage/0/1")


def test_a_large_file_travels_in_parts(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    (source / "model" / "weights.bin").write_bytes(os.urandom(1 << 20) * 34)
    store.put_dir(source, "p")
    store.get_dir("p", tmp_path / "target")
    assert content(tmp_path / "target") == content(source)
    copy = store.copy("p/model/weights.bin", "w.bin")
    assert hashlib.sha256(store.read_bytes("w.bin")).hexdigest() == copy.sha256


def test_a_manifest_has_sizes_and_digests_in_order_of_names(store: ArtifactStore, source: Path) -> None:
    manifest = store.put_dir(source, "p")
    assert [info.name for info in manifest.files] == sorted(content(source))
    assert {info.name: (info.size, info.sha256) for info in manifest.files} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in content(source).items()
    }


@pytest.mark.parametrize("odd", ["none", "link"])
def test_moving_takes_the_source_away(store: ArtifactStore, source: Path, odd: str) -> None:
    if odd == "link":
        (source / "latest.txt").symlink_to(source / "empty.txt")
    store.put_dir(source, "p", move=True)
    assert not source.exists()
    assert store.read_bytes("p/responses.json") == b'{"ok": true}'


def test_scratch_directories_are_hidden_until_moved_in(store: ArtifactStore) -> None:
    scratch = store.scratch("p")
    (scratch / "a").write_bytes(b"1")
    assert names(store) == []
    store.put_dir(scratch, "p/1", move=True)
    assert names(store) == ["p/1/a"]


def test_scratch_directories_that_were_left_are_swept_by_owner(store: ArtifactStore) -> None:
    left, other = store.scratch("p"), store.scratch("q")
    (left / "a").write_bytes(b"1")
    store.put_bytes(b"", "p/whole")
    store.sweep("p")
    assert (left.exists(), other.exists()) == (False, True)
    assert names(store) == ["p/whole"]
    store.sweep("q")


def test_only_some_files_can_be_fetched(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    store.put_dir(source, "p")
    manifest = store.get_dir("p", tmp_path / "target", names=["responses.json"])
    assert list(content(tmp_path / "target")) == ["responses.json"] == [info.name for info in manifest.files]
    with pytest.raises(ArtifactNotFoundError, match="nothing-like-it"):
        store.get_dir("p", tmp_path / "other", names=["nothing-like-it"])


def test_fetching_into_a_directory_keeps_what_is_there(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    store.put_dir(source, "p")
    target = tmp_path / "target"
    (target / "model").mkdir(parents=True)
    (target / "model" / "mine").write_bytes(b"mine")
    (target / "responses.json").write_bytes(b"old")
    store.get_dir("p", target)
    assert content(target) == content(source) | {"model/mine": b"mine"}


def test_fetching_never_writes_through_a_link_in_the_target(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    store.put_dir(source, "p")
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "model").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="in the way"):
        store.get_dir("p", tmp_path / "target")
    assert content(tmp_path / "outside") == {}
    assert os.listdir(tmp_path / "target") == ["model"]


def test_an_object_is_replaced_as_a_whole(store: ArtifactStore) -> None:
    store.put_bytes(b"a longer first value", "run/responses.json")
    info = store.put_bytes(b"second", "run/responses.json")
    assert store.read_bytes("run/responses.json") == b"second"
    assert info == ArtifactInfo("run/responses.json", 6, hashlib.sha256(b"second").hexdigest())
    assert names(store) == ["run/responses.json"]


def test_a_file_becomes_an_object(store: ArtifactStore, source: Path) -> None:
    info = store.put_file(source / "model" / "weights.bin", "m/w.bin")
    data = (source / "model" / "weights.bin").read_bytes()
    assert store.read_bytes("m/w.bin") == data
    assert (info.size, info.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_file_that_cannot_be_read_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent"):
        store.put_file(tmp_path / "absent", "x")
    with pytest.raises(StoreError, match="absent"):
        store.put_dir(tmp_path / "absent", "x")
    assert names(store) == []


def test_opened_files_stream_seek_and_iterate(store: ArtifactStore) -> None:
    data = b"".join(b"line %d\n" % i for i in range(400_000))
    store.put_bytes(data, "items.jsonl")
    with store.open("items.jsonl") as stream:
        assert next(iter(stream)) == b"line 0\n"
        stream.seek(-7, os.SEEK_END)
        assert stream.read() == data[-7:]
        stream.seek(3_000_000)
        assert stream.read(100) == data[3_000_000:3_000_100]
        stream.seek(0)
        assert sum(1 for _ in stream) == 400_000


def test_what_is_not_there_is_not_found(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    store.put_dir(source, "p")
    for name in ("q", "p", "p/absent", "p/responses.json/x", "p/model"):
        with pytest.raises(ArtifactNotFoundError):
            store.open(name)
    with pytest.raises(ArtifactNotFoundError):
        store.copy("p/absent", "x")
    for prefix in ("q", "p/model", "p/responses.json"):
        assert store.manifest(prefix) is None
        with pytest.raises(ArtifactNotFoundError):
            store.get_dir(prefix, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_root_are_refused(store: ArtifactStore, source: Path, tmp_path: Path, name: str) -> None:
    store.put_bytes(b"1", "ok")
    attempts: list[Callable[[], object]] = [
        lambda: store.put_dir(source, name),
        lambda: store.put_bytes(b"", name),
        lambda: store.put_file(source / "empty.txt", name),
        lambda: store.get_dir(name, tmp_path / "target"),
        lambda: store.open(name),
        lambda: store.manifest(name),
        lambda: store.copy("ok", name),
        lambda: store.copy(name, "ok"),
        lambda: store.delete(name),
        lambda: store.url_of(name),
    ]
    if name:
        attempts.append(lambda: list(store.list(name)))
    for attempt in attempts:
        with pytest.raises(StoreError, match=r"artifact.* name"):
            attempt()
    assert names(store) == ["ok"]


def test_only_the_store_writes_manifests(store: ArtifactStore, source: Path) -> None:
    (source / "manifest.json").write_text("{}")
    for attempt in (
        lambda: store.put_bytes(b"{}", "p/manifest.json"),
        lambda: store.copy("p/a", "p/manifest.json"),
        lambda: store.put_dir(source, "p"),
        lambda: store.put_dir(source, "p", move=True),
    ):
        with pytest.raises(StoreError, match=r"manifest\.json"):
            attempt()
    assert (source / "manifest.json").read_text() == "{}"


def test_a_nested_file_named_like_a_manifest_is_an_ordinary_one(
    store: ArtifactStore, source: Path, tmp_path: Path
) -> None:
    (source / "model" / "manifest.json").write_text("{}")
    store.put_dir(source, "p")
    assert store.manifest("p/model") is None
    store.get_dir("p", tmp_path / "target")
    assert content(tmp_path / "target") == content(source)


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("kind", ["outside", "absolute", "broken", "directory", "pipe", "bad name", "loop"])
def test_a_source_with_anything_but_files_inside_it_is_refused(
    store: ArtifactStore, source: Path, tmp_path: Path, kind: str, move: bool
) -> None:
    (tmp_path / "secret").write_text("secret")
    match kind:
        case "outside":
            (source / "bad").symlink_to("../secret")
        case "absolute":
            (source / "bad").symlink_to("/etc/passwd")
        case "broken":
            (source / "bad").symlink_to("nowhere")
        case "directory":
            (source / "bad").symlink_to("model")
        case "loop":
            (source / "bad").symlink_to("bad")
        case "pipe":
            os.mkfifo(source / "bad")
        case "bad name":
            (source / "bad\\name").write_text("")
    with pytest.raises(StoreError, match="bad"):
        store.put_dir(source, "p", move=move)
    assert names(store) == []
    assert store.manifest("p") is None
    assert (source / "responses.json").exists()


def test_a_link_to_a_file_inside_is_stored_as_that_file(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    (source / "again.json").symlink_to("responses.json")
    store.put_dir(source, "p")
    store.get_dir("p", tmp_path / "target")
    assert (tmp_path / "target" / "again.json").read_bytes() == b'{"ok": true}'
    assert not (tmp_path / "target" / "again.json").is_symlink()


def test_a_directory_is_written_once(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    store.put_dir(source, "p")
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_bytes(b"x")
    for move in (False, True):
        with pytest.raises(ArtifactExistsError, match="already"):
            store.put_dir(other, "p", move=move)
    assert content(other) == {"x": b"x"}
    assert store.read_bytes("p/responses.json") == b'{"ok": true}'
    store.delete("p")
    store.put_dir(other, "p")
    assert names(store) == ["p/x"]


@pytest.mark.parametrize("move", [False, True])
def test_of_concurrent_writers_one_wins_and_nothing_mixes(
    make_store: Callable[[], ArtifactStore], tmp_path: Path, move: bool
) -> None:
    writers = 6
    start = threading.Barrier(writers)

    def write(writer: int) -> bool:
        directory = tmp_path / f"writer-{writer}"
        directory.mkdir()
        for i in range(5):
            (directory / f"{i}").write_text(f"{writer}")
        (directory / f"only-{writer}").write_text("")
        store = make_store()
        start.wait()
        try:
            store.put_dir(directory, "p", move=move)
        except ArtifactExistsError:
            return False
        return True

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(write, range(writers)))
    assert won.count(True) == 1
    winner = won.index(True)
    store = make_store()
    assert names(store) == [*(f"p/{i}" for i in range(5)), f"p/only-{winner}"]
    assert {store.read_bytes(f"p/{i}") for i in range(5)} == {str(winner).encode()}
    store.get_dir("p", tmp_path / "target")


def test_a_damaged_file_is_noticed_and_nothing_is_delivered(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    store.put_dir(source, "p")
    store.put_bytes(b'{"ok": nope}', "p/responses.json")
    with pytest.raises(StoreError, match=r"responses\.json is not what its manifest says"):
        store.get_dir("p", tmp_path / "target")
    assert sorted(os.listdir(tmp_path)) == sorted({"output", "root"} & set(os.listdir(tmp_path)))


def test_a_file_missing_from_a_directory_is_noticed(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    store.put_dir(source, "p")
    store.delete("p/responses.json")
    with pytest.raises(StoreError):
        store.get_dir("p", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_listing_follows_segments_not_characters(store: ArtifactStore) -> None:
    for name in ("run1/a", "run1/b/c", "run10/a", "run1-x"):
        store.put_bytes(name.encode(), name)
    assert names(store, "run1") == ["run1/a", "run1/b/c"]
    assert names(store, "run1/b/c") == ["run1/b/c"]
    assert names(store, "absent") == []
    assert [info.size for info in store.list("run10")] == [7]


def test_deleting_takes_all_below_and_nothing_beside(store: ArtifactStore, source: Path) -> None:
    store.put_dir(source, "run1/s/0/1")
    store.put_bytes(b"1", "run1/responses.json")
    store.put_bytes(b"1", "run10")
    store.delete("run1")
    store.delete("run1")
    store.delete("never/there")
    assert names(store) == ["run10"]
    assert store.manifest("run1/s/0/1") is None
    store.delete("run10")
    assert names(store) == []


def test_a_copy_stands_on_its_own(store: ArtifactStore, source: Path) -> None:
    manifest = store.put_dir(source, "run/s/0/1")
    info = store.copy("run/s/0/1/responses.json", "run/responses.json")
    assert info.sha256 == manifest.only(["responses.json"]).files[0].sha256
    store.delete("run/s")
    assert store.read_bytes("run/responses.json") == b'{"ok": true}'
    again = store.copy("run/responses.json", "again")
    assert again == ArtifactInfo("again", info.size, info.sha256)


def test_urls_open_what_was_put(store: ArtifactStore, source: Path) -> None:
    store.put_dir(source, "p")
    for info in store.list("p"):
        with open_url(store.url_of(info.name)) as stream:
            assert len(stream.read()) == info.size


def test_many_small_files_travel(store: ArtifactStore, tmp_path: Path) -> None:
    directory = tmp_path / "many"
    directory.mkdir()
    for i in range(150):
        (directory / f"items-{i:05}.jsonl").write_text(f"{i}\n")
    store.put_dir(directory, "p")
    store.get_dir("p", tmp_path / "target")
    assert content(tmp_path / "target") == content(directory)


def test_an_empty_directory_is_a_complete_one(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store.put_dir(tmp_path / "empty", "p")
    assert store.get_dir("p", tmp_path / "target").files == ()
    assert (tmp_path / "target").is_dir()


def test_stores_work_after_a_fork(make_store: Callable[[], ArtifactStore]) -> None:
    store = make_store()
    store.put_bytes(b"parent", "a")
    script = (
        "import os, sys\n"
        "from mloc_tasks.artifacts import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "assert store.read_bytes('a') == b'parent'\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    store.put_bytes(b'child', 'b'); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert store.read_bytes('b') == b'child'\n"
    )
    subprocess.run([sys.executable, "-c", script, store.url], check=True, timeout=60)
