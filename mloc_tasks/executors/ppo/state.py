"""A PPO training on disk: everything that a run, killed and resumed, needs for the same curve.

No state of a random generator is among it: each draw is a function of the seed, the step and its place (see `rollout`,
`prompts`, `minibatches`), and so is the position in the data. Nor are the weights of a reference that is the stage's
model: it is loaded anew. What an adapter that is trained further was at first is kept, so that a stage that names the
model alone can go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.ppo.learner import Learner
from mloc_tasks.models.contents import PPO_STATE


def save(learner: Learner, directory: Path) -> None:
    """Write `learner` into `directory`, which is made."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    state = {
        "step": learner.step,
        "kl_coefficient": learner.kl.coefficient,
        "weights": {name: weights.detach() for name, weights in learner.policy.trained_weights().items()},
        "value_head": learner.policy.value_head.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "schedule": learner.schedule.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "first_weights": learner.policy.first_weights if hasattr(learner.policy.model, "peft_config") else {},
    }
    torch.save(state, directory / PPO_STATE)


def restore(learner: Learner, directory: Path) -> None:
    """Make `learner` what it was when it was saved. Raises ExecutionError for a state of another model."""
    import torch

    state: dict[str, Any] = torch.load(directory / PPO_STATE, map_location="cpu", weights_only=True)
    trained = learner.policy.trained_weights()
    saved = state["weights"]
    if {name: each.shape for name, each in saved.items()} != {name: each.shape for name, each in trained.items()}:
        raise ExecutionError("the checkpoint is of another model, or of an adapter with other layers")
    with torch.no_grad():
        for name, weights in trained.items():
            weights.copy_(saved[name])
    for name, weights in state.get("first_weights", {}).items():
        learner.policy.first_weights[name] = weights.to(trained[name].device)
    learner.policy.value_head.load_state_dict(state["value_head"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.schedule.load_state_dict(state["schedule"])
    if state.get("scaler"):  # empty unless it computed in float16, and not in the first checkpoints that there were
        learner.scaler.load_state_dict(state["scaler"])
    learner.kl.coefficient = state["kl_coefficient"]
    learner.step = state["step"]
