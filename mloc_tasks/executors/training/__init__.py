"""What every training method shares.

- `executor`: the base class. `rank`: which of a training's processes this is.
"""

from mloc_tasks.executors.training.executor import TrainingExecutor

__all__ = ["TrainingExecutor"]
