"""What all models of the language share: strictness, and the types of its values."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from mloc_tasks.spec import quantities
from mloc_tasks.spec.names import shown

LARGEST = 2**53
"""Whole numbers stay exact in every JSON reader up to here."""
NUMBER_TEXT = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


class SpecModel(BaseModel):
    """One mapping of the language. Keys are its field names in snake_case; the loader brings others to that form.

    Class attributes:
        other_names: further spellings of a key -> the field's name. camelCase needs no entry.
        retired: keys of older versions that do nothing today -> why; they are dropped with a warning.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )

    other_names: ClassVar[dict[str, str]] = {}
    retired: ClassVar[dict[str, str]] = {}


def refuse(message: str, suggestion: str = "", *, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """A validator's refusal, with what to write instead and, inside a larger value, where (`at`)."""
    return PydanticCustomError("spec", "{message}", {"message": message, "suggestion": suggestion, "at": at})


class Parsed:
    """Annotation of a value that `parse` reads and that lies within limits.

    It makes the validator itself: pydantic's own chain of parser, type and bounds takes several times as long to build,
    and the language has a hundred such fields.

    Args:
        parse: from what YAML may hold to a number; raises `QuantityError`.
        kind: JSON type of the number.
        pattern: regular expression of its text form.
        above, least, most: limits; `above` itself is outside.
    """

    def __init__(
        self,
        parse: Callable[[object], int | float],
        kind: str = "number",
        *,
        pattern: str = NUMBER_TEXT,
        above: int | None = None,
        least: int | None = None,
        most: int | None = None,
        examples: Sequence[object] = (),
    ) -> None:
        def validate(value: object) -> int | float:
            try:
                number = parse(value)
            except quantities.QuantityError as error:
                raise refuse(str(error), error.suggestion) from None
            if above is not None and number <= above:
                raise refuse(f"{shown(value)} must be greater than {above}")
            if least is not None and number < least:
                raise refuse(f"{shown(value)} must be at least {least}")
            if most is not None and number > most:
                raise refuse(f"{shown(value)} must be at most {most}")
            return number

        limits = {"exclusiveMinimum": above, "minimum": least, "maximum": None if most == LARGEST else most}
        written = {"type": kind, **{name: limit for name, limit in limits.items() if limit is not None}}
        self._json_schema: dict[str, Any] = {"anyOf": [written, {"type": "string", "pattern": pattern}]}
        if examples:
            self._json_schema["examples"] = list(examples)
        self._core_schema = core_schema.no_info_plain_validator_function(validate)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return self._core_schema.copy()

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return deepcopy(self._json_schema)


def whole(*, least: int, most: int = LARGEST) -> Parsed:
    """Annotation of a whole number between `least` and `most`."""
    return Parsed(quantities.parse_whole, "integer", least=least, most=most)


Priority = Annotated[int, whole(least=0, most=9)]
Count = Annotated[int, whole(least=0)]
PositiveCount = Annotated[int, whole(least=1)]
Number = Annotated[float, Parsed(quantities.parse_number)]
NotNegative = Annotated[float, Parsed(quantities.parse_number, least=0)]
Positive = Annotated[float, Parsed(quantities.parse_number, above=0)]
Share = Annotated[float, Parsed(quantities.parse_number, least=0, most=1)]
PositiveShare = Annotated[float, Parsed(quantities.parse_number, above=0, most=1)]
Bytes = Annotated[
    int,
    Parsed(
        quantities.parse_bytes,
        "integer",
        pattern=r"^\s*\d+(\.\d+)?\s*([KMGTP]i?B?|k|B)?\s*$",
        least=0,
        most=LARGEST,
        examples=("32Gi", "16G"),
    ),
]
Cores = Annotated[float, Parsed(quantities.parse_cpus, pattern=r"^\s*\d+(\.\d+)?m?\s*$", least=0)]
Seconds = Annotated[
    float,
    Parsed(
        quantities.parse_seconds,
        pattern=r"^\s*(\d+(\.\d+)?\s*(ms|s|sec|m|min|h|d|w)?\s*)+$",
        above=0,
        examples=("2h", "30m", 90),
    ),
]
Text = Annotated[str, Field(min_length=1)]
PassThrough = dict[str, Any]
"""A mapping whose keys belong to somebody else; nothing in it is checked."""
