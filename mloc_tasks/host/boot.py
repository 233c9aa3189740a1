"""Starts an executor host: `python boot.py PACKAGE SOCKET_FD TARGET`, under whatever interpreter the executor needs.

PACKAGE is the folder of `mloc_tasks`, which that interpreter need not have installed; it is found there and nothing
else beside it is.
"""

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    folder, descriptor, target = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]  # put there for this script
    if importlib.util.find_spec("mloc_tasks") is None:
        spec = importlib.util.spec_from_file_location(
            "mloc_tasks", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["mloc_tasks"] = package
        spec.loader.exec_module(package)
    from mloc_tasks.host.child import serve

    serve(descriptor, target)


if __name__ == "__main__":
    main()
