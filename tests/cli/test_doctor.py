"""What `mloc doctor` says of the interpreters that executors run under."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.host.examination import examine
from tests.cli.conftest import Mloc

Check = Callable[..., dict[str, Any]]


@pytest.fixture
def check(mloc: Mloc) -> Check:
    """The finding about a family's executors, with these variables set."""

    def check(family: str, **env: str) -> dict[str, Any]:
        report = json.loads(mloc("doctor", "--json", env=env).stdout)
        finding: dict[str, Any] = next(each for each in report["checks"] if each["what"] == f"executor {family}")
        return finding

    return check


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], str]:
    """Makes a program that stands for a Python: a shell script."""

    def make(script: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_a_family_runs_under_the_worker_s_python_where_nothing_else_is_said(check: Check) -> None:
    found = check("transformers")
    assert found["found"].startswith(f"this Python {sys.version.split()[0]}")


def test_another_python_is_started_and_asked(check: Check, python: Callable[[str], str]) -> None:
    other = python(f"exec {sys.executable} -I -S -c \"import sys; sys.stderr.write('no room for you'); sys.exit(4)\"")
    found = check("vllm", MLOC_PYTHON_VLLM=other)
    assert (found["state"], found["found"]) == (
        "problem",
        f"{other} (?): python: it ended with exit code 4: no room for you",
    )
    assert found["advice"] == "repair that environment, or name another in MLOC_PYTHON_VLLM"


def test_one_that_is_not_there_is_a_problem(check: Check) -> None:
    found = check("vllm", MLOC_PYTHON_VLLM="/no/such/python")
    assert found["state"] == "problem"
    assert "MLOC_PYTHON_VLLM=/no/such/python: no such Python on this worker" in found["found"]


def test_one_that_is_too_old_says_so(python: Callable[[str], str]) -> None:
    code = textwrap.dedent(
        """
        import sys
        sys.version_info, sys.version, sys.argv = (3, 9, 1), '3.9.1 (main)', sys.argv[1:]
        exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'), {'__name__': '__main__', '__file__': sys.argv[0]})
        """
    )
    old = python(f'exec {sys.executable} -c "{code}" "$@"')
    assert examine(old, ()).errors["python"].endswith("is Python 3.9.1; MLOC needs 3.11 or newer")


def test_what_cannot_be_imported_there_is_named(python: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "broken_executor.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')\n")
    other = python(f'PYTHONPATH={tmp_path} exec {sys.executable} -S "$@"')
    found = examine(other, ["broken_executor:Broken"])
    assert found.errors["broken_executor"] == "OSError: libcudart.so.12: cannot open shared object file"
    assert found.python == sys.version.split()[0]


def test_one_that_does_not_answer_is_given_up(python: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mloc_tasks.host.examination.LIMIT_SEC", 0.2)
    assert examine(python("exec sleep 1000"), ()).errors == {"python": "it did not answer within 0.2 s"}
