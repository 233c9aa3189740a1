"""From a spec's `model.source` to files that load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mloc_tasks.errors import ModelError
from mloc_tasks.models import gguf, hub, package
from mloc_tasks.models.contents import describe, is_adapter
from mloc_tasks.models.downloads import address_of

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model that `from_pretrained(location, revision=revision)` loads.

    Attributes:
        name: what the spec calls it; goes to `responses.json`.
        location: a directory, or a Hub identifier whose configuration is in the local Hub cache already.
        revision: the Hub commit, so that all files come from one; None for a directory.
        trust_remote_code: whether the spec allows the model's own Python code to run.
        adapters: directories of LoRA adapters that go onto it.
    """

    name: str
    location: str
    revision: str | None = None
    trust_remote_code: bool = False
    adapters: tuple[str, ...] = ()


def resolve(
    *,
    kind: str,
    identifier: str,
    cache_dir: Path,
    revision: str | None = None,
    trust_remote_code: bool = False,
    log: Log = lambda message: None,
) -> ModelFiles:
    """Find a model, converting a GGUF file on its first use. Models elsewhere went through `materialise` before.

    Args:
        kind: `huggingface`, `local` or `package`.
        identifier: Hub identifier; path of a directory or a `.gguf` file; `package/path/in/it.gguf`.
        cache_dir: where conversions are kept.
        log: told about what takes long.

    Raises ModelError, with what to do, when it is not there or the kind is not supported here.
    """
    if kind == "huggingface":
        commit = hub.resolve_revision(identifier, revision=revision)
        return ModelFiles(name=identifier, location=identifier, revision=commit, trust_remote_code=trust_remote_code)
    if kind == "package":
        found = package.find_file(identifier)
    elif kind == "local":
        found = Path(identifier).expanduser().absolute()
        if not found.exists():
            raise ModelError(
                f"model.source.identifier: nothing is at {found} on this worker",
                hint="a local model must lie under the same path on every worker of its queue",
            )
    else:
        raise ModelError(
            f"model.source: {identifier!r} of type {kind!r} was not fetched",
            hint="the worker does that before it calls an executor: materialise",
        )
    directory = loadable_directory(found, cache_dir=cache_dir, log=log)
    name = address_of(found) if kind == "local" else identifier
    return ModelFiles(name=name, location=str(directory), trust_remote_code=trust_remote_code)


def loadable_directory(path: Path, *, cache_dir: Path, log: Log = lambda message: None) -> Path:
    """The directory to load `path` from: itself when it holds a model, else the conversion of its one GGUF file."""
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{path} is not a model: expected a .gguf file or a directory with config.json")
        return gguf.convert(path, cache_dir=cache_dir, log=log)
    if (path / "config.json").is_file():
        return path
    candidates = sorted(path.glob("*.gguf"))
    if len(candidates) == 1:
        return gguf.convert(candidates[0], cache_dir=cache_dir, log=log)
    if candidates:
        names = ", ".join(each.name for each in candidates)
        raise ModelError(f"{path} holds several GGUF files; name one of them: {names}")
    if is_adapter(path):
        hint = "put it under model.adapters, and the model that it was trained on under model.source"
        raise ModelError(f"{path} holds a LoRA adapter, which is no model by itself", hint=hint)
    raise ModelError(f"{path} holds neither config.json nor a .gguf file; {describe(path)}")
