"""The loop as a whole: it learns, it repeats itself, and it goes on where it was killed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mloc_tasks.errors import ExecutionError  # noqa: E402
from mloc_tasks.executors.ppo import state  # noqa: E402
from mloc_tasks.executors.ppo.experience import Experience, estimated, experience_of  # noqa: E402
from mloc_tasks.executors.ppo.group import Group  # noqa: E402
from mloc_tasks.executors.ppo.learner import Learner  # noqa: E402
from mloc_tasks.executors.ppo.minibatches import mini_batches  # noqa: E402
from mloc_tasks.executors.ppo.settings import PpoSettings  # noqa: E402
from mloc_tasks.executors.ppo.trainer import gradients  # noqa: E402
from mloc_tasks.executors.scoring.function import function_scorer  # noqa: E402
from tests.executors.ppo.tiny_policy import (  # noqa: E402
    EOS,
    PROMPTS,
    VOCABULARY,
    adapted,
    count_of_d,
    curve_of,
    learner_of,
    sampler_of,
    settings_of,
    tiny_model,
)


class Killed(BaseException):
    pass


def model_of(adapter: bool) -> Any:
    return adapted(tiny_model()) if adapter else tiny_model()


def experience_at(learner: Learner, settings: PpoSettings) -> Experience:
    """A first rollout."""
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(settings.batch_size)]
    samples = sampler_of(learner.policy, settings).draw(
        [each.ids for each in prompts], step=0, places=range(settings.batch_size)
    )
    scores = count_of_d([each.given for each in prompts], [each.text for each in samples])
    made = estimated(learner.policy, samples)
    return experience_of(samples, scores, made, settings, kl_coef=0.05, device=learner.policy.device)


def gpt2() -> Any:
    """Llama computes its norms in float32, too coarsely for differences; this one also shares weights with its head."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=24, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=EOS
    )
    return GPT2LMHeadModel(config)


def same(left: list[dict[str, float]], right: list[dict[str, float]]) -> bool:
    return repr(left) == repr(right)  # NaN included


@pytest.mark.parametrize("adapter", [False, True])
def test_a_toy_task_is_solved(adapter: bool) -> None:
    settings = settings_of(
        steps=20, batch_size=24, rows_per_update=12, learning_rate=5e-3 if adapter else 4e-3, kl_coef=0.02, max_tokens=4
    )
    model = tiny_model()
    if adapter:
        with torch.no_grad():  # a head of such small weights that is not trained lets no token be likelier
            model.lm_head.weight.mul_(10)
    curve = curve_of(learner_of(adapted(model) if adapter else model, settings), settings)
    rewards = [step["mean_reward"] for step in curve]
    assert rewards[0] < 1
    assert sum(rewards[-5:]) / 5 > 3, "four d's are the best there is"
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert curve[-1]["kl"] > 1


def test_the_same_seed_gives_the_same_curve() -> None:
    curves = [curve_of(learner_of(tiny_model(), made), made) for made in (settings_of(), settings_of())]
    assert same(*curves)
    other = settings_of(seed=1)
    assert not same(curves[0], curve_of(learner_of(tiny_model(), other), other))


@pytest.mark.parametrize("adapter", [False, True])
def test_killed_twice_and_resumed_it_has_the_curve_of_an_undisturbed_run(adapter: bool, tmp_path: Path) -> None:
    settings = settings_of(steps=7, schedule="linear")
    undisturbed = curve_of(learner_of(model_of(adapter), settings), settings)
    pieced: list[dict[str, float]] = []
    for attempt, dies_after in enumerate((2, 4, None)):
        learner = learner_of(model_of(adapter), settings)
        if attempt:
            state.restore(learner, tmp_path / str(attempt - 1))
        begun = learner.step

        def after(step: int, learner: Learner = learner, attempt: int = attempt, dies: int | None = dies_after) -> None:
            if dies is not None and step < dies:
                state.save(learner, tmp_path / str(attempt))
            if step == dies:  # a step beyond the checkpoint is done in vain
                raise Killed

        part: list[dict[str, float]] = []
        try:
            part = curve_of(learner, settings, after_step=after)
        except Killed:
            part = undisturbed[begun:dies_after]  # what a resumed run keeps of the lines before its checkpoint
        pieced += part
    assert same(pieced[-3:], undisturbed[-3:])
    assert len(pieced) == len(undisturbed)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    settings = settings_of()
    state.save(learner_of(adapted(tiny_model()), settings), tmp_path)
    with pytest.raises(ExecutionError, match="another model"):
        state.restore(learner_of(tiny_model(), settings), tmp_path)


def test_the_first_ratio_is_one() -> None:
    settings = settings_of(steps=1, epochs=1, rows_per_update=8)
    (step,) = curve_of(learner_of(tiny_model(), settings), settings)
    assert step["approx_kl"] == pytest.approx(0, abs=1e-9)
    assert step["clip_fraction"] == 0
    # With whitened advantages and ratios of 1, the loss is their mean.
    assert step["policy_loss"] == pytest.approx(0, abs=1e-5)


