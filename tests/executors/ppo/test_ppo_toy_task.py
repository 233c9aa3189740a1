"""The formulas together learn: a policy over six tokens finds out which one is rewarded, and how long to go on.

The loop below is PPO as for a language model, on a model of two embeddings and two linear layers.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from mloc_tasks.executors.ppo.advantages import generalised_advantages
from mloc_tasks.executors.ppo.kl import AdaptiveKLController, kl_per_completion, kl_per_token
from mloc_tasks.executors.ppo.losses import policy_loss, value_loss
from mloc_tasks.executors.ppo.mask import masked_mean, whitened
from mloc_tasks.executors.ppo.minibatches import mini_batches
from mloc_tasks.executors.ppo.rewards import adjusted_scores, token_rewards
from mloc_tasks.executors.ppo.token_choices import TokenChoices, token_choices

torch = pytest.importorskip("torch")

VOCABULARY, EOS, REWARDED = 6, 0, 3
TOKENS, ROWS, EPOCHS = 4, 64, 2


class Policy(torch.nn.Module):
    """Logits and a value for the token after each given one; the value head does not move the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, 16)
        self.places = torch.nn.Embedding(TOKENS, 16)
        self.head = torch.nn.Linear(16, VOCABULARY)
        self.value = torch.nn.Linear(16, 1)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.embedding(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(hidden), self.value(hidden.detach()).squeeze(-1)

    def choices(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[TokenChoices, torch.Tensor]:
        """For whole rows [batch, 1 + tokens], whose first token is the prompt."""
        logits, values = self(tokens[:, :-1])
        return token_choices(logits, tokens[:, 1:], mask, piece_values=60 * VOCABULARY), values


class Step(NamedTuple):
    reward: float
    kl: float
    coefficient: float


def rollout(policy: Policy, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [ROWS, 1 + TOKENS] and the mask [ROWS, TOKENS] up to and with the first EOS."""
    tokens = torch.randint(1, VOCABULARY, (ROWS, 1), generator=generator)
    with torch.no_grad():
        for _ in range(TOKENS):
            probabilities = policy(tokens)[0][:, -1].softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    ends = (tokens[:, 1:] == EOS).int()
    return tokens, ends.cumsum(1) - ends == 0


def learn(
    seed: int, *, steps: int = 8, accumulation: int = 1, coefficient: float = 0.02, target_kl: float = 6.0
) -> list[Step]:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    policy, reference = Policy(), Policy()
    reference.load_state_dict(policy.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.03)
    controller = AdaptiveKLController(coefficient=coefficient, target=target_kl, horizon=128)
    curve: list[Step] = []
    for step in range(steps):
        tokens, mask = rollout(policy, generator)
        with torch.no_grad():
            old, old_values = policy.choices(tokens, mask)
            kl = kl_per_token(old.logprobs, reference.choices(tokens, mask)[0].logprobs, mask)
        lengths = mask.sum(1)
        ended = (tokens[:, 1:] == EOS).any(1)
        rewarded = ((tokens[:, 1:] == REWARDED) & mask).sum(1).float()
        scores = adjusted_scores(rewarded, lengths=lengths, ended=ended, clip=TOKENS, missing_eos_penalty=2.0)
        rewards = token_rewards(scores, kl, mask, coefficient=controller.coefficient)
        advantages, returns = generalised_advantages(rewards, old_values, mask, gamma=1.0, lam=0.95)
        advantages = whitened(advantages, mask)
        for epoch in range(EPOCHS):
            for batch in mini_batches(ROWS, mini_batch_size=32, slices=accumulation, seed=seed, step=step, epoch=epoch):
                count = sum(mask[list(rows)].sum() for rows in batch)
                optimizer.zero_grad()
                for rows in map(list, batch):
                    new, values = policy.choices(tokens[rows], mask[rows])
                    pi = policy_loss(
                        new.logprobs, old.logprobs[rows], advantages[rows], mask[rows], clip=0.2, denominator=count
                    )
                    v = value_loss(values, old_values[rows], returns[rows], mask[rows], clip=1.0, denominator=count)
                    entropy = masked_mean(new.entropies, mask[rows], denominator=count)
                    (pi.loss + 0.5 * v.loss - 0.001 * entropy).backward()
                optimizer.step()
        divergence = float(kl_per_completion(kl, mask).mean())
        controller.update(divergence, completions=ROWS)
        curve.append(Step(float(scores.mean()), divergence, controller.coefficient))
    return curve


@pytest.mark.parametrize("seed", range(3))
def test_the_toy_task_is_solved(seed: int) -> None:
    curve = learn(seed, steps=30)
    assert curve[0].kl == 0, "the policy starts as its reference"
    assert curve[0].reward < 0.5
    # At best 3: the rewarded token three times, then EOS. Without it 4 - 2, and EOS at once is 0.
    assert sum(step.reward for step in curve[-5:]) / 5 > 2.5


def test_the_same_seed_gives_the_same_curve() -> None:
    assert learn(0) == learn(0)
    assert learn(0) != learn(1)


def test_slices_give_the_curve_of_whole_mini_batches() -> None:
    whole, sliced = learn(0), learn(0, accumulation=3)
    assert [step.kl for step in sliced] == pytest.approx([step.kl for step in whole], abs=1e-3)


def test_a_tight_target_keeps_the_policy_nearer_to_its_reference() -> None:
    free, tight = (learn(0, steps=20, coefficient=0.3, target_kl=target) for target in (50.0, 0.5))
    assert tight[-1].coefficient > free[-1].coefficient
    assert tight[-1].kl < free[-1].kl
