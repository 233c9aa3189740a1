"""What a spec says becomes the settings of a training; what it leaves out has our defaults."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.ppo import PpoExecutor
from mloc_tasks.executors.ppo.settings import PpoSettings, ppo_settings
from mloc_tasks.spec.model.inference import Generation
from mloc_tasks.spec.model.training import Training


def settings(training: dict[str, Any], generation: dict[str, Any] | None = None, *, lora: bool = True) -> PpoSettings:
    sampled = Generation.model_validate(generation or {})
    return ppo_settings(Training.model_validate(training), sampled, rows=64, lora=lora)


def test_the_defaults_are_those_that_learned() -> None:
    found = ppo_settings(None, None, rows=64, lora=True)
    assert (found.batch_size, found.rows_per_update, found.slices, found.epochs) == (16, 8, 1, 2)
    assert (found.learning_rate, found.value_learning_rate) == (2e-4, 1e-3)
    assert (found.kl_coef, found.adaptive_kl, found.kl_target, found.target_kl) == (0.05, True, 4.0, None)
    assert (found.gamma, found.lam, found.cliprange, found.max_grad_norm) == (1.0, 0.95, 0.2, 1.0)
    assert found.steps == 4, "one pass over the data"
    assert (found.decoding.max_tokens, found.decoding.temperature, found.decoding.top_p) == (64, 1.0, 1.0)
    assert ppo_settings(None, None, rows=64, lora=False).learning_rate < 2e-5


def test_the_first_documentation_s_example_means_what_it_says() -> None:
    training = {"learning_rate": 1.41e-5, "batch_size": 4, "steps": 50, "ppo_epochs": 4, "target_kl": 0.1}
    found = settings(training, {"max_tokens": 256, "temperature": 0.7})
    assert (found.learning_rate, found.batch_size, found.steps, found.epochs) == (1.41e-5, 4, 50, 4)
    assert found.target_kl == 0.1
    assert found.rows_per_update == 2
    assert (found.decoding.max_tokens, found.decoding.temperature) == (256, 0.7)


@pytest.mark.parametrize(
    ("given", "rows_per_update", "slices"),
    [
        ({"mini_batch_size": 4}, 4, 1),
        ({"mini_batch_size": 1, "gradient_accumulation_steps": 4}, 4, 4),
        ({"gradient_accumulation_steps": 4}, 8, 4),
        ({"mini_batch_size": 64}, 16, 1),
        ({"batch_size": 5}, 3, 1),
    ],
)
def test_mini_batches_and_their_slices(given: dict[str, Any], rows_per_update: int, slices: int) -> None:
    found = settings(given)
    assert (found.rows_per_update, found.slices) == (rows_per_update, slices)


def test_transformers_names_mean_the_same() -> None:
    found = settings(
        {
            "per_device_train_batch_size": 8,
            "max_steps": 9,
            "max_length": 100,
            "lr_scheduler_type": "linear",
            "warmup_steps": 2,
            "adam_beta2": 0.95,
        }
    )
    assert (found.batch_size, found.steps, found.most_tokens) == (8, 9, 100)
    assert (found.schedule, found.warmup_steps, found.betas) == ("linear", 2, (0.9, 0.95))


@pytest.mark.parametrize("given", [{}, {"lr_scheduler_type": "constant"}])
def test_a_warm_up_comes_before_a_constant_learning_rate_too(given: dict[str, Any]) -> None:
    assert settings({**given, "warmup_steps": 3}).schedule == "constant_with_warmup"
    assert settings({**given, "warmup_steps": 0}).schedule == "constant"
    assert settings({"lr_scheduler_type": "cosine", "warmup_steps": 3}).schedule == "cosine"


def test_epochs_count_passes_over_the_data() -> None:
    assert settings({"num_train_epochs": 3}).steps == 12
    assert settings({"num_train_epochs": 0.01}).steps == 1


def test_early_stopping_can_be_switched_off() -> None:
    assert settings({"target_kl": 0.1, "early_stopping": False}).target_kl is None


def test_the_seed_is_also_the_sampling_s_unless_that_has_its_own() -> None:
    assert settings({"seed": 7}).decoding.seed == 7
    assert settings({"seed": 7}, {"seed": 8}).decoding.seed == 8


@pytest.mark.parametrize("greedy", [{"temperature": 0}, {"do_sample": False}])
def test_greedy_decoding_is_refused(greedy: dict[str, Any]) -> None:
    with pytest.raises(ExecutionError, match="greedy") as caught:
        settings({}, greedy)
    assert "temperature" in caught.value.hint


def test_a_model_spread_over_several_gpus_is_refused_at_submission_and_one_gpu_is_not() -> None:
    def asking(gpus: int, **training: Any) -> str | None:
        model, resources = {"config": {"device_map_auto": True}}, {"hardware": {"gpu": {"count": gpus}}}
        return PpoExecutor.unsupported({"model": model, "resources": resources, "training": training})

    assert "leave device_map_auto out" in str(asking(2))
    assert asking(1) is None
    assert asking(2, visible_devices="0") is None


def test_arguments_that_the_loop_does_not_follow_are_refused_at_submission() -> None:
    reason = PpoExecutor.unsupported({"training": {"fsdp": "full_shard", "steps": 3}})
    assert reason is not None
    assert "training.fsdp" in reason
    assert "training.extra" in str(PpoExecutor.unsupported({"training": {"extra": {"beta": 1}}}))
    assert "enforce_cpu: true" in str(PpoExecutor.unsupported({"training": {"use_cpu": True}}))
    assert PpoExecutor.unsupported({"training": {"steps": 3, "bf16": True, "ddp_timeout": 60}}) is None
