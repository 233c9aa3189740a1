"""What every training method shares.

- `executor`: the base class. `rank`: which of a training's processes this is.
- `launch`: how many processes, on which GPUs. `surroundings`: their environment.
- `processes`: all of them, started and ended together; `process`: one, as its owner sees it; `failure`: how one failed.
- `child`: what runs in such a process.
"""

from mloc_tasks.executors.training.executor import TrainingExecutor

__all__ = ["TrainingExecutor"]
