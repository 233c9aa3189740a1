"""What changes from step to step: the policy's weights, their optimizer, the KL penalty's weight."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.ppo.group import Group
from mloc_tasks.executors.ppo.kl import AdaptiveKLController, FixedKLController, KLController
from mloc_tasks.executors.ppo.policy import Policy
from mloc_tasks.executors.ppo.settings import PpoSettings

if TYPE_CHECKING:
    import torch


class Learner:
    """A policy in training.

    Attributes:
        step: rollouts that are behind it.
        kl: the controller of the KL penalty.
        optimizer: AdamW (Loshchilov and Hutter 2019) with two groups: the policy's weights, the value head's.
        schedule: of both learning rates, one step a rollout.
        scaler: keeps gradients within float16 (Micikevicius et al. 2018, "Mixed precision training", section 3.2).

    Args:
        float16: the policy computes in it; without, the scaler does nothing.
    """

    def __init__(self, policy: Policy, settings: PpoSettings, *, group: Group, float16: bool = False) -> None:
        import torch
        from transformers import get_scheduler

        self.policy = policy
        self.step = 0
        self.kl = _controller(settings)
        self._weights = list(policy.trained_weights().values())
        self._head = list(policy.value_head.parameters())
        if not self._weights:
            raise ExecutionError("nothing of the model is trained: no weight takes a gradient")
        if any(each.dtype == torch.float16 for each in self._weights):
            raise ExecutionError(
                "weights in float16 cannot be trained: most updates are too small for it",
                hint="leave dtype out of model.transformers, and training.fp16 computes in float16 all the same",
            )
        group.begin_equal(each.data for each in [*self._weights, *self._head, *policy.first_weights.values()])
        self._all_gradients = group.size > 1
        self.scaler = torch.amp.GradScaler(policy.device.type, enabled=float16)
        # It begins with its first loss, and the process whose part of a mini-batch is empty has none.
        self.scaler.scale(torch.zeros((), device=policy.device))
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self._weights, "lr": settings.learning_rate},
                {"params": self._head, "lr": settings.value_learning_rate, "weight_decay": 0.0},
            ],
            betas=settings.betas,
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
        )
        warmup = settings.warmup_steps
        self.schedule: Any = get_scheduler(
            settings.schedule,
            self.optimizer,
            num_warmup_steps=round(warmup * settings.steps) if warmup < 1 else round(warmup),
            num_training_steps=settings.steps,
            scheduler_specific_kwargs=dict(settings.schedule_arguments or {}),
        )

    @property
    def learning_rate(self) -> float:
        """The policy's."""
        return float(self.optimizer.param_groups[0]["lr"])

    def gradients(self) -> list[torch.Tensor]:
        return [weights.grad for weights in [*self._weights, *self._head] if weights.grad is not None]

    def forget_gradients(self) -> None:
        import torch

        self.optimizer.zero_grad()
        if self._all_gradients:
            # A process may have no row of a mini-batch: its zeros are added to the others' gradients.
            for weights in [*self._weights, *self._head]:
                weights.grad = torch.zeros_like(weights)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`, still as the scaler has scaled them."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def optimize(self, *, max_grad_norm: float) -> bool:
        """One optimizer step with the gradients that are there; a norm of 0 leaves them as they are.

        False where float16 has overflown: the step is left out and the next loss is scaled less. All processes have the
        same gradients by then, so they agree.

        Each group has a norm of its own: the value head's gradient is by far the larger at first and would take the
        policy's along when it is scaled down.
        """
        import torch

        self.scaler.unscale_(self.optimizer)
        for group in (self._weights, self._head) if max_grad_norm > 0 else ():
            torch.nn.utils.clip_grad_norm_(group, max_grad_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    def anneal(self) -> None:
        """The learning rates of the next rollout."""
        with warnings.catch_warnings():  # torch misses the optimizer step where float16 has overflown in all there were
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.schedule.step()


def _controller(settings: PpoSettings) -> KLController:
    if settings.adaptive_kl and settings.kl_coef > 0:
        return AdaptiveKLController(
            coefficient=settings.kl_coef, target=settings.kl_target, horizon=settings.kl_horizon
        )
    return FixedKLController(coefficient=settings.kl_coef)
