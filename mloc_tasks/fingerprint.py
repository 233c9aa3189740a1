"""What decides a stage's result, as one digest: two stages with the same fingerprint may share a result.

In it: the resolved document without what changes only where and how it runs, the contents of what it reads, and the
executor with its version. Contents are told apart

- for an upstream stage by the digests in its manifest,
- for files (also s3:// and http://) by their SHA-256, read as a stream,
- for a dataset by its name, configuration, split and revision as the spec gives them: without a revision, one that
  changed under its name is taken for the same,
- for a model by identifier and revision as given (a branch that moved is taken for the same); a file by its SHA-256, a
  local directory by the sizes and modification times in it,
- for what else has an address by that address.

Shards count as a way to run: they are merged in the order of the input, so their number is not part of the result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mloc_tasks.artifacts import Manifest
from mloc_tasks.data.locate import OpenUrl, find_files
from mloc_tasks.errors import UnresolvedReferenceError
from mloc_tasks.models import package
from mloc_tasks.models.digest import file_digest
from mloc_tasks.spec.model.data import FileData, GraphTemplateData, StageData

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Executor
    from mloc_tasks.spec import StageSpec

FORMAT = "mloc.fingerprint/1"  # to be changed when the same stage should get another fingerprint
CHUNK_BYTES = 1 << 20
HOW_IT_RUNS = frozenset(
    {"resources", "enforce_cpu", "parallel", "priority", "retry", "timeout", "slo_seconds", "cache"}
)  # floating-point results may differ in the last digits from one kind of device, or batch, to the next

ManifestOf = Callable[[str], Manifest | None]


def fingerprint(
    document: dict[str, Any],
    *,
    spec: StageSpec,
    executor: Executor,
    manifest_of: ManifestOf,
    open_url: OpenUrl,
    cache_dir: Path,
) -> str:
    """Hexadecimal SHA-256 of all that decides the stage's result.

    Args:
        document: the stage's document, references resolved; `spec` is the same, typed.
        manifest_of: the manifest of an upstream stage's result, by its name.
        open_url: opens s3:// and http(s):// addresses.
        cache_dir: where digests of large files are remembered.

    Raises the errors of reading what it reads.
    """
    parts = {
        "format": FORMAT,
        "executor": [executor.name, executor.version],
        "document": _what_it_says(document),
        "inputs": _inputs(spec, manifest_of, open_url),
        "files": {path: _local_state(Path(path), cache_dir) for path in sorted(_local_paths(spec))},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _what_it_says(document: dict[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in document.items() if key not in HOW_IT_RUNS}
    output = said.pop("output", None)
    if isinstance(output, dict) and output.get("artifacts"):
        said["artifacts"] = output["artifacts"]  # a further destination gets the same files
    return said


def _inputs(spec: StageSpec, manifest_of: ManifestOf, open_url: OpenUrl) -> list[Any]:
    data = spec.data
    references = None if spec.evaluate is None else spec.evaluate.references
    expected = _files(references.url, open_url) if references and references.type == "file" and references.url else []
    if isinstance(data, StageData):
        return [*_stages([data.stage], manifest_of), *expected]
    if isinstance(data, GraphTemplateData):
        return _stages(sorted({column.node for column in data.template.columns}), manifest_of)
    if isinstance(data, FileData):
        return [*_files(data.url, open_url), *expected]
    return expected


def _files(url: str, open_url: OpenUrl) -> list[Any]:
    found = []
    for file in find_files(url, open_url=open_url):
        with file.open() as stream:
            found.append([file.name, _digest(stream)])
    return found


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _stages(names: list[str], manifest_of: ManifestOf) -> list[Any]:
    found = []
    for name in names:
        manifest = manifest_of(name)
        if manifest is None:
            raise UnresolvedReferenceError(f"the files of stage {name!r} are not in the store")
        found.append([name, [[info.name, info.sha256] for info in manifest.files]])
    return found


def _local_paths(spec: StageSpec) -> set[str]:
    """What the stage loads from this machine besides its rows."""
    paths: list[str | None] = []
    if spec.model is not None:
        paths += [adapter.path for adapter in spec.model.adapters]
        source = spec.model.source
        if source is not None and source.type == "local":
            paths.append(source.identifier)
        if source is not None and source.type == "package":
            paths.append(str(package.find_file(source.identifier)))
    if spec.reward_model is not None:
        paths.append(spec.reward_model.path)
    if spec.checkpoint is not None and spec.checkpoint.load is not None:
        paths.append(spec.checkpoint.load.path)
    return {path for path in paths if path}


def _local_state(path: Path, cache_dir: Path) -> Any:
    path = path.expanduser()
    if path.is_file():
        return file_digest(path, cache_dir=cache_dir.expanduser())
    if not path.is_dir():
        return None  # whoever loads it says what is wrong
    files = sorted(each for each in path.rglob("*") if each.is_file())
    stats = [(each.relative_to(path).as_posix(), each.stat()) for each in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
