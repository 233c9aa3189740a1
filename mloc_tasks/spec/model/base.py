"""What all models of the language share: strictness, and the types of its values."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from mloc_tasks.spec import quantities

T = TypeVar("T")

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


def _parsed_by(parse: Callable[[object], T]) -> BeforeValidator:
    def validate(value: object) -> T:
        try:
            return parse(value)
        except quantities.QuantityError as error:
            raise refuse(str(error), error.suggestion) from None

    return BeforeValidator(validate)


def _number_or_text(kind: str, **limits: float) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": kind, **limits}, {"type": "string", "pattern": NUMBER_TEXT}]})


_WHOLE = _parsed_by(quantities.parse_whole)
_NUMBER = _parsed_by(quantities.parse_number)
LARGEST = 2**53
"""Whole numbers stay exact in every JSON reader up to here."""

Whole = Annotated[int, _WHOLE, Field(ge=-LARGEST, le=LARGEST), _number_or_text("integer")]
Priority = Annotated[int, _WHOLE, Field(ge=0, le=9), _number_or_text("integer", minimum=0, maximum=9)]
Count = Annotated[int, _WHOLE, Field(ge=0, le=LARGEST), _number_or_text("integer", minimum=0)]
PositiveCount = Annotated[int, _WHOLE, Field(ge=1, le=LARGEST), _number_or_text("integer", minimum=1)]
Number = Annotated[float, _NUMBER, _number_or_text("number")]
NotNegative = Annotated[float, _NUMBER, Field(ge=0), _number_or_text("number", minimum=0)]
Positive = Annotated[float, _NUMBER, Field(gt=0), _number_or_text("number", exclusiveMinimum=0)]
Share = Annotated[float, _NUMBER, Field(ge=0, le=1), _number_or_text("number", minimum=0, maximum=1)]
PositiveShare = Annotated[float, _NUMBER, Field(gt=0, le=1), _number_or_text("number", exclusiveMinimum=0, maximum=1)]
Bytes = Annotated[
    int,
    _parsed_by(quantities.parse_bytes),
    Field(ge=0, le=LARGEST),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([KMGTP]i?B?|k|B)?\s*$"},
            ],
            "examples": ["32Gi", "16G"],
        }
    ),
]
Cores = Annotated[
    float,
    _parsed_by(quantities.parse_cpus),
    Field(ge=0),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?m?\s*$"}]}
    ),
]
Seconds = Annotated[
    float,
    _parsed_by(quantities.parse_seconds),
    Field(gt=0),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^\s*(\d+(\.\d+)?\s*(ms|s|sec|m|min|h|d|w)?\s*)+$"},
            ],
            "examples": ["2h", "30m", 90],
        }
    ),
]
Text = Annotated[str, Field(min_length=1)]
PassThrough = dict[str, Any]
"""A mapping whose keys belong to somebody else; nothing in it is checked."""
