"""Proximal policy optimisation of a language model, from the prompt to the step: `train` is the whole algorithm."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mloc_tasks.executors.ppo.experience import Experience, estimated, experience_of, together
from mloc_tasks.executors.ppo.group import Group
from mloc_tasks.executors.ppo.kl import kl_per_completion
from mloc_tasks.executors.ppo.learner import Learner
from mloc_tasks.executors.ppo.losses import explained_variance, far_over_target, policy_loss, value_loss
from mloc_tasks.executors.ppo.mask import masked_mean
from mloc_tasks.executors.ppo.minibatches import MiniBatch, mini_batches
from mloc_tasks.executors.ppo.prompts import Prompt, PromptOrder
from mloc_tasks.executors.ppo.rollout import Sampler
from mloc_tasks.executors.ppo.settings import PpoSettings
from mloc_tasks.executors.scoring.checked import Scorer, columns_of

if TYPE_CHECKING:
    import torch

MEASURED = ("loss", "policy_loss", "value_loss", "entropy", "clip_fraction", "value_clip_fraction", "approx_kl")
"""What each optimizer step measures."""


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a step took, which is not among what it measured: that is the same whenever a training is repeated.

    Attributes:
        rollout_sec: the part of `sec` in which completions were drawn.
        tokens: of all completions.
    """

    rollout_sec: float
    sec: float
    tokens: int


AfterStep = Callable[[int, Mapping[str, float], Took], None]
"""Called with the number of a step that is done, from 0, what it measured, and what it took."""


def train(
    learner: Learner,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    scorer: Scorer,
    settings: PpoSettings,
    *,
    group: Group,
    after_step: AfterStep,
) -> None:
    """Take `learner` from its step to `settings.steps`.

    Schulman et al. 2017, "Proximal policy optimization algorithms", algorithm 1, for completions as episodes and tokens
    as actions: Ziegler et al. 2019, "Fine-tuning language models from human preferences"; Ouyang et al. 2022,
    "Training language models to follow instructions with human feedback".
    """
    policy = learner.policy
    order = PromptOrder(rows=len(prompts), seed=settings.seed)
    rows = range(settings.batch_size)
    for step in range(learner.step, settings.steps):
        started = time.perf_counter()
        _seed_others(settings.seed, step, group.rank)

        # Rollout: the policy completes some prompts.
        mine = group.share([prompts[order.at(step * settings.batch_size + row)] for row in rows])
        samples = sampler.draw([prompt.ids for prompt in mine], step=step, places=group.share(rows))
        rollout_sec = time.perf_counter() - started

        # Score: the reward model reads what came out.
        given, texts = [prompt.given for prompt in mine], [sample.text for sample in samples]
        scores = scorer(given, texts, columns=columns_of([prompt.further for prompt in mine])) if texts else []

        # Advantages: which tokens led to more than was expected of them, less what they cost in divergence from the
        # model as it was before its training.
        experience = experience_of(
            *together(group, samples, scores, estimated(policy, samples)),
            settings,
            kl_coef=learner.kl.coefficient,
            device=policy.device,
        )

        # Update: passes over the rollout in mini-batches, as long as the policy stays near the one that drew it.
        updated = _update(learner, experience, settings, step=step, group=group)

        # KL control: the penalty of the next rollout follows the divergence of this one.
        kl, kl_coef = float(kl_per_completion(experience.kl, experience.mask).mean()), learner.kl.coefficient
        learner.kl.update(kl, completions=settings.batch_size)
        learner.step = step + 1

        # Log.
        took = Took(rollout_sec=rollout_sec, sec=time.perf_counter() - started, tokens=int(experience.mask.sum()))
        after_step(step, {**_figures(experience), "kl": kl, "kl_coef": kl_coef, **updated}, took)


