"""TRL and what it stands on, kept from the network and from drawing progress bars."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Reporter

_OF_NO_USE = (
    "There were missing keys in the checkpoint model loaded: ['lm_head.weight']",  # tied to the embeddings, which are
    "The following arguments do not match the ones in the `trainer_state.json`",  # how often it saves, no more
    "The tokenizer has new PAD/BOS/EOS tokens",  # the pad token that we chose
)
"""Beginnings of what transformers' trainer warns of and users can do nothing about."""


def quiet() -> None:
    """Call it before the first import of TRL; it lasts as long as the process, which serves one training."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # each trainer would report itself
    os.environ["TQDM_DISABLE"] = "1"
    constants: Any = importlib.import_module("huggingface_hub.constants")
    constants.HF_HUB_DISABLE_TELEMETRY = True  # the module may have been imported before
    datasets: Any = importlib.import_module("datasets")
    datasets.disable_progress_bars()


class Warnings:
    """Takes the libraries' warnings to the run's log; each text once, and those of no use not at all."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._said: set[str] = set()

    def __call__(self, message: str) -> None:
        if message not in self._said and not any(text in message for text in _OF_NO_USE):
            self._said.add(message)
            self._report.log(message, level="warning")
