"""The clipped losses: by hand, by finite differences, and what must never change them."""

from __future__ import annotations

import math

import pytest

from mloc_tasks.executors.ppo.losses import explained_variance, far_over_target, policy_loss, value_loss
from mloc_tasks.executors.ppo.mask import masked_mean
from mloc_tasks.executors.ppo.token_choices import token_choices

torch = pytest.importorskip("torch")

NAN = math.nan


def test_the_policy_loss_by_hand() -> None:
    ratios, advantages = [1.5, 0.5, 1.1, 0.7], [1.0, -1.0, 2.0, 1.0]
    old = torch.tensor([[-1.0, -2.0, NAN], [-3.0, -0.5, NAN]])
    new = old + torch.tensor([[*ratios[:2], 1], [*ratios[2:], 1]]).log()
    mask = torch.tensor([[True, True, False], [True, True, False]])
    found = policy_loss(new, old, torch.tensor([[*advantages[:2], NAN], [*advantages[2:], NAN]]), mask, clip=0.2)
    # min(1.5, 1.2) = 1.2, cut; min(-0.5, -0.8) = -0.8, cut; min(2.2, 2.2) = 2.2; min(0.7, 0.8) = 0.7
    assert float(found.loss) == pytest.approx(-(1.2 - 0.8 + 2.2 + 0.7) / 4)
    assert float(found.clip_fraction) == 0.5
    assert float(found.approx_kl) == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 4, abs=1e-6)


def test_rounding_clips_no_value() -> None:
    old = torch.randn(50, 20)
    mask = torch.ones(50, 20, dtype=torch.bool)
    assert value_loss(old + 1e-3, old, torch.randn(50, 20), mask, clip=0.2).clip_fraction == 0


def test_the_value_loss_by_hand() -> None:
    values, old, returns = ([1.0, 3.0, 0.5, NAN], [1.5, 2.0, 0.0, NAN], [2.0, 1.0, 1.0, NAN])
    mask = torch.tensor([[True, True, True, False]])
    tensors = [torch.tensor([row]) for row in (values, old, returns)]
    found = value_loss(*tensors, mask, clip=0.2)
    # max(1, (1.3 - 2)^2) = 1; max(4, (2.2 - 1)^2) = 4; max(0.25, (0.2 - 1)^2) = 0.64, the clipped one
    assert float(found.loss) == pytest.approx((1 + 4 + 0.64) / 3 / 2)
    assert float(found.clip_fraction) == pytest.approx(1 / 3)
    unclipped = value_loss(*tensors, mask, clip=None)
    assert float(unclipped.loss) == pytest.approx((1 + 4 + 0.25) / 3 / 2)
    assert unclipped.clip_fraction == 0


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    old, advantages = (torch.randn(2, 4, dtype=torch.float64) for _ in range(2))
    new = (old + 0.4 * torch.randn(2, 4, dtype=torch.float64)).requires_grad_()
    assert 0 < policy_loss(new, old, advantages, mask, clip=0.2).clip_fraction < 1
    assert torch.autograd.gradcheck(lambda given: policy_loss(given, old, advantages, mask, clip=0.2).loss, new)
    assert 0 < value_loss(new, old, advantages, mask, clip=0.2).clip_fraction < 1
    assert torch.autograd.gradcheck(lambda given: value_loss(given, old, advantages, mask, clip=0.2).loss, new)
    assert torch.autograd.gradcheck(lambda given: value_loss(given, old, advantages, mask, clip=None).loss, new)


def test_gradients_of_the_whole_objective_reach_a_model_s_weights_as_finite_differences_say() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    tokens = torch.randint(4, (2, 4))
    old, advantages, returns = (torch.randn(2, 3, dtype=torch.float64) for _ in range(3))
    weights = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 3), (4, 3), (1, 3))]

    def objective(embedding: torch.Tensor, head: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        hidden = embedding[tokens[:, :-1]]
        choices = token_choices(hidden @ head.T, tokens[:, 1:], mask, temperature=0.7, piece_values=8)
        policy = policy_loss(choices.logprobs, old - 1.3, advantages, mask, clip=0.2)
        error = value_loss((hidden @ value.T)[..., 0], old, returns, mask, clip=0.2)
        return policy.loss + 0.1 * error.loss - 0.01 * masked_mean(choices.entropies, mask)

    assert torch.autograd.gradcheck(objective, weights)


def test_ratio_1_has_no_clip_no_divergence_and_the_policy_gradient() -> None:
    torch.manual_seed(0)
    logprobs, advantages, mask = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5), torch.rand(3, 5) < 0.6
    found = policy_loss(logprobs, logprobs, advantages, mask, clip=0.2)
    assert found.clip_fraction == 0
    assert found.approx_kl == 0
    found.loss.backward()
    torch.testing.assert_close(logprobs.grad, -advantages * mask / mask.sum())


def test_padding_changes_no_loss_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    new, old, other, mask = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 5), torch.rand(3, 5) < 0.6
    wide_mask = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    wide_new, wide_old, wide_other = (
        torch.cat([row.masked_fill(~mask, NAN), torch.full((3, 4), math.inf)], dim=1) for row in (new, old, other)
    )
    wide_new.requires_grad_()
    for loss in (policy_loss, value_loss):
        narrow = loss(new, old, other, mask, clip=0.2)
        wide = loss(wide_new, wide_old, wide_other, wide_mask, clip=0.2)
        for one, another in zip(narrow, wide, strict=True):
            torch.testing.assert_close(one, another)
        (gradient,) = torch.autograd.grad(wide.loss, wide_new)
        assert torch.isfinite(gradient).all()
        assert not gradient[~wide_mask].any()
    assert explained_variance(new, other, mask) == pytest.approx(explained_variance(wide_new, wide_other, wide_mask))


def test_slices_of_a_mini_batch_add_up_to_it() -> None:
    torch.manual_seed(0)
    new, old, other = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    mask = torch.arange(6) < torch.tensor([[1], [6], [3], [2]])
    for loss in (policy_loss, value_loss):
        whole = loss(new, old, other, mask, clip=0.2)
        parts = [
            loss(new[rows], old[rows], other[rows], mask[rows], clip=0.2, denominator=mask.sum())
            for rows in (slice(0, 1), slice(1, 4))
        ]
        for figure, first, second in zip(whole, *parts, strict=True):
            torch.testing.assert_close(figure, first + second)


def test_explained_variance_by_hand() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, NAN]]), torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.full((1, 4), 7.0), returns, mask) == 0
    # Errors -1, 0, 1 doubled against returns' own deviations of 1: 1 - 4 / 1.
    assert explained_variance(torch.tensor([[3.0, 2.0, 1.0, NAN]]), returns, mask) == -3
    assert explained_variance(returns, torch.ones(1, 4), mask) is None


def test_passes_end_when_the_divergence_is_far_over_its_target() -> None:
    assert not far_over_target(0.15, target_kl=0.1)
    assert far_over_target(0.16, target_kl=0.1)
    assert far_over_target(NAN, target_kl=0.1)
