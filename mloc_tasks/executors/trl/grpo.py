"""Group relative policy optimization (Shao et al. 2024): of a prompt's completions the better ones become likelier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from mloc_tasks.errors import ExecutionError, InputError
from mloc_tasks.executors.generation.prompts import PromptEncoder, RowError
from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.training.loading import Trainee, load_for_training, load_model
from mloc_tasks.executors.training.rank import world_size
from mloc_tasks.executors.training.tokens import RowFormat, row_format
from mloc_tasks.executors.trl.arguments import GRPO, Method
from mloc_tasks.executors.trl.completion_rewards import GIVEN, given, rewards_of
from mloc_tasks.executors.trl.executor import TrlExecutor
from mloc_tasks.executors.trl.groups import Groups, groups_of, processes_of
from mloc_tasks.executors.trl.reference import grpo_reference, keep_out_of_checkpoints, load_with_reference
from mloc_tasks.models.limits import context_length_of

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Rows, Task, TrainingRow
    from mloc_tasks.executors.training.precision import Precision

NEW_TOKENS = 256  # of TRL

NOT_SAMPLED: Mapping[str, str] = {
    "min_tokens": "write training: {generation_kwargs: {min_new_tokens: ...}}",
    "stop": "completions end with the model's own end-of-text tokens",
    "ignore_eos": "completions end with the model's own end-of-text tokens",
    "presence_penalty": "generation.repetition_penalty is there",
    "frequency_penalty": "generation.repetition_penalty is there",
    "seed": "training.seed is the seed of everything random",
}
"""What `generation` can say and TRL's sampling while training cannot do -> what there is instead."""


class GrpoExecutor(TrlExecutor):
    """`grpo`: rewards by `training.reward_functions` and `reward_model`, each completion against its group's others.

    There is a reference with `training.beta` above 0 only (TRL's default is 0). With a new adapter that is the same
    model with the adapter switched off; when all weights are trained it is a second model in memory.
    """

    name: ClassVar[str] = "grpo"
    method: ClassVar[Method] = GRPO

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return super().unsupported(document) or unfit(document)

    def train(self, task: Task, out_dir: Any) -> dict[str, Any]:
        groups = _groups(task)
        if reason := unfit(task["spec"]) or groups.problem():
            raise ExecutionError(reason)
        return super().train(task, out_dir)

    def load(self, task: Task) -> Trainee:
        compared = given_arguments(task.spec).get("beta")
        return load_with_reference(task, method="GRPO") if compared else load_for_training(task)

    def rows(self, inputs: Rows[TrainingRow], task: Task, trainee: Trainee) -> Iterable[TrainingRow]:
        form = row_format(trainee.tokenizer, separator=None if task.spec.data is None else task.spec.data.separator)
        return _Prompts(task, trainee, form).of(inputs)

    def trainer_arguments(self, task: Task, trainee: Trainee) -> dict[str, Any]:
        keep_out_of_checkpoints(trainee)
        return {"reward_funcs": rewards_of(task, device=trainee.precision.device)}

    def callbacks(self, trainer: Any) -> Sequence[Any]:
        from mloc_tasks.executors.trl.generations import WholeGenerations

        return [WholeGenerations(trainer)]

    def _trainer(self, task: Task, trainee: Trainee, config: Any, dataset: Any) -> Any:
        needed = config.generation_batch_size // config.num_generations
        if len(dataset) < needed:
            raise ExecutionError(
                f"a generation takes {needed} prompts ({config.generation_batch_size} completions, "
                f"{config.num_generations} of each), and the data has {len(dataset)}",
                hint="lower training.batch_size or raise training.num_generations, or give more prompts",
            )
        compared = config.beta != 0 and not trainee.adapts
        load = lambda: load_model(task.spec, trainee.files, trainee.precision)  # noqa: E731
        with grpo_reference(load) if compared else nullcontext():
            trainer = super()._trainer(task, trainee, config, dataset)
        if trainee.adapts and trainee.precision.mixed:
            _generate_in_mixed_formats(trainer.model, trainee.precision)
        return trainer


