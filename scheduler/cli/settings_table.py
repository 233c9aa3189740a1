"""Every environment variable of MLOC, from the settings class itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from mloc_tasks.redis_url import without_password
from mloc_tasks.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """An environment variable. `value` is as it stands in the environment, the default where it does not; passwords
    are masked. `aliases` are other names it is read from."""

    name: str
    aliases: tuple[str, ...]
    value: str
    is_set: bool
    default: str
    meaning: str


def variables() -> list[Variable]:
    """All of them, in the order of the settings class, also where the environment does not parse."""
    return [_variable(name, field) for name, field in Settings.model_fields.items()]


def _variable(field_name: str, field: FieldInfo) -> Variable:
    alias = field.validation_alias
    names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [field_name.upper()]
    found = next((os.environ[name] for name in names if os.environ.get(name)), None)
    default = _shown(field.get_default())
    return Variable(
        name=names[0],
        aliases=tuple(names[1:]),
        value=default if found is None else _shown(found),
        is_set=found is not None,
        default=default,
        meaning=(field.description or "") + (f" (also {', '.join(names[1:])})" if names[1:] else ""),
    )


def _shown(value: Any) -> str:
    """A value as one would write it in the environment."""
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return without_password(str(value))
