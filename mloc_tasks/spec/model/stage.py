"""One stage, complete: what travels to a worker, typed."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator

from mloc_tasks.spec.model.base import PassThrough, Priority, Seconds, SpecModel, Text
from mloc_tasks.spec.model.data import Data, normal_data
from mloc_tasks.spec.model.embedding import Embedding
from mloc_tasks.spec.model.evaluate import Evaluate
from mloc_tasks.spec.model.inference import Generation, Inference
from mloc_tasks.spec.model.model_source import Checkpoint, Lora, Model, RewardModel
from mloc_tasks.spec.model.output import Output
from mloc_tasks.spec.model.resources import Cache, Parallel, Resources, Retry
from mloc_tasks.spec.model.training import Training


class StageSpec(SpecModel):
    """A stage's spec with its references resolved. Keys of a plugin's own stand in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    task_type: Text = Field(description="What runs: a built-in task type or the name of an installed executor.")
    resources: Resources = Field(
        default_factory=Resources.model_construct, description="What the stage needs from the machine it runs on."
    )
    enforce_cpu: bool = Field(False, description="Never use a GPU queue.")
    priority: Priority = Field(4, description="0 (low) to 9.")
    slo_seconds: Seconds | None = Field(
        None, description="Target time from submission to the stage's end; reported as met or missed, never kills."
    )
    timeout: Seconds | None = Field(None, description="Hard limit of one attempt, such as `2h`.")
    retry: Retry = Field(
        default_factory=Retry.model_construct, description="Attempts after failures that another try may cure."
    )
    cache: Cache = Field(default_factory=Cache.model_construct, description="Reuse of earlier results.")
    model: Model | None = Field(None, description="The model to work with.")
    inference: Inference | None = Field(None, description="Sampling.")
    data: Data | None = Field(None, description="The rows that the stage works on.")
    training: Training | None = Field(
        None, description="How the model is trained: these names, and the arguments of the method's TRL config."
    )
    generation: Generation | None = Field(None, description="Sampling of completions while training.")
    reward_model: RewardModel | None = Field(None, description="What scores completions.")
    lora: Lora | None = Field(None, description="Train low-rank adapters instead of all weights.")
    checkpoint: Checkpoint | None = Field(None, description="Where the stage starts from.")
    output: Output = Field(
        default_factory=Output.model_construct, description="What is kept of the outputs, and where else they go."
    )
    parallel: Parallel = Field(
        default_factory=Parallel.model_construct, description="Data-parallel shards over the inputs."
    )
    evaluate: Evaluate | None = Field(None, description="Settings of task type `evaluate`.")
    embedding: Embedding | None = Field(None, description="Settings of task type `embedding`.")
    message: Annotated[Any, WithJsonSchema({})] = Field(None, description="What task type `echo` gives back.")
    params: PassThrough = Field({}, description="Further values that task type `echo` gives back.")

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, value: Any) -> Any:
        return normal_stage(value) if isinstance(value, dict) else value


def normal_stage(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its rows in one place: `inference.prompts` and short forms of `data` as `data: {type: ...}`.

    A document that is in this form already is returned as it is.
    """
    data, inference = document.get("data"), document.get("inference")
    changed = dict(document)
    if data is not None:
        changed["data"] = normal_data(data)
    if isinstance(inference, dict) and "prompts" in inference:
        changed["inference"] = {key: value for key, value in inference.items() if key != "prompts"}
        if data is None and inference["prompts"] is not None:
            changed["data"] = {"type": "list", "items": inference["prompts"]}
    return changed
