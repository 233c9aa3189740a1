"""Two families of executors, each under a virtual environment with its own version of Transformers."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import mloc_tasks
from mloc_tasks.host.examination import examine
from tests.host.conftest import Hosts
from tests.plugins.mloc_test_script import ScriptExecutor

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]
VERSIONS = ("5.18.0", "5.19.0")
FETCH_SEC = 300


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Python for each version of Transformers. All else that they have is what this one has."""
    made = {}
    for version in VERSIONS:
        folder = tmp_path_factory.mktemp(f"venv-{version}")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        packages = next((folder / "lib").glob("python*/site-packages"))
        fetch = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
        try:
            done = subprocess.run(
                [*fetch, f"transformers=={version}"], capture_output=True, text=True, timeout=FETCH_SEC, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"transformers {version} cannot be installed here within {FETCH_SEC} s")
        if done.returncode:
            pytest.skip(f"transformers {version} cannot be installed here: {done.stderr.strip()[-200:]}")
        (packages / "rest.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
        made[version] = str(folder / "bin" / "python")
    return made


def test_each_family_runs_under_its_own(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, pythons: dict[str, str]) -> None:
    for version, python in pythons.items():
        monkeypatch.setenv("MLOC_PYTHON_SCRIPT", python)
        found = hosts.run(["versions"], executor=ScriptExecutor)["versions"]
        assert found == {
            "transformers": version,
            "python": python,
            "mloc": str(Path(mloc_tasks.__file__).resolve().parent),
        }


def test_the_doctor_sees_each_one_s_versions(pythons: dict[str, str]) -> None:
    found = {version: examine(python, ()) for version, python in pythons.items()}
    assert {each.versions["transformers"] for each in found.values()} == set(VERSIONS)
    assert not any(each.errors for each in found.values()), found
