"""What a stage needs from the machine it runs on, and how it is tried and repeated."""

from pydantic import Field, field_validator

from mloc_tasks.spec.model.base import (
    Bytes,
    Cores,
    Count,
    NotNegative,
    PositiveCount,
    SpecModel,
    Text,
)


class Gpu(SpecModel):
    """The GPUs that one replica needs."""

    type: Text = Field("any", description="`any`, or a model such as `a100` or `nvidia-a100-80gb`.")
    count: Count = Field(1, description="How many; 0 asks for none.")
    memory: Bytes | None = Field(None, description="Memory that each must have, such as `40Gi`.")


class Hardware(SpecModel):
    """What one replica needs. `gpu` is None when no GPU is needed."""

    cpu: Cores | None = Field(None, description="Processor cores, such as `8` or `500m`.")
    memory: Bytes | None = Field(None, description="Main memory, such as `32Gi`, `32GiB`, `32G` or plain bytes.")
    gpu: Gpu | None = Field(None, description="GPUs; left out or with `count: 0`, none is needed.")

    @field_validator("gpu", mode="after")
    @classmethod
    def _zero_gpus_are_none(cls, gpu: Gpu | None) -> Gpu | None:
        return gpu if gpu is not None and gpu.count > 0 else None


class Resources(SpecModel):
    """Where a stage may run."""

    hardware: Hardware = Field(
        default_factory=Hardware.model_construct, description="What one replica needs from its machine."
    )
    replicas: PositiveCount = Field(
        1, description="Data-parallel replicas; with `parallel.enabled` a lower bound on the number of shards."
    )
    tags: tuple[Text, ...] = Field((), description="Tags that the queue must offer: `nvlink`, `spot`, `eu-west`, ...")


class Retry(SpecModel):
    """Attempts at a shard after failures that another try may cure (a lost worker, the network, the store)."""

    max_attempts: PositiveCount = Field(3, description="Attempts in all, the first one counted.")
    backoff_seconds: NotNegative = Field(5.0, description="Pause before the second attempt, in seconds; it grows.")


class Cache(SpecModel):
    """Whether a completed stage of the same fingerprint is reused."""

    enabled: bool = Field(False, description="Reuse the result of an earlier stage with the same spec and inputs.")


class Parallel(SpecModel):
    """Data-parallel shards over the stage's inputs."""

    enabled: bool = Field(False, description="Split the inputs into shards that run at the same time.")
    max_shards: PositiveCount | None = Field(None, description="At most so many shards.")
    shard_size: PositiveCount | None = Field(None, description="Inputs in one shard.")