def unfit(document: Mapping[str, Any]) -> str | None:
    """Why GRPO cannot do what a stage's document says, with snake_case keys, or None."""
    training, generation = document.get("training") or {}, document.get("generation") or {}
    for name, instead in NOT_SAMPLED.items():
        if generation.get(name) not in (None, False, (), [], 0):
            return f"generation.{name} cannot be set for grpo: {instead}"
    if generation.get("do_sample") is False or generation.get("temperature") == 0:
        return (
            "grpo learns from what differs between samples, and greedy decoding draws always the same: set "
            "generation.temperature above 0, and leave out do_sample: false"
        )
    for ours, theirs in GRPO.generation_names.items():
        if generation.get(ours) is not None and training.get(theirs) is not None:
            return f"generation.{ours} and training.{theirs} mean the same: keep one"
    processes = processes_of(document)
    groups = None if processes is None else groups_of(training, processes=processes)
    return None if groups is None else groups.problem()


def _generate_in_mixed_formats(model: Any, precision: Precision) -> None:
    """TRL has an adapter's model generate without autocast, which layers in float32 among others in 16 bits need."""
    adapter = model.peft_config["default"]
    if not adapter.modules_to_save and adapter.bias == "none":
        return
    generate = model.generate

    def with_autocast(*inputs: Any, **more: Any) -> Any:
        with precision.autocast():
            return generate(*inputs, **more)

    model.generate = with_autocast


def _groups(task: Task) -> Groups:
    training = {} if task.spec.training is None else task.spec.training.model_dump(exclude_none=True)
    found = groups_of({**training, **training.get("extra", {})}, processes=world_size())
    assert found is not None
    return found


class _Prompts:
    """Prompts in the form that the trainer reads, each beside the row that it came from, for reward functions."""

    def __init__(self, task: Task, trainee: Trainee, form: RowFormat) -> None:
        generation, training = task.spec.generation, task.spec.training
        asked = None if generation is None else generation.max_tokens
        self._new: int = asked or given_arguments(task.spec).get("max_completion_length") or NEW_TOKENS
        self._most = None if training is None else training.max_seq_length
        self._context = context_length_of(trainee.model.config, trainee.tokenizer)
        self._encoder = PromptEncoder(
            tokenizer=trainee.tokenizer, chat=form.chat, system_prompt=None, context_length=None
        )
        self._form = form
        self._report = task.report

    def of(self, rows: Iterable[TrainingRow]) -> Iterator[TrainingRow]:
        """Rows for the trainer. Raises InputError, naming the row, for one that cannot be a prompt."""
        left_out = total = 0
        for number, row in enumerate(rows):
            total += 1
            try:
                prompt = self._form.conversation({"prompt": row["prompt"]})["prompt"]
                tokens = len(self._encoder.encode(prompt)) + self._new
            except (RowError, InputError) as error:
                raise InputError(f"row {number}: {error}", hint=getattr(error, "hint", "")) from error
            if self._most is not None and tokens > self._most:
                left_out += 1
                continue
            if self._context is not None and tokens > self._context:
                raise InputError(
                    f"row {number}: prompt and {self._new} new tokens are {tokens}, more than the model's context of "
                    f"{self._context}",
                    hint="lower generation.max_new_tokens, or set training.max_seq_length to leave such rows out",
                )
            yield {"prompt": prompt, GIVEN: given(row)}
        if left_out:
            message = f"{left_out} of {total} rows are left out: with {self._new} new tokens they are longer than "
            message += f"training.max_seq_length, {self._most}"
            if left_out == total:
                raise InputError(message, hint="raise training.max_seq_length, or lower generation.max_new_tokens")
            self._report.log(message, level="warning")
