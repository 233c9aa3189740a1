"""How one of a training's processes failed, and whether that came of another one's failure."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from mloc_tasks.errors import HostCrashedError
from mloc_tasks.executors.training.process import TrainingProcess
from mloc_tasks.host.failures import from_frame, how_it_ended, what_to_do
from mloc_tasks.host.frames import Frame

logger = logging.getLogger("mloc.host")

# What a process says whose counterpart is gone.
_CONSEQUENCE = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|gloo|NCCL|Dist(Backend|Network|Store)Error|ProcessGroup"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How one process failed: by an error that it told, or by ending without a word."""

    process: TrainingProcess
    frame: Frame

    @property
    def is_consequence(self) -> bool:
        """Whether it says no more than that another one is gone."""
        return self.frame["type"] == "error" and bool(
            _CONSEQUENCE.search(f"{self.frame['class']}: {self.frame['message']}")
        )

    def error(self, *, of: int) -> Exception:
        """The attempt's error; what helps to understand it is logged."""
        if self.frame["type"] == "error":
            logger.error("process %d (of 0 to %d) failed; all are ended", self.process.rank, of - 1)
            for line in self.frame["trace"].splitlines():
                logger.error("%s", line)
            return from_frame(self.frame)
        how = how_it_ended(self.frame["code"])
        for line in list(self.process.tail):  # what it has forked may still write
            logger.error("[process %d] %s", self.process.rank, line)
        return HostCrashedError(
            f"process {self.process.rank} of the training's {of} {how} in the middle of it",
            hint=what_to_do(self.frame["code"]) or "processes are counted from 0; the log has the last that it said",
        )
