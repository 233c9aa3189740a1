"""Sampling, and what is done to prompts and completions."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mloc_tasks.spec.model.base import (
    Count,
    NotNegative,
    Number,
    Positive,
    PositiveCount,
    PositiveShare,
    Share,
    SpecModel,
    Text,
    refuse,
    whole,
)
from mloc_tasks.spec.quantities import QuantityError, parse_number, parse_whole


def _failures(value: object) -> int | float:
    """`5`, `"5"` (a number of rows), `0.1` or `"10%"` (a share of them)."""
    try:
        if isinstance(value, str) and value.strip().endswith("%"):
            share = parse_number(value.strip()[:-1]) / 100
            if 0 <= share <= 1:
                return share
        number = parse_number(value)
        if 0 <= number < 1 and number != int(number):
            return number
        if (whole := parse_whole(value)) >= 0:
            return whole
    except QuantityError:
        pass
    raise refuse("must be a number of rows such as 5, or a share such as 10% or 0.1")


def _stops(value: object) -> object:
    return (value,) if isinstance(value, str) else value


FailedItems = Annotated[
    int | float,
    BeforeValidator(_failures),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?%?\s*$"}]}
    ),
]
Stops = Annotated[
    tuple[Text, ...],
    BeforeValidator(_stops),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Sampling(SpecModel):
    """How the next token is chosen, and when to end."""

    other_names: ClassVar[dict[str, str]] = {"max_new_tokens": "max_tokens"}

    max_tokens: PositiveCount | None = Field(None, description="New tokens at most; `max_new_tokens` is the same.")
    min_tokens: Count | None = Field(None, description="New tokens before the end may come.")
    temperature: NotNegative | None = Field(None, description="0 is greedy; 1 samples from the model as it is.")
    top_p: PositiveShare | None = Field(None, description="Sample from the likeliest tokens of this total probability.")
    top_k: Annotated[int, whole(least=-1)] | None = Field(
        None, description="Sample from the k likeliest tokens; 0 or -1 is all of them."
    )
    min_p: Share | None = Field(None, description="Drop tokens less likely than this share of the likeliest.")
    seed: Count | None = Field(None, description="Seed of the sampling.")
    stop: Stops = Field((), description="Text, or list of texts, before which the output ends.")
    ignore_eos: bool = Field(False, description="Go on after the end-of-sequence token (for measurements).")
    repetition_penalty: Positive | None = Field(None, description="Above 1 makes tokens seen before less likely.")
    presence_penalty: Number | None = Field(None, description="Taken from the score of tokens in the output so far.")
    frequency_penalty: Number | None = Field(None, description="The same, once for each time that they occurred.")


class Inference(Sampling):
    """Sampling for stages of task type `inference`."""

    n: PositiveCount = Field(1, description="Outputs for each input.")
    logprobs: Count | bool | None = Field(
        None, description="Return log-probabilities of this many tokens per position."
    )
    system_prompt: str | None = Field(None, description="System message before every input.")
    chat: bool | None = Field(None, description="Use the chat template; by default where the model has one.")
    prompts: Any = Field(None, description="Inline inputs, the same as `data.prompts`.")
    batch_size: PositiveCount | None = Field(None, description="Inputs in one batch, where the engine does not choose.")
    json_schema: dict[str, Any] | None = Field(None, description="JSON Schema that the output follows.")
    regex: Text | None = Field(None, description="Regular expression that the output matches.")
    choice: tuple[Text, ...] | None = Field(None, min_length=1, description="The output is one of these.")
    max_failed_items: FailedItems = Field(
        0, description="Rows, or share of rows, that may fail; 0 reports failures without failing the stage."
    )

    @model_validator(mode="after")
    def _one_structure(self) -> Self:
        given = [name for name in ("json_schema", "regex", "choice") if getattr(self, name) is not None]
        if len(given) > 1:
            raise refuse(f"`{given[0]}` and `{given[1]}` exclude each other", "keep one", at=(given[1],))
        return self


class Generation(Sampling):
    """Sampling of completions while training with `ppo` or `grpo`."""

    do_sample: bool = Field(True, description="False is greedy.")
