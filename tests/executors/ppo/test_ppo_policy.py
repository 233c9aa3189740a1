"""The policy estimates the same numbers however its rows are put together, and knows what it was at first."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mloc_tasks.executors.ppo.policy import Policy, Text  # noqa: E402
from tests.executors.ppo.tiny_policy import EOS, VOCABULARY, adapted, tiny_model  # noqa: E402

TEXTS = [Text([0, 1, 2], [3, 4, EOS]), Text([5], [6]), Text([7, 7, 7, 7, 7], [1, 2, 3, 4, 5]), Text([2, 1], [])]


def by_hand(model: Any, text: Text, temperature: float) -> torch.Tensor:
    """Log-probabilities of one completion, by the model's own forward pass alone."""
    with torch.no_grad():
        logits = model(torch.tensor([[*text.prompt, *text.completion]])).logits[0]
    logs = (logits / temperature).log_softmax(-1)
    start = len(text.prompt) - 1
    return torch.stack([logs[start + place, token] for place, token in enumerate(text.completion)])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_model_at_the_temperature(temperature: float) -> None:
    model = tiny_model().eval()
    found = Policy(model, temperature=temperature).estimates(TEXTS).logprobs
    for row, text in enumerate(TEXTS[:3]):
        torch.testing.assert_close(found[row, : len(text.completion)], by_hand(model, text, temperature))
    assert found.shape == (4, 5)
    assert not found[3].any(), "a completion without a token has no estimates"


def test_padding_changes_no_number() -> None:
    policy = Policy(tiny_model())
    torch.nn.init.normal_(policy.value_head.weight)
    together = policy.estimates(TEXTS)
    in_passes = policy.estimates_without_gradient(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = policy.estimates([text])
        for one, all_, passed in zip(alone, together, in_passes, strict=True):
            torch.testing.assert_close(all_[row, : len(text.completion)], one[0])
            torch.testing.assert_close(passed[row, : len(text.completion)], one[0])


def test_rows_are_passed_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(tiny_model())
    whole = policy.estimates_without_gradient(TEXTS)
    monkeypatch.setattr("mloc_tasks.executors.ppo.policy.FORWARD_TOKENS", 7)
    for parted, expected in zip(policy.estimates_without_gradient(TEXTS), whole, strict=True):
        torch.testing.assert_close(parted, expected)


def test_a_model_that_caps_its_logits_is_computed_as_a_whole() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.5, attn_implementation="eager",
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(50)  # so that the cap is felt
    policy = Policy(model)
    found = policy.estimates(TEXTS)
    for row, text in enumerate(TEXTS[:3]):
        torch.testing.assert_close(found.logprobs[row, : len(text.completion)], by_hand(model, text, 1.0))
    assert found.values.shape == found.logprobs.shape


def test_the_value_s_gradient_ends_at_its_head() -> None:
    policy = Policy(tiny_model())
    policy.estimates(TEXTS).values.sum().backward()
    assert all(weights.grad is None for weights in policy.model.parameters())
    assert policy.value_head.weight.grad is not None
    assert policy.value_head.weight.grad.any()


@pytest.mark.parametrize("adapter", [False, True])
def test_the_reference_is_the_model_as_it_was(adapter: bool) -> None:
    model = adapted(tiny_model()) if adapter else tiny_model()
    policy = Policy(model, new_adapter=adapter)
    at_first = policy.estimates(TEXTS).logprobs.detach()
    assert torch.equal(policy.reference_logprobs(TEXTS), at_first)
    with torch.no_grad():
        for weights in policy.trained_weights().values():
            weights.add_(0.05)
    assert not torch.allclose(policy.estimates(TEXTS).logprobs, at_first, atol=1e-3), "it has been trained"
    torch.testing.assert_close(policy.reference_logprobs(TEXTS), at_first)
    assert not torch.allclose(policy.estimates(TEXTS).logprobs, at_first, atol=1e-3), "and still is"


def test_an_adapter_trained_before_is_part_of_the_reference() -> None:
    model = adapted(tiny_model())
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.1)
    policy = Policy(model)
    assert torch.equal(policy.reference_logprobs(TEXTS), policy.estimates(TEXTS).logprobs)


@pytest.mark.parametrize("adapter", [False, True])
def test_recomputed_activations_give_the_same_gradients(adapter: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = adapted(tiny_model()) if adapter else tiny_model()
        policy = Policy(model, new_adapter=adapter, checkpointing=checkpointing)
        policy.estimates(TEXTS).logprobs.sum().backward()
        gradients.append({name: weights.grad for name, weights in policy.trained_weights().items()})
    assert any(each is not None and each.any() for each in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
