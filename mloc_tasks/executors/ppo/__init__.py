"""Proximal policy optimisation for language models: the loop, and the formulas, each with its source.

    trainer        the algorithm, from the prompt to the step; `experience` and `learner` are its parts
    policy         one backbone as policy, value function and reference; `body` is how it is computed
    rollout        completions drawn from it; `prompts` is what they begin with
    scoring        reward models, by text
    group          the processes of a training
    state          a training on disk
    settings       what the spec asks for; `executor` puts it all together

    mask           masked means, moments, whitening
    advantages     generalised advantage estimation
    kl             per-token divergence from the reference, and what steers its weight
    rewards        scores of completions -> rewards of tokens
    token_choices  log-probabilities and entropies of the sampled tokens
    losses         clipped policy and value losses, and what is logged beside them
    minibatches    the order in which a rollout is learned from

Throughout, a completion is one row of a [batch, tokens] tensor; `mask` is a bool tensor of that shape, True on the
tokens the policy chose, which stand together in each row. What lies outside the mask, NaN included, changes no result
and gets no gradient. Half-precision inputs are computed in float32. Nothing here imports torch before it is called.
"""

from mloc_tasks.executors.ppo.executor import PpoExecutor

__all__ = ["PpoExecutor"]
