"""Proximal policy optimisation for language models: the formulas, each with its source.

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
