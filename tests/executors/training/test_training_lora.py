"""What an adapter trains stands in float32, whatever the model under it is loaded in."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from mloc_tasks.executors.training.lora import trained_in_float32, with_new_adapter  # noqa: E402


def gpt2() -> Any:
    """It has biases, layer norms and an embedding that is its head too."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=24, n_layer=2, n_head=2)).bfloat16()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    "given", [{"bias": "all"}, {"bias": "lora_only"}, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["wte"]}]
)
def test_trained_biases_and_modules_are_in_float32_and_compute_with_a_model_in_16_bits(given: dict[str, Any]) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules="all-linear", fan_in_fan_out=True, task_type="CAUSAL_LM", **given)
    model = with_new_adapter(gpt2(), config)
    trained_in_float32(model)
    weights = dict(model.named_parameters())
    assert {each.dtype for each in weights.values() if each.requires_grad} == {torch.float32}
    assert weights["base_model.model.transformer.h.0.attn.c_attn.base_layer.weight"].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=torch.tensor([[1, 2, 3]])).logits.float().sum().backward()
    assert all(each.grad is not None for each in weights.values() if each.requires_grad)


def test_what_is_trained_is_converted_and_what_is_frozen_stays() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).to(torch.bfloat16)
    layers[0].weight.requires_grad_(False)
    trained = layers[1].weight
    trained_in_float32(layers)
    formats = [parameter.dtype for parameter in layers.parameters()]
    assert formats == [torch.bfloat16, torch.float32, torch.float32, torch.float32]
    assert layers[1].weight is trained


def test_a_model_of_which_nothing_in_16_bits_is_trained_stays_as_it_is() -> None:
    from peft import LoraConfig

    model = with_new_adapter(
        gpt2(), LoraConfig(r=2, target_modules="all-linear", fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    before = {name: weights.dtype for name, weights in model.named_parameters()}
    trained_in_float32(model)
    assert {name: weights.dtype for name, weights in model.named_parameters()} == before
