"""LoRA adapters change what a model answers, by what they were trained to add and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ModelError
from mloc_tasks.models.adapters import merge_adapters, require_peft

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


def tiny_model(*, width: int = 32) -> Any:
    """A Llama of two layers with the same random weights each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    return LlamaForCausalLM(config).eval()


def save_adapter(directory: Path, *, seed: int = 1, **config: Any) -> str:
    """An adapter for `tiny_model` whose weights are random instead of zero, as if it had been trained."""
    import torch
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **config)
    model = get_peft_model(tiny_model(), settings)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_()
    model.save_pretrained(str(directory))
    return str(directory)


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.arange(8).unsqueeze(0)).logits


def test_missing_peft_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(ModelError, match="not installed") as caught:
        require_peft()
    assert "pip install" in caught.value.hint


@needs_peft
def test_merged_model_answers_as_the_adapter_on_top_does(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    adapter = save_adapter(tmp_path / "adapter")
    expected = logits(PeftModel.from_pretrained(tiny_model(), adapter))
    merged = merge_adapters(tiny_model(), [adapter])
    assert type(merged) is type(tiny_model())
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(tiny_model()), expected, atol=1e-2)


@needs_peft
def test_adapters_one_after_the_other_add_up_in_any_order(tmp_path: Path) -> None:
    import torch

    first = save_adapter(tmp_path / "first", seed=1)
    second = save_adapter(tmp_path / "second", seed=2)
    both = logits(merge_adapters(tiny_model(), [first, second]))
    torch.testing.assert_close(logits(merge_adapters(tiny_model(), [second, first])), both, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(merge_adapters(tiny_model(), [first])), both, atol=1e-2)


@needs_peft
def test_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"cannot be put on this model: .*size mismatch") as caught:
        merge_adapters(tiny_model(width=64), [adapter])
    assert "trained on this very model" in caught.value.hint


@needs_peft
def test_adapter_whose_weights_have_other_names_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = save_adapter(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name.replace("q_proj", "query"): value for name, value in load_file(file).items()}, file)
    with pytest.raises(ModelError, match="missing adapter keys"):
        merge_adapters(tiny_model(), [adapter])
