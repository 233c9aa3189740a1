"""Archives: what goes in comes out, and what should not come out does not."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mloc_tasks.artifacts import pack, unpack
from mloc_tasks.errors import StoreError

KINDS = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"]


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def tar_with(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def _shown(member: tarfile.TarInfo | tuple[str, bytes]) -> str:
    return f"{member.name}->{member.linkname}" if isinstance(member, tarfile.TarInfo) else member[0]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_with(path: Path, name: str, data: bytes = b"x", mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, data)
    return path


def assert_refused(archive: Path, tmp_path: Path, match: str) -> None:
    (tmp_path / "within").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match=match):
        unpack(archive, tmp_path / "within" / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert list((tmp_path / "within").iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_survives_the_round_trip(source: Path, tmp_path: Path, kind: str) -> None:
    if kind == ".tar.zst":
        pytest.importorskip("zstandard")
    (source / "model" / "manifest.json").write_text("{}")
    archive = pack(source, tmp_path / f"a{kind}")
    unpack(archive.rename(tmp_path / "name-without-suffix"), tmp_path / "target")
    assert content(tmp_path / "target") == content(source)
    assert sorted(os.listdir(tmp_path)) == ["name-without-suffix", "output", "target"]


def test_archives_of_the_tar_program_are_read(source: Path, tmp_path: Path) -> None:
    (source / "model" / "link.txt").symlink_to("../empty.txt")
    subprocess.run(["tar", "-czf", tmp_path / "a.tgz", "-C", source, "."], check=True)
    unpack(tmp_path / "a.tgz", tmp_path / "target")
    assert content(tmp_path / "target") == content(source)
    assert os.readlink(tmp_path / "target" / "model" / "link.txt") == "../empty.txt"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\evil", "a//b/../evil"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_escape_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "a"
    archive = tar_with(path, ("good", b"1"), (name, b"x")) if kind == "tar" else zip_with(path, name)
    assert_refused(archive, tmp_path, "artifact name")


@pytest.mark.parametrize(
    "members",
    [
        [special("l", tarfile.SYMTYPE, "../outside")],
        [special("l", tarfile.SYMTYPE, "/etc/passwd")],
        [special("d", tarfile.SYMTYPE, ".."), ("d/evil", b"x")],
        [special("d", tarfile.SYMTYPE, "."), ("d/evil", b"x")],
        [special("a", tarfile.SYMTYPE, "."), special("b", tarfile.SYMTYPE, "a/../x")],
        [special("b", tarfile.SYMTYPE, "a/../x"), special("a", tarfile.SYMTYPE, "."), ("x", b"")],
        [special("l", tarfile.SYMTYPE, "nowhere")],
        [special("l", tarfile.SYMTYPE, "l")],
        [special("h", tarfile.LNKTYPE, "/etc/passwd")],
        [special("h", tarfile.LNKTYPE, "../outside")],
        [special("h", tarfile.LNKTYPE, "absent")],
        [special("s", tarfile.SYMTYPE, "f"), special("h", tarfile.LNKTYPE, "s")],
        [special("dev", tarfile.CHRTYPE)],
        [special("dev", tarfile.BLKTYPE)],
        [special("pipe", tarfile.FIFOTYPE)],
        [("twice", b"1"), ("twice", b"2")],
    ],
    ids=lambda members: "+".join(_shown(member) for member in members),
)
def test_links_that_escape_and_special_files_are_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    (tmp_path / "outside").write_text("secret")
    assert_refused(tar_with(tmp_path / "a.tar", *members), tmp_path, "a.tar")


def test_a_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    assert_refused(zip_with(tmp_path / "a.zip", "l", b"/etc/passwd", mode=0o120777), tmp_path, "link")


@pytest.mark.parametrize("kind", [".tar.gz", ".tar.zst", ".zip"])
def test_what_expands_beyond_the_bound_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == ".tar.zst":
        pytest.importorskip("zstandard")
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "zeros").write_bytes(bytes(8 << 20))
    archive = pack(tmp_path / "big", tmp_path / f"bomb{kind}")
    assert archive.stat().st_size < 100_000
    with pytest.raises(StoreError, match="expands to more than 1000000 bytes"):
        unpack(archive, tmp_path / "target", max_bytes=1_000_000)
    assert not (tmp_path / "target").exists()


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = special("pax", tarfile.XHDTYPE)
    header.size = 64 << 20
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(header.tobuf() + bytes(header.size))
    assert_refused(tmp_path / "a.tar.gz", tmp_path, "header is larger than 4 MiB")


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".tar.zst", ".zip"])
def test_a_damaged_archive_is_refused(source: Path, tmp_path: Path, kind: str) -> None:
    if kind == ".tar.zst":
        pytest.importorskip("zstandard")
    archive = pack(source, tmp_path / f"a{kind}")
    archive.write_bytes(archive.read_bytes()[:-70_000])
    assert_refused(archive, tmp_path, f"a{kind}")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("not an archive")
    assert_refused(tmp_path / "a.zip", tmp_path, "is not a tar")
    with pytest.raises(StoreError, match="cannot make such an archive"):
        pack(tmp_path, tmp_path / "a.rar")


def test_packing_keeps_out_what_links_to_the_outside(source: Path, tmp_path: Path) -> None:
    (source / "bad").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="leads out"):
        pack(source, tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()


def test_without_zstandard_the_error_says_what_to_install(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(StoreError, match="zstandard") as caught:
        pack(source, tmp_path / "a.tar.zst")
    assert "pip install zstandard" in caught.value.hint
    assert sorted(os.listdir(tmp_path)) == ["output"]
