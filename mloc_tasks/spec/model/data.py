"""Where a stage's rows come from. Each form is one model; `type` tells them apart."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from mloc_tasks.spec.expressions import parse_whole_reference
from mloc_tasks.spec.model.base import Count, PositiveCount, SpecModel, Text, refuse
from mloc_tasks.spec.names import shown

_KEY_OF_FORM = {
    "items": "list",
    "preferences": "preferences",
    "stage": "stage",
    "template": "graph_template",
}


def check_items(value: object) -> list[Any]:
    """Inline inputs: each a string, or a list of chat messages `{role, content}`.

    A reference in place of the whole list stands for items that are not known yet: none.
    """
    if parse_whole_reference(value) is not None:
        return []
    if isinstance(value, str):
        raise refuse("must be a list of prompts", "write it as a list with one entry: `- ...`")
    if not isinstance(value, list | tuple):
        raise refuse(f"must be a list of prompts, not {shown(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            _check_messages(item, (index,))
    return list(value)


def check_text(value: object) -> Any:
    """A text, or a list of chat messages `{role, content}`."""
    if not isinstance(value, str):
        _check_messages(value, ())
    return value


def _check_messages(item: object, at: tuple[int, ...]) -> None:
    advice = "an item is a string or a list of chat messages {role, content}; quote a text that reads as something else"
    if not isinstance(item, list) or not item:
        raise refuse(f"{shown(item)} is not an input", advice, at=at)
    for position, message in enumerate(item):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise refuse(
                f"{shown(message)} is not a chat message", "write {role: user, content: ...}", at=(*at, position)
            )
        if not isinstance(message["content"], str | list):
            raise refuse(f"{shown(message['content'])} is not text", at=(*at, position, "content"))


_TEXT_OR_MESSAGES: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array"]}},
                "required": ["role", "content"],
            },
        },
    ]
}
Items = Annotated[
    list[Any], BeforeValidator(check_items), WithJsonSchema({"type": "array", "items": _TEXT_OR_MESSAGES})
]
TextOrMessages = Annotated[str | list[Any], BeforeValidator(check_text), WithJsonSchema(_TEXT_OR_MESSAGES)]


class Columns(SpecModel):
    """Which columns of the rows are what, for training and evaluation."""

    column: Text | None = Field(None, description="Column of the input.")
    prompt_column: Text | None = Field(None, description="Column of the prompt.")
    response_column: Text | None = Field(None, description="Column of the wanted answer (`sft`).")
    chosen_column: Text | None = Field(None, description="Column of the better answer (`dpo`, `reward`).")
    rejected_column: Text | None = Field(None, description="Column of the worse answer (`dpo`, `reward`).")
    separator: str | None = Field(None, description="Text between prompt and answer where they are joined.")


class Selection(Columns):
    """Which of the rows, and in which order."""

    shuffle: bool = Field(False, description="Shuffle the rows.")
    seed: Count | None = Field(None, description="Seed of the shuffle.")
    max_samples: PositiveCount | None = Field(None, description="Only the first so many rows (after the shuffle).")


class ListData(Selection):
    """Rows written in the spec itself."""

    other_names: ClassVar[dict[str, str]] = {"prompts": "items"}

    type: Literal["list"] = "list"
    items: Items = Field(description="Inputs; each a string or a list of chat messages. `prompts` is the same.")


class DatasetData(Selection):
    """A dataset, read by `datasets.load_dataset`."""

    other_names: ClassVar[dict[str, str]] = {
        "dataset_name": "url",
        "dataset": "url",
        "path": "url",
        "config_name": "name",
    }

    type: Literal["dataset"] = "dataset"
    url: Text = Field(description="Name on the hub or directory; `dataset_name` is the same.")
    name: Text | None = Field(None, description="Configuration of the dataset; `config_name` is the same.")
    split: Text = Field("train", description="Split, also a slice such as `train[:1%]`.")
    revision: Text | None = Field(None, description="Branch, tag or commit.")


class FileData(Selection):
    """A file or a glob of files, streamed."""

    other_names: ClassVar[dict[str, str]] = {"path": "url"}

    type: Literal["file"] = "file"
    url: Text = Field(description="Path, glob, `s3://` or `http://` address; `path` is the same.")
    format: Literal["jsonl", "json", "csv", "parquet", "text"] | None = Field(
        None, description="By default what the name's ending says."
    )


class StageData(Selection):
    """The items of an upstream stage."""

    type: Literal["stage"] = "stage"
    stage: Text = Field(description="Name of the stage.")


class TemplateColumn(SpecModel):
    """One upstream value in a joined prompt."""

    label: str = Field("", description="Text before the value.")
    node: Text = Field(description="Stage whose result it is taken from.")
    path: Text = Field("items", description="Where in that result, such as `items[0].output`.")


class Template(SpecModel):
    """How upstream values are joined into one prompt."""

    name: Text = Field(description="Name of the prompt.")
    columns: tuple[TemplateColumn, ...] = Field(min_length=1, description="The values, in order.")


class GraphTemplateData(Columns):
    """One prompt joined out of several upstream values."""

    type: Literal["graph_template"] = "graph_template"
    template: Template = Field(description="How the values are joined.")


class Preference(SpecModel):
    """Two answers to one prompt, the better one named."""

    prompt: TextOrMessages = Field(description="Text or chat messages.")
    chosen: TextOrMessages = Field(description="The better answer.")
    rejected: TextOrMessages = Field(description="The worse answer.")


class PreferencesData(Selection):
    """Preference pairs written in the spec itself."""

    type: Literal["preferences"] = "preferences"
    preferences: tuple[Preference, ...] = Field(min_length=1, description="The pairs.")


Data = Annotated[
    ListData | DatasetData | FileData | StageData | GraphTemplateData | PreferencesData,
    Field(discriminator="type"),
]

DATA_FORMS: dict[str, type[Columns]] = {
    "list": ListData,
    "dataset": DatasetData,
    "file": FileData,
    "stage": StageData,
    "graph_template": GraphTemplateData,
    "preferences": PreferencesData,
}


def form_of(keys: set[str], data: dict[str, Any]) -> str | None:
    """The form that a `data` mapping has, by its `type` or by the keys that only one form has; None when neither says.

    `keys` are the mapping's keys in snake_case.
    """
    named = data.get("type")
    if named is not None:
        return named if isinstance(named, str) and named in DATA_FORMS else None
    if keys & {"items", "prompts"}:
        return "list"
    if keys & {"dataset_name", "dataset", "config_name", "split"}:
        return "dataset"
    for key, form in _KEY_OF_FORM.items():
        if key in keys:
            return form
    return "file" if keys & {"path", "format"} else None


def normal_data(value: Any) -> Any:
    """`data` in its canonical form: a mapping with `type`, and with one name for each key.

    A bare reference to a stage or its items becomes `{type: stage}`, to anything else `{type: list}` whose items it is.
    What has no form that can be told is returned as it is; validation says what is missing.
    """
    if isinstance(value, str):
        reference = parse_whole_reference(value)
        if reference is None:
            return value
        if reference.path in ((), ("items",)):
            return {"type": "stage", "stage": reference.stage}
        return {"type": "list", "items": value}
    if not isinstance(value, dict):
        return value
    form = form_of({key for key in value if isinstance(key, str)}, value)
    if form is None:
        return value
    other_names = DATA_FORMS[form].other_names
    renamed = {other_names.get(key, key): entry for key, entry in value.items() if key != "type"}
    return {"type": form, **renamed} if len(renamed) + ("type" in value) == len(value) else value
