"""How much is encoded at once."""

from __future__ import annotations

from mloc_tasks.executors.transformers.batching import BatchLimits

CPU_LIMITS = BatchLimits(sequences=32, tokens=8_192)
CUDA_LIMITS = BatchLimits(sequences=512, tokens=65_536)


def limits_for(device: str) -> BatchLimits:
    """The default size of a batch; one that does not fit the memory is halved until it does."""
    return CUDA_LIMITS if device.startswith("cuda") else CPU_LIMITS
