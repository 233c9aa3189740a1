"""An artifact store in a directory of this machine, or of a network file system that all workers mount."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mloc_tasks.artifacts.disk import disk_error, disk_errors
from mloc_tasks.artifacts.names import MANIFEST_NAME, RESERVED, check_name, check_object_name
from mloc_tasks.artifacts.parallel import each
from mloc_tasks.artifacts.source import SourceFile, files_of, open_source, sha256_of
from mloc_tasks.artifacts.staging import copy_hashed, filled_directory, hidden_name, new_file, verify, write_all
from mloc_tasks.artifacts.store import ArtifactInfo, ArtifactStore, Manifest
from mloc_tasks.errors import ArtifactExistsError, ArtifactNotFoundError, StoreError

# Below this, starting threads costs more than they save.
_PARALLEL_BYTES = 4 << 20
_THREADS = 4


class LocalStore(ArtifactStore):
    """Artifacts as plain files below `root`, which is created when the first one is stored.

    A put is staged under a hidden name beside its place and renamed into it, so it is atomic also when the process
    is killed; a killed one leaves at most a hidden file or directory that no method shows.

    Nothing is fsynced: after a power failure the last seconds' artifacts may be missing or empty although their run
    says done (`get_dir` then reports a digest mismatch). An fsync costs 1 to 30 ms for each file, and a run can be
    repeated.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.realpath(os.path.expanduser(root)))
        self.url = self.root.as_uri()

    def put_dir(self, source: Path, prefix: str, *, move: bool = False) -> Manifest:
        final = self._path(prefix)
        files = files_of(source)
        self._refuse_taken(final, prefix)
        with disk_errors(self.root):
            os.makedirs(os.path.dirname(final), exist_ok=True)
            if move and not any(file.is_link for file in files) and _same_device(source, os.path.dirname(final)):
                return self._move_in(os.path.realpath(source), files, final, prefix)
            manifest = self._copy_in(files, final, prefix)
        if move:
            # The artifact is complete: what cannot be removed here is litter, not a failure.
            shutil.rmtree(source, ignore_errors=True)
        return manifest

    def put_bytes(self, data: bytes, name: str) -> ArtifactInfo:
        path = self._path(check_object_name(name))
        with disk_errors(path), new_file(path) as file:
            write_all(file, data)
        return ArtifactInfo(name, len(data), hashlib.sha256(data).hexdigest())

    def put_file(self, source: Path, name: str) -> ArtifactInfo:
        check_object_name(name)
        with open_source(source) as stream:
            return self._put_stream(stream, name)

    def get_dir(self, prefix: str, target: Path, names: Collection[str] | None = None) -> Manifest:
        manifest = self.manifest(prefix)
        if manifest is None:
            raise ArtifactNotFoundError(f"no complete artifact {prefix!r} in {self.url}")
        if names is not None:
            manifest = manifest.only(names)
        with disk_errors(target), filled_directory(target) as staging:

            def fetch(info: ArtifactInfo) -> None:
                path = staging / info.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with self._open(f"{prefix}/{info.name}") as source, open(path, "xb", buffering=0) as file:
                    verify(copy_hashed(source, file, info.name), info, self.url_of(f"{prefix}/{info.name}"))

            each(fetch, manifest.files, threads=_threads(manifest.size))
        return manifest

    def open(self, name: str) -> BinaryIO:
        return self._open(name, buffering=-1)

    def manifest(self, prefix: str) -> Manifest | None:
        try:
            with open(os.path.join(self._path(prefix), MANIFEST_NAME), "rb") as file:
                return Manifest.from_json(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise disk_error(error, self.root) from error

    def list(self, prefix: str = "") -> Iterator[ArtifactInfo]:
        path = self._path(prefix) if prefix else str(self.root)
        with disk_errors(self.root):
            if os.path.isfile(path):
                yield ArtifactInfo(prefix, os.path.getsize(path))
            elif os.path.isdir(path):
                yield from _files_below(path, f"{prefix}/" if prefix else "")

    def copy(self, source_name: str, target_name: str) -> ArtifactInfo:
        check_object_name(target_name)
        with self._open(source_name) as stream:
            return self._put_stream(stream, target_name)

    def delete(self, prefix: str) -> None:
        path = self._path(prefix)
        with disk_errors(path):
            try:
                if os.path.islink(path) or not os.path.isdir(path):
                    os.unlink(path)
                    return
                # One rename takes the whole directory out of sight; removing its files takes a while.
                doomed = os.path.join(os.path.dirname(path), hidden_name())
                os.rename(path, doomed)
            except (FileNotFoundError, NotADirectoryError):
                return
            shutil.rmtree(doomed)

    def url_of(self, name: str) -> str:
        return (self.root / check_name(name)).as_uri()

    def scratch(self, owner: str) -> Path:
        path = self._scratch_of(owner) / hidden_name()
        with disk_errors(self.root):
            path.mkdir(parents=True)  # unlike tempfile.mkdtemp's, others may read it once it is an artifact
        return path

    def sweep(self, owner: str) -> None:
        shutil.rmtree(self._scratch_of(owner), ignore_errors=True)
        for path in Path(self._path(owner)).glob(f"{RESERVED}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _scratch_of(self, owner: str) -> Path:
        return self.root / f"{RESERVED}{check_name(owner)}"

    def _path(self, name: str) -> str:
        """Where `name` lies; refuses one that a symbolic link inside the root leads out of it."""
        path = f"{self.root}/{check_name(name)}"
        if _passes_a_link(path, len(str(self.root))):
            real = os.path.realpath(path)
            if not real.startswith(f"{self.root}/"):
                raise StoreError(f"artifact name {name!r} leads out of {self.root}, to {real}, by a symbolic link")
        return path

    def _open(self, name: str, buffering: int = 0) -> BinaryIO:
        path = self._path(name)
        try:
            return open(path, "rb", buffering=buffering)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ArtifactNotFoundError(f"no artifact {name!r} in {self.url}") from error
        except OSError as error:
            raise disk_error(error, path) from error

    def _put_stream(self, stream: BinaryIO, name: str) -> ArtifactInfo:
        path = self._path(name)
        with disk_errors(path), new_file(path) as file:
            return copy_hashed(stream, file, name)

    def _refuse_taken(self, final: str, prefix: str) -> None:
        if os.path.lexists(os.path.join(final, MANIFEST_NAME)):
            raise ArtifactExistsError(
                f"there is already an artifact {prefix!r} in {self.url}", hint="delete it first, or use another prefix"
            )

    def _move_in(self, source: str, files: Sequence[SourceFile], final: str, prefix: str) -> Manifest:
        infos = each(
            lambda file: ArtifactInfo(file.name, file.size, sha256_of(file.path)),
            files,
            threads=_threads(sum(file.size for file in files)),
        )
        manifest = Manifest(tuple(infos))
        path = os.path.join(source, MANIFEST_NAME)
        try:
            with open(path, "xb", buffering=0) as file:
                write_all(file, manifest.to_json())
            self._rename_in(source, final, prefix)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise
        return manifest

    def _copy_in(self, files: Sequence[SourceFile], final: str, prefix: str) -> Manifest:
        staging = os.path.join(os.path.dirname(final), hidden_name())

        def copy(file: SourceFile) -> ArtifactInfo:
            path = os.path.join(staging, file.name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(file.path, "rb", buffering=0) as source, open(path, "xb", buffering=0) as target:
                return copy_hashed(source, target, file.name)

        try:
            os.mkdir(staging)
            infos = each(copy, files, threads=_threads(sum(file.size for file in files)))
            manifest = Manifest(tuple(infos))
            with open(os.path.join(staging, MANIFEST_NAME), "xb") as target:
                target.write(manifest.to_json())
            self._rename_in(staging, final, prefix)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return manifest

    def _rename_in(self, source: str, final: str, prefix: str) -> None:
        """The instant of becoming visible. The kernel lets exactly one of several writers win."""
        try:
            os.rename(source, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            self._refuse_taken(final, prefix)
            raise ArtifactExistsError(
                f"{final} holds other files, so the artifact {prefix!r} cannot be put there", hint="use another prefix"
            ) from error


def _passes_a_link(path: str, start: int) -> bool:
    """Whether a part of `path` after its first `start` characters is a symbolic link (a fifth of realpath's time)."""
    end = start
    while end < len(path):
        end = path.find("/", end + 1)
        end = len(path) if end < 0 else end
        try:
            if stat.S_ISLNK(os.lstat(path[:end]).st_mode):
                return True
        except OSError:
            return False  # nothing there, so nothing below it either
    return False


def _same_device(source: Path, directory: str) -> bool:
    return os.stat(source).st_dev == os.stat(directory).st_dev


def _threads(size: int) -> int:
    return _THREADS if size > _PARALLEL_BYTES else 1


def _files_below(directory: str, prefix: str) -> Iterator[ArtifactInfo]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # deleted since its parent was read
    for entry in entries:
        if entry.name.startswith(RESERVED) or entry.name == MANIFEST_NAME or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _files_below(entry.path, f"{prefix}{entry.name}/")
        else:
            with suppress(FileNotFoundError):
                yield ArtifactInfo(prefix + entry.name, entry.stat().st_size)
