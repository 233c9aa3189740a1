"""Training methods whose loop is a trainer of TRL (Hugging Face). Nothing heavy is imported before one runs.

A method is a table in `arguments` and a file with its executor.
"""

from mloc_tasks.executors.trl.dpo import DpoExecutor
from mloc_tasks.executors.trl.grpo import GrpoExecutor
from mloc_tasks.executors.trl.reward import RewardExecutor
from mloc_tasks.executors.trl.sft import SftExecutor

__all__ = ["DpoExecutor", "GrpoExecutor", "RewardExecutor", "SftExecutor"]
