"""The `mloc` command, called in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mloc_tasks.settings import reset_settings
from scheduler.cli.app import app
from tests.cli.documents import PLUGIN

ROOT = Path(__file__).parents[2]
MLOC = [sys.executable, "-m", "scheduler.cli"]

Mloc = Callable[..., "subprocess.CompletedProcess[str]"]


UNWANTED = ("FORCE_COLOR", "COLUMNS")  # a runner of tests may have set them


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, in which the checkout is importable, and no colour and no width is forced."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    inherited = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    return {**inherited, "PYTHONPATH": path, **changes}


@pytest.fixture
def mloc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mloc]:
    """Calls `mloc` in this process and an empty directory: `mloc("validate", "a.yaml", env={...}, stdin="...")`."""

    def call(
        *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            for name in UNWANTED:
                patch.delenv(name, raising=False)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            reset_settings()
            result = CliRunner().invoke(app, arguments, input=stdin, prog_name="mloc")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(list(arguments), result.exit_code, result.stdout, result.stderr)

    yield call
    reset_settings()


@pytest.fixture
def mloc_process(tmp_path: Path) -> Mloc:
    """Calls `mloc` as users do, in a process of its own."""

    def call(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MLOC, *arguments],
            cwd=tmp_path,
            env=environment(**(env or {})),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


@pytest.fixture
def spec(tmp_path: Path) -> Callable[[str], str]:
    """Writes a spec into the directory that `mloc` is called in and gives its name."""

    def write(text: str, name: str = "spec.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write


@pytest.fixture(scope="session")
def slow_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for PYTHONPATH in which the executor `slow` is installed."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "slow_executor.py").write_text(PLUGIN, encoding="utf-8")
    metadata = folder / "slow_executor-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-executor\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mloc.executors]\nslow = slow_executor:Slow\n")
    return folder
