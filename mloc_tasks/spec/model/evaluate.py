"""How a stage of task type `evaluate` scores answers: metrics, and where the expected answers come from."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mloc_tasks.spec.expressions import has_expression, parse_whole_reference
from mloc_tasks.spec.metrics import BUILT_IN_METRICS, installed_metrics
from mloc_tasks.spec.model.base import Count, PositiveCount, SpecModel, Text, refuse
from mloc_tasks.spec.model.inference import FailedItems
from mloc_tasks.spec.names import did_you_mean, shown

NORMALISATIONS = ("case", "whitespace", "punctuation")
_METRIC_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_STEP = re.compile(r"(?:^|\.)([A-Za-z0-9_][A-Za-z0-9_-]*)|\[(-?\d{1,9})\]")
_KEYS_OF = {
    "exact_match": {"normalize"},
    "contains": {"normalize"},
    "regex": {"normalize", "pattern", "group", "occurrence", "reference_pattern", "compare"},
    "function": {"function"},
}


def parse_item_path(text: str) -> tuple[str | int, ...]:
    """`input[0].content` -> `("input", 0, "content")`. Raises ValueError for what is no path."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None or (not steps and (step[1] is None or step[0].startswith("."))):
            raise ValueError(f"{shown(text)} is not a path into an item")
        steps.append(step[1] if step[1] is not None else int(step[2]))
        position = step.end()
    return tuple(steps)


def _normalisations(value: object) -> object:
    if isinstance(value, bool):
        return NORMALISATIONS if value else ()
    return (value,) if isinstance(value, str) else value


def _group(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise refuse(f"{shown(value)} is not a group of a regular expression", "give its number or its name")
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Normalisations = Annotated[
    tuple[Literal["case", "whitespace", "punctuation"], ...],
    BeforeValidator(_normalisations),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "boolean"},
                {"enum": list(NORMALISATIONS)},
                {"type": "array", "items": {"enum": list(NORMALISATIONS)}},
            ]
        }
    ),
]
Group = Annotated[
    int | str, BeforeValidator(_group), WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})
]


def _or_text(schema: dict[str, Any]) -> None:
    schema["items"] = {"anyOf": [schema["items"], {"type": "string"}]}
    schema["minItems"] = 1


