"""What a stage names by address, brought to this machine before an executor sees its document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mloc_tasks.artifacts import open_store as open_any_store
from mloc_tasks.artifacts import open_url as open_any_url
from mloc_tasks.artifacts.disk import disk_errors
from mloc_tasks.errors import ModelError
from mloc_tasks.models.contents import ADAPTER_CONFIG, describe, is_adapter, is_gguf, kind_of
from mloc_tasks.models.downloads import Downloads
from mloc_tasks.models.remote import REMOTE_SCHEMES, Remote, model_errors, scheme_of, without_secrets
from mloc_tasks.models.remote_http import OpenUrl, find_http
from mloc_tasks.models.remote_s3 import OpenStore, find_s3

MAX_BYTES = 200 << 30
"""Default bound of the download cache."""


@contextmanager
def materialise(
    document: Mapping[str, Any],
    *,
    cache_dir: Path,
    open_url: OpenUrl = open_any_url,
    open_store: OpenStore = open_any_store,
    log: Callable[..., None] = lambda message: None,
    max_bytes: int = MAX_BYTES,
    fetching: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, Any]]:
    """A copy of `document` in which what lies elsewhere is named by its path on this machine.

    What is fetched stays in the cache below `cache_dir`, and is not removed from it within the block.

    - `model.source` at an s3://, http(s)://, file:// address or at the path of an archive becomes
      `{type: local, identifier: /absolute/path}` of a directory or a .gguf file; Hub names and packages stay.
    - `model.adapters` become `{name, path}`, each a directory with adapter_config.json.
    - `checkpoint.load` becomes `{path, type}`, where the type `auto` becomes what is there, if it is known.
    - `reward_model` with an address loses it for a `path`; one that is a function stays.

    Directories of this machine are used where they lie.

    Args:
        document: a stage's merged spec with snake_case keys, references resolved.
        open_url: opens http(s):// addresses; open_store: opens `s3://bucket`, with the settings of the S3 server.
        log: told what is fetched and how far it is, from a second thread too.
        max_bytes: the bound of the cache, see `Downloads`.
        fetching: called before something is fetched here, not where another attempt does so and this one waits.

    Raises ModelError that names the key and what is there instead, ModelUnavailableError (retryable) when a server
    does not answer or the disk is full.
    """
    downloads = Downloads(cache_dir.expanduser().absolute(), max_bytes=max_bytes, log=log, fetching=fetching)
    with ExitStack() as held:
        finder = _Finder(downloads, held, open_url=open_url, open_store=open_store)
        yield _localised(document, finder)


class _Finder:
    """Gives local paths, and holds what was fetched until `held` is closed."""

    def __init__(self, downloads: Downloads, held: ExitStack, *, open_url: OpenUrl, open_store: OpenStore) -> None:
        self._downloads = downloads
        self._held = held
        self._open_url = open_url
        self._open_store = open_store

    def path_of(self, address: str, field: str) -> Path:
        """The directory or .gguf file that `address` leads to."""
        scheme = scheme_of(address)
        if scheme == "s3":
            remote = find_s3(address, field=field, open_store=self._open_store)
        elif scheme in REMOTE_SCHEMES:
            remote = find_http(address, field=field, open_url=self._open_url)
        elif scheme in ("", "file"):
            path = _local_path(address)
            with model_errors(field, str(path)), disk_errors(path):
                if _loads(path, field):
                    return path
                remote = _LocalArchive(path, field=field)
        else:
            hint = "use a path, file://, s3://, http:// or https://"
            raise ModelError(f"{field}: {scheme}:// addresses cannot be read", hint=hint)
        return self._held.enter_context(self._downloads.hold(remote))


class _LocalArchive(Remote):
    """An archive on this machine: nothing to fetch, it is unpacked."""

    def __init__(self, path: Path, *, field: str) -> None:
        self._path = path
        super().__init__(str(path), field=field, version=self.version_now(), size=path.stat().st_size)

    def fetch(self, staging: Path) -> Path:
        return self._path

    def version_now(self) -> str:
        status = self._path.stat()
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _loads(path: Path, field: str) -> bool:
    """Whether what is at a local path can be used as it lies there; an archive cannot."""
    if not path.exists():
        raise ModelError(
            f"{field}: nothing is at {path} on this worker",
            hint="a path must lie on every worker of the queue; one in a shared store is an s3:// address",
        )
    return path.is_dir() or is_gguf(path)


def _localised(document: Mapping[str, Any], finder: _Finder) -> dict[str, Any]:
    found = dict(document)
    if model := found.get("model"):
        model = dict(model)
        if source := model.get("source"):
            model["source"] = _source(source, finder)
        if adapters := model.get("adapters"):
            model["adapters"] = [_adapter(adapter, finder) for adapter in adapters]
        found["model"] = model
    if (checkpoint := found.get("checkpoint")) and (load := checkpoint.get("load")):
        found["checkpoint"] = {**checkpoint, "load": _checkpoint(load, finder)}
    if reward_model := found.get("reward_model"):
        found["reward_model"] = _reward_model(reward_model, finder)
    return found


def _source(source: Mapping[str, Any], finder: _Finder) -> dict[str, Any]:
    field, kind, identifier = "model.source.identifier", source.get("type", "huggingface"), source["identifier"]
    if kind == "package" or (kind == "huggingface" and not _is_address(identifier)):
        return dict(source)
    if kind in ("s3", "http") and not scheme_of(identifier):
        example = "s3://BUCKET/PREFIX" if kind == "s3" else "https://HOST/PATH/model.tar.gz"
        raise ModelError(f"{field}: {identifier!r} is no address", hint=f"with type: {kind} it looks like {example}")
    path = finder.path_of(identifier, field)
    kept = {key: value for key, value in source.items() if key != "revision"}  # of a hub's repository
    return {**kept, "type": "local", "identifier": str(path)}


def _adapter(adapter: Mapping[str, Any], finder: _Finder) -> dict[str, Any]:
    field = f"model.adapters[{adapter['name']}]"
    address = adapter.get("path") or adapter["url"]
    path = finder.path_of(address, field)
    _require_adapter(path, field, address)
    return {"name": adapter["name"], "path": str(path)}


def _checkpoint(load: Mapping[str, Any], finder: _Finder) -> dict[str, Any]:
    field, kind = "checkpoint.load", load.get("type", "auto")
    address = load.get("path") or load["url"]
    path = finder.path_of(address, field)
    if kind in ("adapter", "lora"):
        _require_adapter(path, field, address)
    elif kind == "model" and is_adapter(path):
        where = f"{field}: {without_secrets(address)}"
        raise ModelError(f"{where} holds a LoRA adapter, not a model", hint="write type: adapter, or leave it out")
    return {"path": str(path), "type": kind if kind != "auto" else kind_of(path) or "auto"}


def _reward_model(reward_model: Mapping[str, Any], finder: _Finder) -> dict[str, Any]:
    if reward_model.get("type") == "function":
        return dict(reward_model)
    for key in ("path", "url", "identifier"):
        address = reward_model.get(key)
        if address and (key != "identifier" or _is_address(address)):
            kept = {name: value for name, value in reward_model.items() if name not in (key, "url")}
            return {**kept, "path": str(finder.path_of(address, f"reward_model.{key}"))}
    return dict(reward_model)


def _require_adapter(path: Path, field: str, address: str) -> None:
    if not (path / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{field}: {without_secrets(address)} has no {ADAPTER_CONFIG}; {describe(path)}",
            hint="a LoRA adapter is a directory as PEFT saves it, or an archive of one",
        )


def _is_address(text: str) -> bool:
    """Whether it is a URL or an absolute path, which no name on a hub can be."""
    return bool(scheme_of(text)) or text.startswith(("/", "~"))


def _local_path(text: str) -> Path:
    if scheme_of(text) == "file":
        return Path(unquote(urlsplit(text).path))
    return Path(text).expanduser().absolute()
