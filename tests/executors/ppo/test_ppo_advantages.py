"""Masked statistics and generalised advantage estimation give what a hand computes."""

from __future__ import annotations

import math

import pytest

from mloc_tasks.executors.ppo.advantages import generalised_advantages
from mloc_tasks.executors.ppo.mask import masked_mean, masked_moments, masked_variance, whitened

torch = pytest.importorskip("torch")

NAN = math.nan
TWO_LENGTHS = [[True, True, True], [True, True, False]]


def test_advantages_and_returns_of_two_lengths_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, NAN]])
    values = torch.tensor([[0.5, 1.0, 1.5], [2.0, 1.0, NAN]])
    found = generalised_advantages(rewards, values, torch.tensor(TWO_LENGTHS), gamma=0.5, lam=0.5)
    # First row, from its end: deltas 2 - 1.5 = 0.5; 0 + 0.5 * 1.5 - 1 = -0.25; 1 + 0.5 * 1 - 0.5 = 1.
    # Advantages 0.5; -0.25 + 0.25 * 0.5 = -0.125; 1 + 0.25 * -0.125 = 0.96875.
    # Second row: deltas -1 - 1 = -2; 0 + 0.5 * 1 - 2 = -1.5. Advantages -2; -1.5 + 0.25 * -2 = -2.
    torch.testing.assert_close(found.advantages, torch.tensor([[0.96875, -0.125, 0.5], [-2.0, -2.0, 0.0]]))
    torch.testing.assert_close(found.returns, torch.tensor([[1.46875, 0.875, 2.0], [0.0, -1.0, 0.0]]))


def test_lambda_0_is_the_td_error_and_lambda_1_the_rewards_to_come() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[3.0, 5.0, 7.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    td = generalised_advantages(rewards, values, mask, gamma=1.0, lam=0.0)
    assert td.advantages.tolist() == [[1 + 5 - 3, 2 + 7 - 5, 4 - 7]]
    to_come = generalised_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    assert to_come.returns.tolist() == [[1 + 2 + 4, 2 + 4, 4]]


@pytest.mark.parametrize("seed", range(5))
def test_where_a_completion_stands_in_its_row_does_not_matter(seed: int) -> None:
    torch.manual_seed(seed)
    rewards, values = torch.randn(1, 4), torch.randn(1, 4)
    whole = generalised_advantages(rewards, values, torch.ones(1, 4, dtype=torch.bool), gamma=0.9, lam=0.8)
    rubbish = torch.full((1, 3), NAN)
    mask = torch.tensor([[False] * 3 + [True] * 4 + [False] * 3])
    wide = [torch.cat([rubbish, row, rubbish], dim=1) for row in (rewards, values)]
    padded = generalised_advantages(*wide, mask, gamma=0.9, lam=0.8)
    for alone, inside in zip(whole, padded, strict=True):
        torch.testing.assert_close(inside[mask], alone[0], rtol=0, atol=0)
        assert not inside[~mask].any()


def test_advantages_carry_no_gradient() -> None:
    values = torch.zeros(1, 2, requires_grad=True)
    found = generalised_advantages(torch.ones(1, 2), values, torch.ones(1, 2, dtype=torch.bool), gamma=1, lam=1)
    assert not found.advantages.requires_grad
    assert not found.returns.requires_grad


def test_half_precision_is_computed_in_single() -> None:
    half = torch.ones(1, 2, dtype=torch.bfloat16)
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert generalised_advantages(half, half, mask, gamma=1, lam=1).advantages.dtype == torch.float32
    assert whitened(half, mask).dtype == torch.float32


def test_mean_and_variance_by_hand() -> None:
    values, mask = (
        torch.tensor([[2.0, 4.0, NAN], [6.0, NAN, NAN]]),
        torch.tensor([[True, True, False], [True, False, False]]),
    )
    assert masked_mean(values, mask) == 4
    assert masked_variance(values, mask) == (4 + 0 + 4) / 2
    torch.testing.assert_close(whitened(values, mask), torch.tensor([[-1.0, 0, 0], [1, 0, 0]]))
    torch.testing.assert_close(whitened(values, mask, shift_mean=False), torch.tensor([[3.0, 4, 0], [5, 0, 0]]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitened_values_have_variance_1_under_the_mask(seed: int, shift_mean: bool) -> None:
    torch.manual_seed(seed)
    values, mask = torch.randn(6, 9) * 7 + 3, torch.rand(6, 9) < 0.6
    white = whitened(values, mask, shift_mean=shift_mean)
    assert masked_variance(white, mask) == pytest.approx(1, abs=1e-5)
    assert masked_mean(white, mask) == pytest.approx(0 if shift_mean else float(masked_mean(values, mask)), abs=1e-5)


def test_too_few_tokens_to_whiten_give_finite_numbers() -> None:
    one = torch.tensor([[True, False]])
    assert whitened(torch.tensor([[5.0, NAN]]), one).tolist() == [[0, 0]]
    assert whitened(torch.tensor([[5.0, NAN]]), one, shift_mean=False).tolist() == [[5, 0]]
    assert masked_mean(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)) == 0


def test_moments_of_two_parts_add_up_to_those_of_the_whole() -> None:
    torch.manual_seed(0)
    values, mask = torch.randn(5, 7, dtype=torch.float64), torch.rand(5, 7) < 0.5
    whole = masked_moments(values, mask)
    added = masked_moments(values[:2], mask[:2]) + masked_moments(values[2:], mask[2:])
    for name in ("count", "mean", "squared_deviations", "variance"):
        torch.testing.assert_close(getattr(added, name), getattr(whole, name))
    part = whitened(values[:2], mask[:2], moments=added)
    torch.testing.assert_close(part, whitened(values, mask)[:2])
