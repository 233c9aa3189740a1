"""Every exception MLOC raises on purpose, and whether trying again can help.

`retryable` is the one place that decides between another attempt and a permanent failure. `hint` says what to do next
and is printed under the message.
"""

from __future__ import annotations

from typing import ClassVar


class MlocError(Exception):
    """Base of all. `str(error)` says what happened and where; `hint` says what to do."""

    retryable: ClassVar[bool] = False
    kind: str = ""  # the class that the ledger names, where it is not this one

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(MlocError):
    """A setting, an environment variable or `queues.yaml` cannot be used as it stands."""


class PlanError(MlocError):
    """A valid spec that this installation cannot compile or run."""


class RoutingError(PlanError):
    """No declared queue offers what a stage asks for."""


class BrokerError(MlocError):
    """Redis cannot be reached."""

    retryable = True


class LedgerError(MlocError):
    """Redis refused what the ledger asked for, and would again."""


class RunNotFoundError(MlocError, LookupError):
    """No run of that id is in the ledger (never was, or its retention has passed)."""


class IllegalTransitionError(MlocError):
    """A state was asked to move backwards, or sideways."""


class StaleAttemptError(MlocError):
    """An attempt came back after a newer one had taken its shard over; nothing of it may be recorded."""


class ResumeError(MlocError):
    """A run that cannot be resumed: it is still going, or nothing of it is left to do."""


class UnresolvedReferenceError(MlocError):
    """`${stage.result.PATH}` names something the upstream result does not have."""


class InputError(MlocError):
    """A stage's input data cannot be read: missing file, missing column, malformed row."""


class InputUnavailableError(InputError):
    """Where a stage's input lies did not answer; a later try may succeed."""

    retryable = True


class StoreError(MlocError):
    """The artifact store refused a request that another try would not change (bad name, missing object, no access)."""


class ArtifactNotFoundError(StoreError, LookupError):
    """No complete artifact of that name."""


class ArtifactExistsError(StoreError):
    """An artifact is complete under that prefix, or being written there; artifacts are written once."""


class StoreUnavailableError(StoreError):
    """The artifact store did not answer, or is out of space; a later try may succeed."""

    retryable = True


class ModelError(MlocError):
    """A model source does not resolve to something that loads."""


class ModelUnavailableError(ModelError):
    """The place a model comes from did not answer; a later try may succeed."""

    retryable = True


class ExecutionError(MlocError):
    """An executor could not do its stage; raising it from a plugin fails the attempt for good."""


class RetryableExecutionError(ExecutionError):
    """An executor failed for a reason outside of it (network, memory pressure); the attempt may be repeated."""

    retryable = True


class HostCrashedError(RetryableExecutionError):
    """An executor's process, or that of its engine, ended in the middle of a task."""


class AttemptCancelledError(MlocError):
    """The run was cancelled while the attempt was going on."""


class AttemptTimeoutError(ExecutionError):
    """The attempt took longer than the stage's `timeout`."""

    kind = "TimeoutError"


class UnfitWorkerError(MlocError):
    """This worker's hardware falls short of what the stage asks for; another worker may take it."""

    retryable = True