def _or_list(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [*schema["anyOf"], {"type": "array"}]


class Metric(SpecModel):
    """One metric; a bare name stands for a metric with nothing but its `type`."""

    type: Text = Field(description="`exact_match`, `contains`, `regex`, `function`, or one that a plugin brings.")
    name: Text | None = Field(None, description="What the results call it; by default its type.")
    normalize: Normalisations = Field(
        (), description="What does not count when texts are compared: `case`, `whitespace`, `punctuation`; true is all."
    )
    pattern: Text | None = Field(None, description="Regular expression (Python's) to search in the output (`regex`).")
    group: Group | None = Field(
        None, description="Which of its groups is the answer: number or name; by default the first, or the whole match."
    )
    occurrence: Literal["first", "last"] = Field("first", description="Which match counts when there are several.")
    reference_pattern: Text | None = Field(
        None, description="Regular expression that finds the answer in the reference as well, by the same group."
    )
    compare: bool | None = Field(
        None,
        description="Compare what the pattern finds with the reference; false: a match is enough. "
        "By default where the stage has references.",
    )
    function: Text | None = Field(
        None, description="`module:function` that takes output, reference and item (`function`)."
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        bare = isinstance(value, str)
        found = {"type": value} if bare else value
        name = found.get("type") if isinstance(found, dict) else None
        if isinstance(name, str) and name and not has_expression(name) and name not in BUILT_IN_METRICS:
            known = [*BUILT_IN_METRICS, *sorted(installed_metrics())]
            if name not in known:
                advice = did_you_mean(name, known) or f"known are {', '.join(known)}"
                raise refuse(f"unknown metric {shown(name)}", advice, at=() if bare else ("type",))
        return found

    @model_validator(mode="after")
    def _fits(self) -> Self:
        allowed = _KEYS_OF.get(self.type, set())
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        for key in sorted(given - {"type", "name"} - allowed):
            owners = ", ".join(name for name, keys in _KEYS_OF.items() if key in keys)
            raise refuse(f"`{key}` means nothing to the metric {self.type}", f"it is for {owners}", at=(key,))
        if not _METRIC_NAME.fullmatch(self.label):
            advice = "use letters, digits, - and _, so that `${stage.result.metrics.NAME}` can refer to it"
            raise refuse(f"{shown(self.label)} cannot be a metric's name", advice, at=("name",))
        if self.type == "regex":
            self._check_patterns()
        if self.type == "function":
            self._check_function()
        return self

    @property
    def label(self) -> str:
        """What the results call it."""
        return self.name or self.type

    def needs_reference(self) -> bool:
        """Whether it can score nothing without expected answers."""
        return self.type in ("exact_match", "contains") or (self.type == "regex" and self.compare is True)

    def _check_patterns(self) -> None:
        if self.pattern is None:
            raise refuse("the metric regex needs a `pattern`", r"such as pattern: '#### (-?\d+)'")
        for key in ("pattern", "reference_pattern"):
            text = getattr(self, key)
            if text is not None and not has_expression(text):
                _check_pattern(key, text, self.group)

    def _check_function(self) -> None:
        if self.function is None:
            raise refuse("the metric function needs a `function`", "such as function: my_package.metrics:score")
        if not has_expression(self.function) and not _FUNCTION.fullmatch(self.function):
            advice = "write module:function, such as my_package.metrics:score"
            raise refuse(f"{shown(self.function)} does not name a function", advice, at=("function",))


def _check_pattern(key: str, text: str, group: int | str | None) -> None:
    try:
        compiled = re.compile(text)
    except re.error as error:
        where = f" at character {error.pos + 1} of {shown(text)}" if error.pos is not None else f": {shown(text)}"
        raise refuse(f"not a regular expression: {error.msg}{where}", at=(key,)) from None
    there = compiled.groupindex if isinstance(group, str) else range(compiled.groups + 1)
    if group is not None and group not in there:
        groups = ", ".join(compiled.groupindex) if isinstance(group, str) else str(compiled.groups)
        has = f"it has {groups or 'none'}" if isinstance(group, str) else f"it has {groups} in parentheses"
        raise refuse(f"{shown(text)} has no group {shown(group)}", has, at=("group",))


class References(SpecModel):
    """The expected answers, one for each row of the stage's data, in the same order."""

    other_names: ClassVar[dict[str, str]] = {
        "path": "url",
        "dataset": "url",
        "dataset_name": "url",
        "config_name": "name",
        "values": "items",
    }

    type: Literal["list", "file", "dataset"] = Field(description="Where they stand; a list is `list`.")
    items: tuple[Any, ...] = Field((), description="The answers themselves; a list among them is several right ones.")
    url: Text | None = Field(None, description="Of a file: path, glob or address. Of a dataset: its name or directory.")
    column: Text | None = Field(None, description="Column of the expected answers.")
    format: Literal["jsonl", "json", "csv", "parquet", "text"] | None = Field(
        None, description="Of a file; by default what the name's ending says."
    )
    name: Text | None = Field(None, description="Configuration of the dataset.")
    split: Text = Field("train", description="Split of the dataset, also a slice such as `test[:100]`.")
    revision: Text | None = Field(None, description="Branch, tag or commit of the dataset.")
    shuffle: bool = Field(False, description="Shuffle the rows, as the stage that answered them did.")
    seed: Count | None = Field(None, description="Seed of the shuffle.")
    max_samples: PositiveCount | None = Field(None, description="Only the first so many rows (after the shuffle).")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        # A reference in place of the list stands for answers that are not known yet.
        if parse_whole_reference(value) is not None:
            return {"type": "list"}
        if isinstance(value, list | tuple):
            return {"type": "list", "items": value}
        if isinstance(value, dict) and "type" not in value and "items" in value:
            return {"type": "list", **value}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "list":
            return self
        if self.url is None:
            raise refuse(f"references of type {self.type} need a `url`")
        text = self.format == "text" or (self.format is None and self.url.lower().endswith((".txt", ".text")))
        if self.column is None and (self.type == "dataset" or not text):
            raise refuse("references need a `column`", "name the column of the expected answers")
        return self


class Evaluate(SpecModel):
    """What a stage of task type `evaluate` measures."""

    other_names: ClassVar[dict[str, str]] = {"reference_column": "reference_path"}

    metrics: tuple[Metric, ...] = Field(description="What is measured.", json_schema_extra=_or_text)
    references: References | None = Field(
        None, description="Expected answers: a list, or a file or dataset with a column.", json_schema_extra=_or_list
    )
    reference_path: Text | None = Field(
        None,
        description="Where the expected answer stands in each upstream item, such as `input`; "
        "or the column of a file or dataset (`reference_column` is the same).",
    )
    output_path: Text = Field("output", description="Where the answer stands in each upstream item.")
    failed_rows: Literal["zero", "leave_out"] = Field(
        "zero", description="Rows without an answer or without a score: count as 0, or are left out of the means."
    )
    max_failed_items: FailedItems = Field(
        0, description="Rows, or share of rows, that may fail; 0 reports failures without failing the stage."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.metrics:
            # Not `min_length`, which also counts what was refused already.
            raise refuse("must not be empty", at=("metrics",))
        for key in ("reference_path", "output_path"):
            text = getattr(self, key)
            if text is None or has_expression(text):
                continue
            try:
                parse_item_path(text)
            except ValueError as error:
                raise refuse(str(error), "write it like input[0].content", at=(key,)) from None
        if self.references is not None and self.reference_path is not None:
            raise refuse("`references` and `reference_path` exclude each other", "keep one", at=("reference_path",))
        seen: set[str] = set()
        for index, metric in enumerate(self.metrics):
            if metric.label in seen:
                advice = "give one of them another `name`"
                raise refuse(f"two metrics are called `{metric.label}`", advice, at=("metrics", index))
            seen.add(metric.label)
        if not self.has_references:
            self._need_no_references()
        return self

    @property
    def has_references(self) -> bool:
        """Whether expected answers are given."""
        return self.references is not None or self.reference_path is not None

    def _need_no_references(self) -> None:
        for index, metric in enumerate(self.metrics):
            if metric.needs_reference():
                raise refuse(
                    f"the metric `{metric.label}` needs references",
                    "add references: [...] or {type: file, url: ..., column: ...}, or reference_path: input",
                    at=("metrics", index),
                )
