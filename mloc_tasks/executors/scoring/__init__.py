"""Reward models: they read text, so any tokenizer works.

    function    a Python function of prompts and completions
    sentiment   how positive the completion sounds to a classifier
    classifier  a model with one logit over prompt and completion, such as a `reward` stage makes

`scorer_of` picks one; `checked` says what a score is.
"""

from mloc_tasks.executors.scoring.checked import Scorer
from mloc_tasks.executors.scoring.choice import scorer_of

__all__ = ["Scorer", "scorer_of"]