def _update(
    learner: Learner, experience: Experience, settings: PpoSettings, *, step: int, group: Group
) -> dict[str, float]:
    """Some passes over a rollout; what was measured is the mean over their optimizer steps."""
    import torch

    measured: list[torch.Tensor] = []
    updates, stopped = 0, False
    for epoch in range(settings.epochs):
        for batch in mini_batches(
            len(experience.texts),
            mini_batch_size=settings.rows_per_update,
            slices=settings.slices,
            seed=settings.seed,
            step=step,
            epoch=epoch,
        ):
            learner.forget_gradients()
            measured.append(gradients(learner, experience, batch, settings, group=group))
            group.add_up([measured[-1], *learner.gradients()])
            # Early stop: samples of a policy that is far from this one teach it little (Achiam 2018, Spinning Up in
            # deep RL).
            approx_kl = float(measured[-1][MEASURED.index("approx_kl")])
            stopped = settings.target_kl is not None and far_over_target(approx_kl, target_kl=settings.target_kl)
            if stopped:
                break
            updates += learner.optimize(max_grad_norm=settings.max_grad_norm)
        if stopped:
            break
    means = dict(zip(MEASURED, torch.stack(measured).mean(dim=0).tolist(), strict=True))
    figures = {**means, "updates": float(updates), "learning_rate": learner.learning_rate}
    learner.anneal()
    return figures


def gradients(
    learner: Learner, experience: Experience, batch: MiniBatch, settings: PpoSettings, *, group: Group
) -> torch.Tensor:
    """Add this process's part of a mini-batch's gradients; gives its part of what is MEASURED, which adds up too."""
    import torch

    policy = learner.policy
    rows = [row for part in batch for row in part]
    # Tokens of all slices and processes, so that what they give adds up to the mini-batch's mean.
    tokens = experience.mask[rows].sum().clamp(min=1)
    measured = torch.zeros(len(MEASURED), dtype=policy.value_head.weight.dtype, device=policy.device)
    for part in _slices(group.share(_longest_first(rows, experience)), len(batch)):
        width = int(experience.mask[part].sum(dim=1).max())
        mask, old_logprobs, old_values, advantages, returns = (
            each[part][:, :width]
            for each in (
                *(experience.mask, experience.logprobs, experience.values),
                *(experience.advantages, experience.returns),
            )
        )
        now = policy.estimates([experience.texts[row] for row in part])
        pi = policy_loss(now.logprobs, old_logprobs, advantages, mask, clip=settings.cliprange, denominator=tokens)
        v = value_loss(now.values, old_values, returns, mask, clip=settings.cliprange_value, denominator=tokens)
        entropy = masked_mean(now.entropies, mask, denominator=tokens)
        loss = pi.loss + settings.vf_coef * v.loss - settings.entropy_coef * entropy
        learner.backward(loss)
        figures = [loss, pi.loss, v.loss, entropy, pi.clip_fraction, v.clip_fraction, pi.approx_kl]
        measured += torch.stack(figures).detach()
    return measured


def _longest_first(rows: Sequence[int], experience: Experience) -> list[int]:
    """Slices of like length have little padding, and the largest comes first: where memory fails it does so early."""
    return sorted(rows, key=lambda row: (-sum(map(len, experience.texts[row])), row))


def _slices(rows: Sequence[int], count: int) -> list[Sequence[int]]:
    size = -(-len(rows) // count)
    return [rows[begin : begin + size] for begin in range(0, len(rows), max(size, 1))]


def _figures(experience: Experience) -> dict[str, float]:
    lengths = experience.mask.sum(dim=1).float()
    explained = explained_variance(experience.values, experience.returns, experience.mask)
    return {
        "mean_reward": float(experience.scores.mean()),
        "reward_std": float(experience.scores.std(correction=0)),
        "completion_tokens": float(lengths.mean()),
        "ended": float(experience.ended.float().mean()),
        **({} if explained is None else {"explained_variance": explained}),
    }


def _seed_others(seed: int, step: int, rank: int) -> None:
    """For what draws random numbers beside us, such as a reward function: a resumed run gives it the same again."""
    import torch

    drawn = random.Random(f"{seed}/others/{step}/{rank}").getrandbits(32)
    random.seed(drawn)
    torch.manual_seed(drawn)
