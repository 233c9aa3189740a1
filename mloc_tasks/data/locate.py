"""From an address in a spec (path, glob, file://, s3://, http(s)://) to the files it means."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mloc_tasks.errors import ArtifactNotFoundError, InputError

OpenUrl = Callable[[str], BinaryIO]

_REMOTE = ("s3", "http", "https")


@dataclass(frozen=True)
class DataFile:
    """One file of input. `name` is its path or address, `opener` opens it for reading from its beginning."""

    name: str
    opener: Callable[[], BinaryIO]

    def open(self) -> BinaryIO:
        """Open it. Raises InputError when it is missing or may not be read."""
        try:
            return self.opener()
        except ArtifactNotFoundError as error:
            raise InputError(f"{self.name}: no such file", hint="check the address in data.url") from error
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from error

    def size(self) -> int | None:
        """Bytes, or None where it cannot be read from the middle, so that its size would be of no use."""
        with self.open() as handle:
            return handle.seek(0, os.SEEK_END) if handle.seekable() else None


def find_files(url: str, *, open_url: OpenUrl | None = None) -> list[DataFile]:
    """The files that `url` means, a glob's in the order of their names.

    Raises InputError when there are none, or the address is of an unknown kind.
    """
    scheme = urlsplit(url).scheme.lower() if "://" in url else ""
    if scheme in _REMOTE:
        return [_remote(url, open_url)]
    if scheme not in ("", "file"):
        raise InputError(
            f"data.url {url!r}: {scheme}:// is not supported", hint="use a path, file://, s3://, http:// or https://"
        )
    path = url2pathname(urlsplit(url).path) if scheme else os.path.expanduser(url)
    if glob.has_magic(path) and not os.path.exists(path):
        return _matching(path)
    if os.path.isdir(path):
        raise InputError(f"data.url {url!r} is a folder", hint=f"name the files in it: {os.path.join(path, '*.jsonl')}")
    if not os.path.exists(path):
        raise InputError(f"data.url {url!r}: no such file ({os.path.abspath(path)})", hint=_near(Path(path)))
    return [_local(path)]


def _local(path: str) -> DataFile:
    return DataFile(path, lambda: open(path, "rb"))


def _remote(url: str, open_url: OpenUrl | None) -> DataFile:
    if url.startswith("s3:") and glob.has_magic(url):
        raise InputError(f"data.url {url!r}: globs work for local files only", hint="name one object")
    if open_url is None:
        from mloc_tasks.artifacts import open_url as default_open_url

        return DataFile(url, lambda: default_open_url(url))
    return DataFile(url, lambda: open_url(url))


def _matching(pattern: str) -> list[DataFile]:
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not paths:
        raise InputError(
            f"data.url {pattern!r}: no file matches ({os.path.abspath(pattern)})",
            hint="relative paths start at the worker's working directory",
        )
    return [_local(path) for path in paths]


def _near(path: Path) -> str:
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return f"did you mean {path.parent / near[0]}"
    return "relative paths start at the working directory of the worker, which must be able to see the file"
