"""Divergence from the reference, the weight of its penalty, and the rewards made of it."""

from __future__ import annotations

import math

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.ppo.kl import (
    AdaptiveKLController,
    FixedKLController,
    KLController,
    k3_per_token,
    kl_per_completion,
    kl_per_token,
)
from mloc_tasks.executors.ppo.rewards import adjusted_scores, token_rewards

torch = pytest.importorskip("torch")

NAN = math.nan


def test_both_estimates_by_hand() -> None:
    policy, reference = torch.tensor([[-1.0, -2.0, NAN]]), torch.tensor([[-1.5, -1.5, NAN]])
    mask = torch.tensor([[True, True, False]])
    kl = kl_per_token(policy, reference, mask)
    assert kl.tolist() == [[0.5, -0.5, 0]]
    assert kl_per_completion(kl, mask).tolist() == [0]
    k3 = [math.exp(-0.5) - 1 + 0.5, math.exp(0.5) - 1 - 0.5, 0]
    torch.testing.assert_close(k3_per_token(policy, reference, mask), torch.tensor([k3]))


def test_both_estimates_average_to_the_true_divergence() -> None:
    torch.manual_seed(0)
    policy, reference = torch.randn(2, 5, dtype=torch.float64).log_softmax(-1)
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True)[None]
    true = float((policy.exp() * (policy - reference)).sum())
    for estimate in (kl_per_token, k3_per_token):
        found = estimate(policy[drawn], reference[drawn], torch.ones_like(drawn, dtype=torch.bool))
        assert float(found.mean()) == pytest.approx(true, rel=0.02)


def test_a_policy_that_is_its_reference_has_diverged_by_exactly_0() -> None:
    logprobs = torch.randn(3, 4)
    mask = torch.rand(3, 4) < 0.5
    assert not kl_per_token(logprobs, logprobs, mask).any()
    assert not k3_per_token(logprobs, logprobs, mask).any()


@pytest.mark.parametrize(
    ("kl", "completions", "expected"),
    [
        (6.0, 50, 0.1),  # on target
        (6.6, 50, 0.1 * (1 + 0.1 * 0.5)),
        (60.0, 50, 0.1 * (1 + 0.2 * 0.5)),  # the error is clipped
        (-1.0, 50, 0.1 * (1 - 0.2 * 0.5)),  # an estimate may be negative
        (0.0, 5000, 0.1 * (1 - 0.2)),  # a rollout counts as one horizon at most
    ],
)
def test_the_adaptive_weight_by_hand(kl: float, completions: int, expected: float) -> None:
    controller = AdaptiveKLController(coefficient=0.1, target=6.0, horizon=100)
    controller.update(kl, completions=completions)
    assert controller.coefficient == pytest.approx(expected)


def test_the_fixed_weight_stays() -> None:
    controller: KLController = FixedKLController(coefficient=0.05)
    controller.update(100.0, completions=64)
    assert controller.coefficient == 0.05


@pytest.mark.parametrize(
    "controller", [FixedKLController(coefficient=1), AdaptiveKLController(coefficient=1, target=1, horizon=1)]
)
def test_a_divergence_that_is_no_number_is_an_error(controller: KLController) -> None:
    with pytest.raises(ExecutionError, match="the policy has diverged"):
        controller.update(NAN, completions=1)
    assert controller.coefficient == 1


@pytest.mark.parametrize("name", ["coefficient", "target", "horizon"])
def test_an_adaptive_weight_needs_positive_settings(name: str) -> None:
    with pytest.raises(ExecutionError, match=f"needs a {name} above 0, not 0"):
        AdaptiveKLController(**{"coefficient": 1.0, "target": 1.0, "horizon": 1.0, name: 0.0})


def test_rewards_are_the_penalty_and_the_score_at_the_last_token() -> None:
    mask = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    kl = torch.tensor([[1.0, 2.0, NAN], [NAN, 3.0, -4.0], [NAN, NAN, NAN]])
    rewards = token_rewards(torch.tensor([10.0, 20.0, 30.0]), kl, mask, coefficient=0.5)
    assert rewards.tolist() == [[-0.5, 10 - 1, 0], [0, -1.5, 20 + 2], [0, 0, 0]]


def test_scores_are_clipped_before_penalties_are_taken() -> None:
    adjusted = adjusted_scores(
        torch.tensor([9.0, -9.0, 1.0]),
        lengths=torch.tensor([10, 12, 3]),
        ended=torch.tensor([True, False, False]),
        clip=5.0,
        missing_eos_penalty=2.0,
        length_penalty=0.5,
        free_tokens=10,
    )
    assert adjusted.tolist() == [5, -5 - 2 - 0.5 * 2, 1 - 2]


def test_scores_without_adjustments_stay_what_they_are() -> None:
    scores = torch.tensor([0.25, -7.0])
    adjusted = adjusted_scores(scores, lengths=torch.tensor([1, 2]), ended=torch.tensor([False, True]))
    assert adjusted.tolist() == scores.tolist()


def test_a_score_that_is_no_number_names_its_completion() -> None:
    with pytest.raises(ExecutionError, match="completion 1 of the rollout is nan"):
        adjusted_scores(torch.tensor([0.0, NAN]), lengths=torch.tensor([1, 1]), ended=torch.tensor([True, True]))
