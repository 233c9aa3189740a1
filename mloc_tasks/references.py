"""`${stage.result.PATH}` in a stage's document, resolved against the results of its upstream stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mloc_tasks.errors import UnresolvedReferenceError
from mloc_tasks.spec.expressions import EnvReference, Reference, get_path, substitute

ResultOf = Callable[[str], dict[str, Any]]


def resolve(document: dict[str, Any], result_of: ResultOf) -> dict[str, Any]:
    """A copy of `document` with every reference replaced by its value.

    Args:
        document: a stage's document, references still as text; `${env.NAME}` was replaced when the spec was loaded.
        result_of: the `responses.json` of a finished stage, by name.

    Raises UnresolvedReferenceError naming the reference and what the result has instead.
    """

    def lookup(reference: Reference | EnvReference) -> Any:
        if isinstance(reference, EnvReference):
            raise UnresolvedReferenceError(f"{reference.text}: environment variables are replaced at submit only")
        try:
            return get_path(result_of(reference.stage), reference.path)
        except UnresolvedReferenceError as error:
            raise UnresolvedReferenceError(f"{reference.text}: {error}") from error

    resolved: dict[str, Any] = substitute(document, lookup)
    return resolved


def parse_result(data: bytes, *, where: str) -> dict[str, Any]:
    """A `responses.json` as a mapping."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise UnresolvedReferenceError(f"{where} is not a JSON object")
    return value
