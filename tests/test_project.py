"""What holds for the project as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors import Executor
from mloc_tasks.settings import Settings

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "vllm", "transformers", "datasets")


@pytest.mark.parametrize(
    "package", ["scheduler", "scheduler.submit", "mloc_tasks", "mloc_tasks.app", "mloc_tasks.tasks"]
)
def test_importing_loads_no_model_library(package: str) -> None:
    code = f"import sys, {package}; sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_spec_loads_no_service_library() -> None:
    libraries = (*HEAVY, "celery", "redis", "boto3")
    code = f"import sys, mloc_tasks.spec; sys.exit(' '.join(name for name in {libraries} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("mloc_tasks", ("scheduler",)),
        ("mloc_tasks/spec", ("mloc_tasks.ledger", "mloc_tasks.artifacts", "mloc_tasks.executors.transformers")),
        ("mloc_tasks/executors", ("celery", "redis", "boto3", "mloc_tasks.ledger", "mloc_tasks.tasks")),
        ("mloc_tasks/data", ("celery", "redis", "boto3", "mloc_tasks.ledger")),
    ],
)
def test_imports_go_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        for line in file.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and len(words) > 1:
                assert not words[1].startswith(forbidden), f"{file}: {line}"


def test_the_readme_s_executor_is_one() -> None:
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    code = next(block.split("```")[0] for block in blocks if "MyCustomExecutor" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    assert issubclass(names["MyCustomExecutor"], Executor)
    assert names["MyCustomExecutor"]().takes() == ("my-executor",)


def test_live_workers_cannot_look_gone_between_two_beats() -> None:
    with pytest.raises(ValueError, match="HEARTBEAT_TTL_SEC=10 must be above HEARTBEAT_INTERVAL_SEC=30"):
        Settings(heartbeat_ttl_sec=10)


def test_the_configuration_page_is_what_the_settings_say() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from configuration_table import DOCUMENT, document
    finally:
        sys.path.pop(0)
    assert DOCUMENT.read_text() == document(), "run: python scripts/configuration_table.py"
