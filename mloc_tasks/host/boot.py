"""Starts an executor host: `python boot.py SOCKET_FD TARGET`, under whatever interpreter the executor needs.

`python boot.py examine TARGET...` says on standard output what that interpreter can do (`examination`), and
`python boot.py call MODULE:FUNCTION ARGUMENT...` calls a function of this package, in a process that a host
starts.

That interpreter need not have MLOC installed, and may have another version of it: this file's own package is used, also
in the processes that the host starts with `multiprocessing`, and nothing else that lies beside the package.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent
LEAST_PYTHON = (3, 11)
CANNOT_RUN = 3


class OurPackage:
    """Finds `mloc_tasks` where this file lies."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]  # read by Pythons that are too old
        if name != PACKAGE.name:
            return None
        return importlib.util.spec_from_file_location(
            name, str(PACKAGE / "__init__.py"), submodule_search_locations=[str(PACKAGE)]
        )


def prepare() -> None:
    """Make `import mloc_tasks` find this package, and `import pool` not what lies beside this file."""
    sys.path[:] = [entry for entry in sys.path if not entry or os.path.realpath(entry) != str(HERE)]
    sys.meta_path.insert(0, OurPackage)


if sys.version_info < LEAST_PYTHON:
    print(f"{sys.executable} is Python {sys.version.split()[0]}; MLOC needs 3.11 or newer", file=sys.stderr)
    sys.exit(CANNOT_RUN)

prepare()  # also where multiprocessing imports this file as the main module of another process

if __name__ == "__main__":
    if sys.argv[1] == "examine":
        from mloc_tasks.host.examination import report

        report(sys.argv[2:])
    elif sys.argv[1] == "call":
        module, _, function = sys.argv[2].partition(":")
        getattr(importlib.import_module(module), function)(*sys.argv[3:])
    else:
        from mloc_tasks.host.child import serve

        serve(int(sys.argv[1]), sys.argv[2])
