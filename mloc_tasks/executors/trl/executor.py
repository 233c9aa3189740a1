"""A training by one of TRL's trainers, from the stage's document to the saved model."""

from __future__ import annotations

import importlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.training import TrainingExecutor
from mloc_tasks.executors.training.checkpoints import METRICS, Checkpoints, Schedule
from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.training.loading import Trainee, checkpoint_to_continue, load_for_training
from mloc_tasks.executors.training.lora import draw_weights, lora_errors, trained_in_float32
from mloc_tasks.executors.training.memory import memory_advice
from mloc_tasks.executors.training.metrics import METRICS_FILE, MetricsLog
from mloc_tasks.executors.training.rank import is_first
from mloc_tasks.executors.training.saving import result_of, save_sharded, save_trained
from mloc_tasks.executors.trl.arguments import Method, config_for, refusal
from mloc_tasks.executors.trl.dataset import dataset_of, rows_folder
from mloc_tasks.executors.trl.quiet import Warnings, quiet
from mloc_tasks.models.library_messages import library_messages

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Rows, Task, TrainingRow

DEFAULT_BATCH_SIZE = 8  # of transformers


class TrlExecutor(TrainingExecutor):
    """Base of the executors whose loop is a trainer of TRL. A subclass gives `method`, `rows` and what else differs.

    Class attributes:
        method: which trainer, and how our names become its arguments.
    """

    family: ClassVar[str] = "trl"
    method: ClassVar[Method]

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return super().unsupported(document) or refusal(document)

    def load(self, task: Task) -> Trainee:
        """The model to train, with its tokenizer."""
        return load_for_training(task)

    @abstractmethod
    def rows(self, inputs: Rows[TrainingRow], task: Task, trainee: Trainee) -> Iterable[TrainingRow]:
        """The stage's rows in the form that the trainer reads."""

    def trainer_arguments(self, task: Task, trainee: Trainee) -> dict[str, Any]:
        """What the trainer is given beside model, config, tokenizer, rows and adapter."""
        return {}

    def callbacks(self, trainer: Any) -> Sequence[Any]:
        """What else happens beside a step; they hear of it after it was said whether a checkpoint is made."""
        return ()

    def train(self, task: Task, out_dir: Path) -> dict[str, Any]:
        if reason := refusal(task["spec"]):
            raise ExecutionError(reason)
        if task.inputs is None:
            raise ExecutionError("training needs rows", hint="give data")
        quiet()
        with (
            library_messages(Warnings(task.report)),
            memory_advice(task.spec, batch_size=_batch_size(task)),
            rows_folder(out_dir) as folder,
        ):
            trainee = self.load(task)
            dataset = dataset_of(self.rows(task.inputs, task, trainee), folder)
            return self._train(task, out_dir, trainee, dataset)

    def _train(self, task: Task, out_dir: Path, trainee: Trainee, dataset: Any) -> dict[str, Any]:
        from mloc_tasks.executors.trl.callbacks import Metrics, Publishing

        start = checkpoint_to_continue(task)
        checkpoints = Checkpoints(task.checkpoint_dir, task_type=task.spec.task_type)
        schedule = Schedule.of(task.spec.training) if checkpoints.wanted else Schedule()
        config = config_for(
            self.method,
            task.spec,
            precision=trainee.precision,
            adapts=trainee.adapts,
            folder=str(checkpoints.folder if checkpoints.wanted else out_dir / ".rows"),
            schedule=schedule,
        )
        trainer = self._trainer(task, trainee, config, dataset)
        trainer.add_callback(Publishing(checkpoints, schedule, metrics=out_dir / METRICS_FILE))
        for callback in self.callbacks(trainer):
            trainer.add_callback(callback)
        if not is_first():
            trainer.train(resume_from_checkpoint=None if start is None else str(start))
            save_sharded(trainer, trainee, task, out_dir)
            return {}
        with self._metrics_log(task, out_dir, start) as log:
            trainer.add_callback(Metrics(log))
            outcome = trainer.train(resume_from_checkpoint=None if start is None else str(start))
            metrics = log.summary()
        model = _finished(trainer)
        if not save_sharded(trainer, trainee, task, out_dir):
            save_trained(task, out_dir, trainee, model)
        return result_of(
            trainee, steps=outcome.global_step, metrics=metrics, train_seconds=outcome.metrics["train_runtime"]
        )

    def _trainer(self, task: Task, trainee: Trainee, config: Any, dataset: Any) -> Any:
        """TRL's trainer, ready to train. What it says about the spec and the rows becomes an ExecutionError."""
        trl: Any = importlib.import_module("trl")
        try:
            with lora_errors():
                trainer = getattr(trl, self.method.trainer)(
                    model=trainee.model,
                    args=config,
                    train_dataset=dataset,
                    processing_class=trainee.tokenizer,
                    **({} if trainee.lora is None else {"peft_config": trainee.lora}),
                    **self.trainer_arguments(task, trainee),
                )
        except (ValueError, TypeError, KeyError, NotImplementedError, ImportError) as error:
            raise ExecutionError(f"TRL's {self.method.trainer} refuses the stage: {error}") from error
        self._tell_of_lost_rows(task, before=len(dataset), left=len(trainer.train_dataset))
        if trainee.lora is not None and task.spec.lora is not None and task.spec.lora.seed is not None:
            draw_weights(trainer.model, task.spec.lora.seed)
        if trainee.adapts and trainee.precision.mixed and not trainer.is_deepspeed_enabled:  # which has its own copy
            trained_in_float32(trainer.model)
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)  # Metrics says it better
        return trainer

    def _metrics_log(self, task: Task, out_dir: Path, start: Path | None) -> MetricsLog:
        if start is None:
            if task.spec.checkpoint and task.spec.checkpoint.load and task.spec.checkpoint.load.type == "checkpoint":
                task.report.log("checkpoint.load is of another method: its weights are used, its steps do not count")
            return MetricsLog(task, out_dir, label=self.method.label, shown=self.method.shown)
        step = json.loads((start / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
        task.report.log(f"going on from the checkpoint of step {step}")
        return MetricsLog(
            task, out_dir, label=self.method.label, shown=self.method.shown, resumed=start / METRICS, step=step
        )

    def _tell_of_lost_rows(self, task: Task, *, before: int, left: int) -> None:
        """TRL leaves out rows of which nothing to learn remains at `max_seq_length`."""
        if left >= before or given_arguments(task.spec).get("packing"):
            return
        message = f"{before - left} of {before} rows are left out: {self.method.too_long}"
        if left == 0:
            raise ExecutionError(message, hint="raise training.max_seq_length")
        task.report.log(message, level="warning")


def _batch_size(task: Task) -> int:
    ours = task.spec.training and task.spec.training.batch_size
    return ours or given_arguments(task.spec).get("per_device_train_batch_size") or DEFAULT_BATCH_SIZE


def _finished(trainer: Any) -> Any:
    """The trained model, once the trainer has let go of the optimizer's memory."""
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
    trainer.accelerator.free_memory()
    return trainer.model
