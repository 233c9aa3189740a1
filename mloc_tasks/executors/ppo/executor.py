"""The `ppo` executor: a stage's model, prompts and reward model, put through the loop of `trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Task
from mloc_tasks.executors.generation.model_files import cache_dir_of
from mloc_tasks.executors.ppo import state
from mloc_tasks.executors.ppo.group import Group
from mloc_tasks.executors.ppo.learner import Learner
from mloc_tasks.executors.ppo.policy import Policy
from mloc_tasks.executors.ppo.prompts import Prompt, encoded
from mloc_tasks.executors.ppo.rollout import Sampler
from mloc_tasks.executors.ppo.settings import INSTEAD_OF_SPREADING, NOT_SPREAD, PpoSettings, ppo_settings, refused
from mloc_tasks.executors.ppo.trainer import Took, train
from mloc_tasks.executors.scoring import scorer_of
from mloc_tasks.executors.training.checkpoints import METRICS, Checkpoints, Clock, Schedule
from mloc_tasks.executors.training.executor import TrainingExecutor
from mloc_tasks.executors.training.loading import (
    Trainee,
    checkpoint_to_continue,
    load_for_training,
    training_checkpoint,
)
from mloc_tasks.executors.training.lora import unchanged_without, uses_lora
from mloc_tasks.executors.training.memory import memory_advice
from mloc_tasks.executors.training.metrics import MetricsLog
from mloc_tasks.executors.training.rank import is_first, rank, world_size
from mloc_tasks.executors.training.saving import result_of, save_trained
from mloc_tasks.executors.training.tokens import row_format
from mloc_tasks.models.library_messages import library_messages
from mloc_tasks.models.limits import context_length_of, end_tokens_of

SHOWN = ("mean_reward", "kl", "entropy", "loss")
"""Figures of a log line. The first is what the first documentation of MLOC shows."""


class PpoExecutor(TrainingExecutor):
    """Trains a language model on a reward by proximal policy optimisation; LoRA unless the spec asks for `full`."""

    name: ClassVar[str] = "ppo"
    family: ClassVar[str] = "ppo"
    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft")
    result_fields: ClassVar[frozenset[str] | None] = (TrainingExecutor.result_fields or frozenset()) | {"performance"}

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return refused(document) or super().unsupported(document)

    def train(self, task: Task, out_dir: Path) -> dict[str, Any]:
        if reason := self.unsupported(task["spec"]):
            raise ExecutionError(reason)
        if task.inputs is None:
            raise ExecutionError("ppo needs prompts to begin its rollouts with", hint="give data: {prompts: [...]}")
        settings = ppo_settings(
            task.spec.training, task.spec.generation, rows=len(task.inputs), lora=uses_lora(task.spec)
        )
        with memory_advice(task.spec, batch_size=-(-settings.rows_per_update // settings.slices)), ExitStack() as held:
            held.enter_context(library_messages(partial(task.report.log, level="warning")))
            return _Training(task, out_dir, settings, held).run()


class _Training:
    """One process's part of one training."""

    def __init__(self, task: Task, out_dir: Path, settings: PpoSettings, held: ExitStack) -> None:
        self._task = task
        self._out_dir = out_dir
        self._settings = settings
        self._held = held
        self._group = Group(rank=rank(), size=world_size())
        self._start = checkpoint_to_continue(task)

    def run(self) -> dict[str, Any]:
        task, settings = self._task, self._settings
        trainee, policy = self._loaded()
        prompts = self._prompts(trainee)
        data = task.spec.data
        scorer = scorer_of(
            task.spec.reward_model,
            separator=getattr(data, "separator", None),
            device=str(policy.device),
            cache_dir=cache_dir_of(task),
        )
        float16 = trainee.precision.compute == "float16"
        learner = Learner(policy, settings, group=self._group, float16=float16)
        self._go_on(learner)
        self._warn()
        sampler = Sampler(
            policy=policy,
            tokenizer=trainee.tokenizer,
            decoding=settings.decoding,
            end_tokens=end_tokens_of(policy.model, trainee.tokenizer),
            pad_token=int(trainee.tokenizer.pad_token_id),
        )
        log = self._metrics(learner)
        keep = self._checkpointing(learner, log, rows=len(prompts))

        took: list[Took] = []

        def after_step(step: int, values: Mapping[str, float], step_took: Took) -> None:
            took.append(step_took)
            if log is not None:
                log.record(step, values, done=step + 1)
                keep(step + 1)

        train(learner, sampler, prompts, scorer, settings, group=self._group, after_step=after_step)
        if log is None:
            return {}
        save_trained(task, self._out_dir, trainee, policy.model)
        return result_of(
            trainee,
            steps=learner.step,
            metrics=log.summary(),
            train_seconds=sum(each.sec for each in took),
            performance=_performance(took),
        )

    def _loaded(self) -> tuple[Trainee, Policy]:
        settings, spec = self._settings, self._task.spec
        # The weights of a training checkpoint in `checkpoint.load` come last: the reference must not be them.
        trainee = load_for_training(self._task, from_source=training_checkpoint(self._task) is not None)
        new_adapter = trainee.lora is not None and unchanged_without(trainee.lora)
        seed = spec.lora.seed if spec.lora is not None and spec.lora.seed is not None else settings.seed
        trainee = trainee.with_adapter(seed=seed)
        devices = set((getattr(trainee.model, "hf_device_map", None) or {}).values())
        if len(devices) > 1:
            raise ExecutionError(f"{NOT_SPREAD}: {', '.join(sorted(map(str, devices)))}", hint=INSTEAD_OF_SPREADING)
        if not devices:
            on = trainee.precision.device
            trainee.model.to(f"cuda:{rank()}" if on == "cuda" else on)
        policy = Policy(
            trainee.model,
            new_adapter=new_adapter,
            temperature=settings.decoding.temperature,
            autocast=trainee.precision.autocast,
            exact=not trainee.precision.mixed and trainee.precision.weights == "float32",
            checkpointing=settings.gradient_checkpointing,
        )
        return trainee, policy

    def _go_on(self, learner: Learner) -> None:
        """Take up the checkpoint, if there is one. Raises ExecutionError where nothing is left to do."""
        if self._start is None:
            return
        state.restore(learner, self._start)
        if learner.step >= self._settings.steps:
            raise ExecutionError(
                f"the checkpoint has {learner.step} steps behind it, and the stage asks for {self._settings.steps}",
                hint="raise training.steps or num_train_epochs",
            )
        self._say(f"going on from the checkpoint of step {learner.step}")

    def _prompts(self, trainee: Trainee) -> list[Prompt]:
        assert self._task.inputs is not None
        limits = (self._settings.most_tokens, context_length_of(trainee.model.config, trainee.tokenizer))
        prompts, cuts = encoded(
            self._task.inputs,
            trainee.tokenizer,
            form=row_format(trainee.tokenizer, separator=getattr(self._task.spec.data, "separator", None)),
            most_tokens=min((each for each in limits if each is not None), default=None),
            cut=self._settings.most_tokens is not None,
            new_tokens=self._settings.decoding.max_tokens,
        )
        if cuts:
            self._say(f"{cuts} of {len(prompts)} prompts were cut at their beginning", level="warning")
        return prompts

    def _metrics(self, learner: Learner) -> MetricsLog | None:
        if not is_first():
            return None
        log = MetricsLog(
            self._task,
            self._out_dir,
            label="PPO",
            shown=SHOWN,
            total=self._settings.steps,
            resumed=None if self._start is None else self._start / METRICS,
            step=learner.step - 1,
        )
        return self._held.enter_context(log)

    def _checkpointing(self, learner: Learner, log: MetricsLog | None, *, rows: int) -> Callable[[int], None]:
        """What is called with the number of steps done: it makes a checkpoint where one is due."""
        checkpoints = Checkpoints(self._task.checkpoint_dir, task_type=PpoExecutor.name)
        schedule = Schedule.of(self._task.spec.training)
        every = schedule.steps
        if schedule.epochs:
            every = max(1, rows // self._settings.batch_size)
        elif every is not None:
            every = max(1, round(every * self._settings.steps if every < 1 else every))
        clock = Clock(schedule.seconds)

        def keep(done: int) -> None:
            due = clock.due() or (every is not None and done % every == 0)
            if checkpoints.wanted and due and done < self._settings.steps:
                made = checkpoints.folder / f"{done}"
                state.save(learner, made)
                checkpoints.publish(made, step=done, metrics=None if log is None else log.path)
                clock.restart()

        return keep

    def _warn(self) -> None:
        decoding, lora = self._settings.decoding, self._task.spec.lora
        if decoding.top_k or decoding.top_p < 1 or decoding.min_p:
            self._say(
                "top_k, top_p and min_p draw from a part of the distribution, and PPO learns as if from all of it",
                level="warning",
            )
        if lora is not None and lora.dropout:
            self._say("lora.dropout is not used: PPO compares policies, which dropout would blur", level="warning")

    def _say(self, message: str, *, level: str = "info") -> None:
        if is_first():
            self._task.report.log(message, level=level)


def _performance(took: Sequence[Took]) -> dict[str, float]:
    """Of the steps of this attempt, the first left out where there are others: it is slower than they are."""
    steady = took[1:] or took
    sec = sum(each.sec for each in steady)
    if not sec:
        return {}
    return {
        "step_sec": round(sec / len(steady), 3),
        "rollout_sec": round(sum(each.rollout_sec for each in steady) / len(steady), 3),
        "tokens_per_sec": round(sum(each.tokens for each in steady) / sec, 3),
    }