def test_slices_and_padding_change_no_gradient() -> None:
    settings = settings_of(max_tokens=10)
    learner = learner_of(tiny_model(), settings)
    experience = experience_at(learner, settings)
    made = []
    for slices in (1, 3, 8):
        learner.forget_gradients()
        (batch,) = mini_batches(8, mini_batch_size=8, slices=slices, seed=0, step=0, epoch=0)
        measured = gradients(learner, experience, batch, settings, group=Group())
        made.append((measured, [each.clone() for each in learner.gradients()]))
    for measured, found in made[1:]:
        torch.testing.assert_close(measured, made[0][0])
        for one, whole in zip(found, made[0][1], strict=True):
            torch.testing.assert_close(one, whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("of_head", [False, True])
def test_gradients_of_the_whole_loss_are_the_finite_differences(of_head: bool) -> None:
    # The value's error does not move the policy, though the policy moves the value: its loss is left out there.
    settings = settings_of(
        max_tokens=5, entropy_coef=0.03, vf_coef=0.5 if of_head else 0.0, cliprange=0.9, cliprange_value=None
    )
    learner = learner_of(gpt2(), settings)
    experience = experience_at(learner, settings)
    policy = learner.policy
    policy.model.double()
    policy.value_head.double()
    checked = dict(policy.value_head.named_parameters()) if of_head else policy.trained_weights()
    torch.manual_seed(1)
    with torch.no_grad():  # away from ratios of 1 and values of 0
        for weights in checked.values():
            weights.add_(torch.randn_like(weights) * 0.01)
    (batch,) = mini_batches(8, mini_batch_size=8, slices=2, seed=0, step=0, epoch=0)

    def loss() -> float:
        learner.forget_gradients()
        return float(gradients(learner, experience, batch, settings, group=Group())[0])

    loss()
    analytic = {name: weights.grad.clone() for name, weights in checked.items() if weights.grad is not None}
    assert analytic.keys() == checked.keys()
    step = 1e-5
    for name, weights in checked.items():
        direction = torch.randn_like(weights)
        ends = []
        for move in (step, -2 * step):
            with torch.no_grad():
                weights.add_(direction, alpha=move)
            ends.append(loss())
        with torch.no_grad():
            weights.add_(direction, alpha=step)
        slope = float((analytic[name] * direction).sum())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-8), name


def test_the_learning_rate_rises_over_the_warm_up() -> None:
    settings = settings_of(steps=4, schedule="constant_with_warmup", warmup_steps=2, learning_rate=0.01)
    rates = [step["learning_rate"] for step in curve_of(learner_of(tiny_model(), settings), settings)]
    assert rates == pytest.approx([0, 0.005, 0.01, 0.01])


def test_passes_end_once_the_policy_is_far_from_the_one_that_sampled() -> None:
    free = settings_of(steps=2, learning_rate=0.02)
    tight = settings_of(steps=2, learning_rate=0.02, target_kl=1e-4)
    unhindered, stopped = (curve_of(learner_of(tiny_model(), each), each) for each in (free, tight))
    assert unhindered[0]["updates"] == 4
    assert stopped[0]["updates"] < 4
    assert stopped[1]["kl"] < unhindered[1]["kl"]


def test_longer_completions_earn_less_under_a_length_penalty() -> None:
    settings = settings_of(steps=20, batch_size=24, rows_per_update=12, max_tokens=6, length_penalty=1.0, kl_coef=0.01)
    curve = curve_of(learner_of(tiny_model(), settings), settings, scorer=lambda _, texts, **__: [0.0] * len(texts))
    assert curve[-1]["completion_tokens"] < curve[0]["completion_tokens"] - 1


def test_rewards_all_alike_leave_no_variance_to_explain_and_no_figure_that_is_no_number() -> None:
    settings = settings_of(steps=1, lam=1.0, kl_coef=0.0)
    (step,) = curve_of(learner_of(tiny_model(), settings), settings, scorer=lambda _, texts, **__: [1.0] * len(texts))
    assert "explained_variance" not in step
    assert all(map(math.isfinite, step.values()))


def test_a_reward_that_is_no_number_ends_the_training_and_says_for_what() -> None:
    settings = settings_of()
    with pytest.raises(ExecutionError, match="gave nan for the completion"):
        curve_of(learner_of(tiny_model(), settings), settings, scorer=function_scorer(f"{__name__}:nan_rewards"))
    with pytest.raises(ExecutionError, match="returned 1 rewards for 8 completions"):
        curve_of(learner_of(tiny_model(), settings), settings, scorer=function_scorer(f"{__name__}:too_few_rewards"))


def nan_rewards(prompts: list[str], completions: list[str]) -> list[float]:
    return [math.nan] * len(completions)


def too_few_rewards(prompts: list[str], completions: list[str]) -> list[float]:
    return [1.0]
