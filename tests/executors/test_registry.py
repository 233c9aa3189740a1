"""Executors are found by task type: built-in ones from a checkout, plugins by their installed metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from executor_tasks import task_of

from mloc_tasks.errors import ConfigError
from mloc_tasks.executors import executor_for, find, missing_reason, plugin_task_types, registered
from mloc_tasks.executors.echo import EchoExecutor
from mloc_tasks.executors.registry import BUILT_IN, executor_class
from mloc_tasks.spec import StageSpec, task_types

# The README's executor; its first import names this project's package.
SEED_PLUGIN = """
from pathlib import Path

from mloc_tasks.executors import Executor, ExecutionError

class MyCustomExecutor(Executor):
    name = "my-executor"

    def run(self, task: dict, out_dir: Path) -> dict:
        # Your custom logic here
        result = {"ok": True, "message": "Task completed"}
        self.save_json(out_dir / "responses.json", result)
        return result
"""


def install(site: Path, *, distribution: str, module: str, source: str, entry_points: str) -> None:
    """Lay a distribution out as an installer does: its module beside its metadata."""
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{module}.py").write_text(source)
    metadata = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[mloc.executors]\n{entry_points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory of installed packages, on `sys.path`."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def test_built_in_executors_are_found_by_task_type() -> None:
    assert isinstance(executor_for(StageSpec.model_validate({"task_type": "echo"})), EchoExecutor)


def test_every_task_type_of_the_language_has_an_executor() -> None:
    assert BUILT_IN.keys() == task_types.BUILT_IN.keys()
    document = {"model": {"source": {"identifier": "a/b"}}}
    assert {name: missing_reason(name, document) for name in BUILT_IN} == dict.fromkeys(BUILT_IN)


def test_an_unknown_task_type_is_told_what_is_available() -> None:
    reason = missing_reason("inferense", {})
    assert reason is not None
    assert "no executor for task type 'inferense'" in reason
    assert "available here: dpo, echo, embedding, evaluate, grpo, inference, lora_sft, ppo, reward, sft" in reason


def test_vectors_are_made_by_vllm_where_its_block_asks_for_it() -> None:
    source = {"source": {"identifier": "a/b"}}
    assert executor_class("embedding", {"model": source}).family != "vllm"
    assert executor_class("embedding", {"model": {**source, "vllm": {}}}).family == "vllm"


def test_seeds_custom_executor_runs_as_a_plugin(site: Path, tmp_path: Path) -> None:
    install(
        site,
        distribution="acme-mloc",
        module="acme_executor",
        source=SEED_PLUGIN,
        entry_points="my-executor = acme_executor:MyCustomExecutor",
    )
    assert plugin_task_types() == {"my-executor"}
    assert "acme_executor" not in sys.modules, "listing imports no plugin"
    assert missing_reason("my-executor", {}) is None
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    task = task_of({"task_type": "my-executor"})

    result = executor_for(task.spec).run(task, out_dir)

    assert result == {"ok": True, "message": "Task completed"}
    assert json.loads((out_dir / "responses.json").read_text()) == result


def test_two_plugins_of_one_name_are_an_error_that_names_both(site: Path) -> None:
    for distribution, module in (("acme-one", "acme_one"), ("acme-two", "acme_two")):
        entry = f"twin = {module}:MyCustomExecutor"
        install(site, distribution=distribution, module=module, source=SEED_PLUGIN, entry_points=entry)
    with pytest.raises(ConfigError, match=r"acme-one .*acme-two|acme-two .*acme-one"):
        find("twin")


def test_plugin_cannot_take_the_place_of_a_built_in(site: Path) -> None:
    entry = "echo = acme:MyCustomExecutor"
    install(site, distribution="acme", module="acme", source=SEED_PLUGIN, entry_points=entry)
    with pytest.raises(ConfigError, match=r"mloc .* and acme "):
        find("echo")


def test_broken_plugin_is_named_and_leaves_the_others_usable(site: Path) -> None:
    entry = "broken = acme_broken:Missing"
    install(site, distribution="acme-broken", module="acme_broken", source="import no_such_module", entry_points=entry)
    assert "broken" in registered()
    with pytest.raises(ConfigError, match=r"broken.*acme-broken.*no_such_module"):
        executor_for(StageSpec.model_validate({"task_type": "broken"}))
    assert isinstance(executor_for(StageSpec.model_validate({"task_type": "echo"})), EchoExecutor)


def test_entry_point_named_otherwise_than_its_task_type_is_an_error(site: Path) -> None:
    entry = "other = acme_named:MyCustomExecutor"
    install(site, distribution="acme-named", module="acme_named", source=SEED_PLUGIN, entry_points=entry)
    with pytest.raises(ConfigError, match="takes the task types my-executor"):
        executor_for(StageSpec.model_validate({"task_type": "other"}))


def test_importing_executors_loads_no_model_library() -> None:
    code = (
        "import sys, mloc_tasks.executors as e; e.missing_reason('inference', {}); "
        "print([m for m in ('torch', 'transformers', 'celery', 'redis', 'boto3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
