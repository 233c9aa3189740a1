"""The interface of an artifact store, and the manifest that makes a directory of artifacts whole."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mloc_tasks.artifacts.names import check_name
from mloc_tasks.errors import ArtifactNotFoundError, StoreError

MANIFEST_FORMAT = "mloc.manifest/1"


@dataclass(frozen=True, slots=True)
class ArtifactInfo:
    """One stored file.

    Attributes:
        name: in a manifest relative to its prefix, elsewhere relative to the store's root.
        size: bytes.
        sha256: hexadecimal digest; "" where the store would have to read the file to tell (`ArtifactStore.list`).
    """

    name: str
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a prefix holds, in order of names."""

    files: tuple[ArtifactInfo, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(info.size for info in self.files)

    def only(self, names: Collection[str]) -> Manifest:
        """The manifest of these files alone; `ArtifactNotFoundError` names those that are not in it."""
        missing = sorted(set(names) - {info.name for info in self.files})
        if missing:
            held = ", ".join(info.name for info in self.files[:10]) or "nothing"
            raise ArtifactNotFoundError(f"no {', '.join(missing)} in the artifact, which holds {held}")
        return Manifest(tuple(info for info in self.files if info.name in names))

    def to_json(self) -> bytes:
        files = [{"name": info.name, "size": info.size, "sha256": info.sha256} for info in self.files]
        return json.dumps({"format": MANIFEST_FORMAT, "files": files}, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest | None:
        """Parse `to_json`'s bytes; None when they are some other program's manifest.json.

        Names are checked here, so that a forged manifest cannot make `get_dir` write outside of its target.
        """
        try:
            document: Any = json.loads(data)
        except ValueError:
            return None
        if not isinstance(document, dict) or document.get("format") != MANIFEST_FORMAT:
            return None
        try:
            files = tuple(
                ArtifactInfo(check_name(str(entry["name"])), int(entry["size"]), str(entry["sha256"]))
                for entry in document["files"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"a manifest of this store is damaged: {error!r}") from error
        return cls(files)


class ArtifactStore(ABC):
    """Keeps files under names relative to one root.

    There are two kinds of artifact. An *object* (`put_bytes`, `put_file`, `copy`) is one file; putting it again
    replaces it as a whole. A *directory* (`put_dir`) becomes visible as a whole or not at all, and is written once:
    a second `put_dir` of its prefix raises `ArtifactExistsError` until `delete` has taken the first away. So readers
    never see a directory change, and of two writers at the same prefix exactly one wins.

    Names are "/"-separated and relative. Absolute ones and those with "..", ".", empty segments, backslashes or
    control characters are refused with `StoreError` before anything is read or written.

    Every method raises `StoreUnavailableError` (retryable) when the store does not answer or has no space left, and
    `StoreError` when it refuses for good. Stores may be used by several threads at once, and after a fork.
    """

    url: str
    """Where the root lies, as `open_store` takes it."""

    @abstractmethod
    def put_dir(self, source: Path, prefix: str, *, move: bool = False) -> Manifest:
        """Store all files under `source` as the directory `prefix`, in parallel; its manifest.json is written last.

        With `move` the files may be taken instead of copied, and `source` is gone afterwards; when this raises,
        `source` is as it was. Symbolic links to files inside `source` are stored as the files they point to; a link
        that is broken, leads out of `source` or names a directory is refused with `StoreError`, and so are sockets,
        pipes and devices. Empty directories are not stored. Raises `ArtifactExistsError` when the prefix is taken.
        """

    @abstractmethod
    def put_bytes(self, data: bytes, name: str) -> ArtifactInfo:
        """Store `data` as the object `name`, replacing it if there is one."""

    @abstractmethod
    def put_file(self, source: Path, name: str) -> ArtifactInfo:
        """Store a copy of the file `source` as the object `name`, replacing it if there is one."""

    @abstractmethod
    def get_dir(self, prefix: str, target: Path, names: Collection[str] | None = None) -> Manifest:
        """Copy the directory `prefix`, or of it only `names`, into `target`, in parallel; return what was copied.

        Files appear in `target` when all of them are there and their sizes and digests agree with the manifest;
        otherwise `StoreError` is raised and `target` is as before. Raises `ArtifactNotFoundError` when there is no
        complete directory `prefix`, or no such name in it.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open one file for reading, streamed and seekable; `ArtifactNotFoundError` when it is not there or not whole.

        Digests are not verified here; `get_dir` does.
        """

    @abstractmethod
    def manifest(self, prefix: str) -> Manifest | None:
        """What the directory `prefix` holds; None when there is none, or it is not complete."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ArtifactInfo]:
        """All visible files at or below `prefix`, without digests. Files named manifest.json are left out."""

    @abstractmethod
    def copy(self, source_name: str, target_name: str) -> ArtifactInfo:
        """Make the object `target_name` a copy of one file, within the store; a former one is replaced as a whole."""

    @abstractmethod
    def delete(self, prefix: str) -> None:
        """Remove the object or directory `prefix` and all below it, also what an interrupted put left there.

        Nothing there is not an error. Directories become invisible before their files go.
        """

    @abstractmethod
    def url_of(self, name: str) -> str:
        """The URL of one file, as `open_url` takes it. The file need not exist."""

    @abstractmethod
    def scratch(self, owner: str) -> Path:
        """A new, empty, hidden directory on this machine from which `put_dir(..., move=True)` is cheapest.

        It is the caller's to remove when no `put_dir` takes it. `owner`, a name of one segment: `sweep` goes by it.
        """

    @abstractmethod
    def sweep(self, owner: str) -> None:
        """Remove all scratch directories of `owner`, and what killed writers left hidden right below that name."""

    def read_bytes(self, name: str) -> bytes:
        """The whole of one file; errors as `open`."""
        with self.open(name) as stream:
            return stream.read()
