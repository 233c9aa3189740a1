"""What a spec's address leads to: something with a version that can be fetched, and errors that name it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mloc_tasks.errors import (
    ArtifactNotFoundError,
    ModelError,
    ModelUnavailableError,
    StoreError,
    StoreUnavailableError,
)

REMOTE_SCHEMES = ("s3", "http", "https")


class Remote(ABC):
    """A file or a directory that is to be fetched into the cache.

    Attributes:
        address: the URL or path, complete; part of the cache's key.
        field: where it stands in the spec, for messages.
        version: changes when the content does.
        size: bytes that will be fetched; None when the server does not say.
    """

    def __init__(self, address: str, *, field: str, version: str, size: int | None) -> None:
        self.address = address
        self.field = field
        self.version = version
        self.size = size

    @property
    def shown(self) -> str:
        """The address for messages and logs, without credentials."""
        return without_secrets(self.address)

    @abstractmethod
    def fetch(self, staging: Path) -> Path:
        """Put the content below the empty directory `staging`; return the path of the file or directory.

        Raises the errors of `mloc_tasks.artifacts`, also when a digest that the store has does not agree.
        """

    @abstractmethod
    def version_now(self) -> str:
        """The version, asked for again: another one says that what was fetched may be a mixture."""


def scheme_of(text: str) -> str:
    """`s3`, `http`, `https`, `file` or another; "" for a path or a name."""
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator and scheme.isalnum() else ""


def without_secrets(address: str) -> str:
    """A URL without user, password and query, where signatures stand; a path as it is."""
    if scheme_of(address) not in REMOTE_SCHEMES:
        return address
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def model_errors(field: str, address: str) -> Iterator[None]:
    """Turn errors of the artifact store in the block into `ModelError`; retryable ones into `ModelUnavailableError`."""
    shown = without_secrets(address)
    try:
        yield
    except StoreError as error:
        text = str(error).replace(address, shown)
        where = field if shown in text else f"{field}: {shown}"
        if isinstance(error, StoreUnavailableError):
            raise ModelUnavailableError(f"{where}: {text}", hint=error.hint) from error
        if isinstance(error, ArtifactNotFoundError):
            raise nothing_there(field, address) from error
        raise ModelError(f"{where}: {text}", hint=error.hint) from error


def nothing_there(field: str, address: str) -> ModelError:
    """The error for an address where there is nothing."""
    return ModelError(
        f"{field}: nothing is at {without_secrets(address)}",
        hint="check its spelling, and whether the run that made it has been deleted",
    )
