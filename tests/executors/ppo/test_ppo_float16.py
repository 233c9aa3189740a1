"""In float16 the loss is scaled up, so that small gradients are not lost, and a step that overflows is left out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mloc_tasks.errors import ExecutionError  # noqa: E402
from mloc_tasks.executors.ppo import state  # noqa: E402
from mloc_tasks.executors.ppo.group import Group  # noqa: E402
from mloc_tasks.executors.ppo.learner import Learner  # noqa: E402
from mloc_tasks.executors.ppo.policy import Text  # noqa: E402
from mloc_tasks.models.contents import PPO_STATE  # noqa: E402
from tests.executors.ppo.tiny_policy import EOS, adapted, curve_of, learner_of, settings_of, tiny_model  # noqa: E402

TEXTS = [Text([0, 1, 2], [3, 4, EOS]), Text([5], [6])]


def weights_of(learner: Learner) -> list[torch.Tensor]:
    return [weights.detach().clone() for weights in learner.policy.trained_weights().values()]


def step_with(learner: Learner, factor: float) -> bool:
    """One optimizer step on a loss that is `factor` times something of size 1."""
    learner.forget_gradients()
    learner.backward(learner.policy.estimates(TEXTS).logprobs.mean() * factor)
    return learner.optimize(max_grad_norm=0)


def test_gradients_too_small_for_float16_are_those_of_float32() -> None:
    half, full = (learner_of(tiny_model(), settings_of(), float16=float16) for float16 in (True, False))
    for learner in (half, full):
        assert step_with(learner, 1e-6)
    for ours, exact in zip(half.gradients(), full.gradients(), strict=True):
        torch.testing.assert_close(ours, exact, atol=1e-9, rtol=0.1)


def test_a_loss_that_overflows_leaves_the_weights_as_they_are_and_the_next_one_trains() -> None:
    learner = learner_of(tiny_model(), settings_of(), float16=True)
    before, scale = weights_of(learner), learner.scaler.get_scale()
    assert not step_with(learner, 1e30)
    assert all(map(torch.equal, weights_of(learner), before))
    assert learner.scaler.get_scale() < scale
    assert step_with(learner, 1.0)
    assert all(torch.isfinite(weights).all() for weights in weights_of(learner))
    assert not all(map(torch.equal, weights_of(learner), before))


class OverflowElsewhere(Group):
    """As if another process's gradients had overflown."""

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in list(tensors)[1:]:  # the first is what is measured
            tensor.fill_(torch.inf)


def test_what_overflows_in_one_process_is_left_out_in_all() -> None:
    settings = settings_of(steps=2)
    learner = learner_of(tiny_model(), settings, float16=True)
    before = weights_of(learner)
    curve = curve_of(learner, settings, group=OverflowElsewhere())
    assert [step["updates"] for step in curve] == [0, 0]
    assert all(map(torch.equal, weights_of(learner), before))


def test_a_training_in_float16_measures_about_what_one_in_float32_does() -> None:
    settings = settings_of(steps=1)
    (half,), (full,) = (
        curve_of(learner_of(adapted(tiny_model()), settings, float16=float16), settings) for float16 in (True, False)
    )
    assert half["updates"] == full["updates"] == 4
    assert half == pytest.approx(full, abs=0.01, rel=0.05, nan_ok=True)


def test_the_scale_is_taken_up_from_a_checkpoint(tmp_path: Path) -> None:
    settings = settings_of()
    learner = learner_of(tiny_model(), settings, float16=True)
    step_with(learner, 1e30)
    step_with(learner, 1.0)
    state.save(learner, tmp_path)
    resumed = learner_of(tiny_model(seed=1), settings, float16=True)
    state.restore(resumed, tmp_path)
    assert resumed.scaler.state_dict() == learner.scaler.state_dict()


@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_of_a_training_without_scale_is_gone_on_from_in_float16(older: bool, tmp_path: Path) -> None:
    settings = settings_of()
    state.save(learner_of(tiny_model(), settings), tmp_path)
    if older:
        file = tmp_path / PPO_STATE
        saved = torch.load(file, weights_only=True)
        del saved["scaler"]
        torch.save(saved, file)
    resumed = learner_of(tiny_model(seed=1), settings, float16=True)
    state.restore(resumed, tmp_path)
    assert step_with(resumed, 1.0)


def test_weights_in_float16_are_refused() -> None:
    with pytest.raises(ExecutionError, match="weights in float16 cannot be trained"):
        learner_of(tiny_model().half(), settings_of(), float16=True)
