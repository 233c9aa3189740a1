"""The document around the stages. These models name the keys; the loader reads their values itself."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from mloc_tasks.spec.model.base import PassThrough, SpecModel, Text
from mloc_tasks.spec.model.stage import StageSpec

API_VERSION = "mloc/v1"
LABEL = r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$"
"""What a run may be called: like a DNS label, dots allowed."""
STAGE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$"
"""What a stage may be called, so that `${name.result...}` can refer to it."""


class Metadata(SpecModel):
    """What a run is called, and whose it is."""

    name: Text = Field(max_length=63, description="Lower-case letters, digits, `-` and `.`; at most 63 characters.")
    owner: Text | None = Field(None, description="Shown wherever the run is listed.")
    labels: dict[str, str] = Field({}, description="For filtering.")
    annotations: PassThrough = Field({}, description="For people; nothing reads them.")


class StageEntry(StageSpec):
    """One entry of `stages` or `graph.nodes`: its keys stand beside `name`, or under `spec`."""

    other_names: ClassVar[dict[str, str]] = {"dependencies": "depends_on"}

    name: Text = Field(description="What other stages call it.")
    depends_on: tuple[Text, ...] | None = Field(
        None, description="Stages that end before this one starts. In `stages`, by default the one written before it."
    )
    spec: dict[str, Any] | None = Field(None, description="The stage's own values, over the document's.")


class Graph(SpecModel):
    """Stages without an order of their own."""

    nodes: list[dict[str, Any]] = Field(description="The stages; without `dependsOn` they depend on none.")


class SpecBody(StageSpec):
    """`spec`: a single stage, or defaults for `stages` or `graph`."""

    stages: list[dict[str, Any]] | None = Field(None, description="Stages that run one after the other.")
    graph: Graph | None = Field(None, description="Stages that run as their dependencies allow.")
    on_failure: Literal["stop", "continue"] = Field(
        "stop", description="`stop`: no new stage starts; `continue`: branches that do not depend on the failure go on."
    )


class Document(SpecModel):
    """One file."""

    api_version: Literal["mloc/v1"] = Field(description="Always `mloc/v1`.")
    kind: Text | None = Field(None, description="Describes the document; what runs is `spec.taskType`.")
    metadata: Metadata = Field(description="What the run is called, and whose it is.")
    spec: SpecBody = Field(description="What runs.")
