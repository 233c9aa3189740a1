"""The mloc/v1 language: documents in YAML, to typed stages that are merged, connected and validated."""

from typing import Any

from mloc_tasks.spec.model.stage import StageSpec
from mloc_tasks.spec.problems import Problem, SpecError
from mloc_tasks.spec.workflow import Stage, Workflow, load_workflow

__all__ = ["Problem", "SpecError", "Stage", "StageSpec", "Workflow", "json_schema", "load_workflow"]


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a document."""
    # Only `mloc schema` and editors need it; what it imports would slow every other start.
    from mloc_tasks.spec.schema import json_schema

    return json_schema()
