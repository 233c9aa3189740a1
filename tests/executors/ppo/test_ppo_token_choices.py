"""Log-probabilities and entropies of chosen tokens, whatever the precision and the size of the pieces."""

from __future__ import annotations

import math

import pytest

from mloc_tasks.executors.ppo.token_choices import token_choices

torch = pytest.importorskip("torch")


def rollout(seed: int = 0, vocabulary: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, tokens (-100 in the padding) and mask of three completions of 4, 1 and 0 tokens."""
    torch.manual_seed(seed)
    mask = torch.arange(5) < torch.tensor([[4], [1], [0]])
    tokens = torch.randint(vocabulary, (3, 5)).masked_fill(~mask, -100)
    return torch.randn(3, 5, vocabulary, dtype=torch.float64), tokens, mask


def test_two_tokens_by_hand() -> None:
    logits = torch.tensor([[[math.log(1.0), math.log(3.0)], [0.0, 0.0]]], dtype=torch.float64)
    found = token_choices(logits, torch.tensor([[1, 0]]), torch.tensor([[True, True]]))
    undecided = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    torch.testing.assert_close(found.logprobs, torch.tensor([[0.75, 0.5]], dtype=torch.float64).log())
    torch.testing.assert_close(found.entropies, torch.tensor([[undecided, math.log(2)]], dtype=torch.float64))


@pytest.mark.parametrize("piece_values", [1, 7, 20, 75, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_pieces_give_what_log_softmax_of_everything_gives(piece_values: int, temperature: float) -> None:
    logits, tokens, mask = rollout()
    found = token_choices(logits, tokens, mask, temperature=temperature, piece_values=piece_values)
    logs = (logits / temperature).log_softmax(-1)
    expected = logs.gather(-1, tokens.clamp(min=0)[..., None])[..., 0].masked_fill(~mask, 0)
    torch.testing.assert_close(found.logprobs, expected)
    torch.testing.assert_close(found.entropies, -(logs.exp() * logs).sum(-1).masked_fill(~mask, 0))


@pytest.mark.parametrize("piece_values", [7, 10_000])
def test_gradients_agree_with_finite_differences(piece_values: int) -> None:
    logits, tokens, mask = rollout(vocabulary=4)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda given: tuple(token_choices(given, tokens, mask, temperature=0.7, piece_values=piece_values)), logits
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_loses_nothing_beyond_its_logits_rounding(dtype: torch.dtype) -> None:
    logits, tokens, mask = rollout(vocabulary=500)
    logits = (logits * 20 + 300).to(dtype)
    found = token_choices(logits, tokens, mask)
    exact = token_choices(logits.double(), tokens, mask)
    assert found.logprobs.dtype == torch.float32
    torch.testing.assert_close(found.logprobs.double(), exact.logprobs, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(found.entropies.double(), exact.entropies, rtol=1e-4, atol=1e-4)


def test_barred_tokens_and_rubbish_in_the_padding_leave_everything_finite() -> None:
    logits, tokens, mask = rollout()
    tokens = tokens.clamp(max=5)
    logits[..., 6] = -math.inf
    clean = token_choices(logits, tokens, mask)
    logits = logits.masked_fill(~mask[..., None], math.nan).requires_grad_()
    found = token_choices(logits, tokens, mask)
    assert torch.isfinite(found.entropies).all()
    for one, another in zip(clean, found, strict=True):
        torch.testing.assert_close(one, another)
    (found.logprobs + found.entropies).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[~mask].any()


def test_nothing_of_the_vocabulary_s_width_is_kept_but_the_logits_themselves() -> None:
    logits, tokens, mask = rollout(vocabulary=50)
    logits = logits.bfloat16().requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        found = token_choices(logits[:, :-1], tokens[:, 1:], mask[:, 1:], piece_values=100)
    wide = [tensor for tensor in kept if tensor.shape[-1:] == (50,)]
    assert {tensor.untyped_storage().data_ptr() for tensor in wide} == {logits.untyped_storage().data_ptr()}
    found.logprobs.sum().backward()
    assert logits.grad.dtype == torch.bfloat16
