"""What of a stage's output directory is kept, and the addresses of it that the result gives to later stages."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mloc_tasks.artifacts.archives import pack
from mloc_tasks.data.items import RESPONSES
from mloc_tasks.executors.base import write_json
from mloc_tasks.spec.expressions import Reference, find_references
from mloc_tasks.spec.model.output import Output

ARCHIVE_SUFFIX = ".tar.gz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What is to become of the files that a stage's executor writes.

    Fields are top-level names of its result. An archive `X_archive_url` of the directory that `X_url` names is made
    when a later stage refers to it, `output.artifacts` names it, or the outputs are sent to a web server.

    Attributes:
        paths: the executor's `artifact_fields`: field -> path below the output directory.
        keep: `output.artifacts`; empty keeps all.
        referenced: the fields that later stages refer to; what they name is kept whatever `keep` says.
        sends: whether the outputs are sent to a web server, which takes no directories.
    """

    paths: Mapping[str, str]
    keep: tuple[str, ...]
    referenced: frozenset[str]
    sends: bool

    @classmethod
    def of(cls, paths: Mapping[str, str], output: Output, *, referenced: Iterable[str] = ()) -> Outputs:
        destination = output.destination
        return cls(
            paths=paths,
            keep=tuple(pattern.removeprefix("./").rstrip("/") for pattern in output.artifacts or ()),
            referenced=frozenset(referenced),
            sends=destination is not None and destination.type == "http",
        )

    @property
    def addresses(self) -> frozenset[str]:
        """The fields that hold addresses, where what they name is there."""
        return frozenset(field for field, _ in self._all_paths())

    @property
    def wanted(self) -> frozenset[str]:
        """The fields that something asks for by name; with an archive also the directory that it is made of."""
        found = set()
        for field, path in self.paths.items():
            archive = archive_field(field)
            if archive in self.referenced or self._names_archive(path):
                found |= {archive, field}
            if field in self.referenced or any(_names(pattern, path) for pattern in self.keep):
                found.add(field)
        return frozenset(found)

    def complete(self, out_dir: Path, url_of: Callable[[str], str]) -> None:
        """Make the archives that are wanted, remove what is not kept, and write the addresses into the result.

        Args:
            url_of: the address that a path below `out_dir` will have in the store.
        """
        self.make_archives(out_dir)
        removed = self._remove_unkept(out_dir)
        self._write_addresses(out_dir, url_of, removed)

    def make_archives(self, out_dir: Path) -> None:
        """Make those that are asked for and not there yet, of the directories that are there."""
        for path in self._archived():
            archive = out_dir / f"{path}{ARCHIVE_SUFFIX}"
            if (out_dir / path).is_dir() and _is_there(out_dir / path) and not archive.exists():
                pack(out_dir / path, archive)

    def _archived(self) -> list[str]:
        """The paths of which archives are asked for, where they are directories."""
        wanted = self.wanted
        return [
            path
            for field, path in self.paths.items()
            if archive_field(field) in wanted or (self.sends and self._keeps(path))
        ]

    def _keeps(self, path: str) -> bool:
        return not self.keep or any(_names(pattern, path) or _holds(pattern, path) for pattern in self.keep)

    def _remove_unkept(self, out_dir: Path) -> list[str]:
        if not self.keep:
            return []
        referenced = (path for field, path in self._all_paths() if field in self.referenced)
        kept = (*self.keep, RESPONSES, *referenced, *(f"{path}{ARCHIVE_SUFFIX}" for path in self._archived()))
        names = [path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file()]
        removed = [name for name in names if not any(_holds(pattern, name) for pattern in kept)]
        for name in removed:
            (out_dir / name).unlink()
        return removed

    def _write_addresses(self, out_dir: Path, url_of: Callable[[str], str], removed: list[str]) -> None:
        """An address stands for the whole of what it names: of a directory in parts there is none."""
        if not self.paths:
            return
        found = {
            field: url_of(path)
            for field, path in self._all_paths()
            if _is_there(out_dir / path) and not any(_holds(path, name) for name in removed)
        }
        result = json.loads((out_dir / RESPONSES).read_bytes())
        others = {name: value for name, value in result.items() if name not in self.addresses}
        write_json(out_dir / RESPONSES, {**others, **found})

    def _all_paths(self) -> Iterator[tuple[str, str]]:
        for field, path in self.paths.items():
            yield field, path
            yield archive_field(field), f"{path}{ARCHIVE_SUFFIX}"

    def _names_archive(self, path: str) -> bool:
        """Whether `output.artifacts` means the archive: `final_model*` does not, for it means the directory."""
        archive = f"{path}{ARCHIVE_SUFFIX}"
        return any(_names(pattern, archive) and not _names(pattern, path) for pattern in self.keep)


def archive_field(field: str) -> str:
    """`final_model_archive_url`, of `final_model_url`."""
    return f"{field.removesuffix('_url')}_archive_url"


def fields_referred_to(stage: str, documents: Iterable[Any]) -> frozenset[str]:
    """The top-level fields of `stage`'s result that other stages' documents refer to."""
    return frozenset(
        str(reference.path[0])
        for document in documents
        for _, reference in find_references(document)
        if isinstance(reference, Reference) and reference.stage == stage and reference.path
    )


def _names(pattern: str, path: str) -> bool:
    """Whether a pattern means a path, or something below it; one of asterisks alone means nothing in particular."""
    parts = pattern.split("/")[: path.count("/") + 1]
    return fnmatch.fnmatchcase(path, "/".join(parts)) and any(part.strip("*") for part in parts)


def _holds(pattern: str, name: str) -> bool:
    """Whether a pattern matches a file or a directory that it lies in."""
    parts = name.split("/")
    return any(fnmatch.fnmatch("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def _is_there(path: Path) -> bool:
    """Whether it is a file, or a directory with files in it: others are not stored."""
    return path.is_file() or any(entry.is_file() for entry in path.rglob("*"))
