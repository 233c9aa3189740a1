"""TRL and what it stands on, kept from the network and from drawing progress bars."""

from __future__ import annotations

import importlib
import os
from typing import Any


def quiet() -> None:
    """Call it before the first import of TRL; it lasts as long as the process, which serves one training."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # each trainer would report itself
    os.environ["TQDM_DISABLE"] = "1"
    constants: Any = importlib.import_module("huggingface_hub.constants")
    constants.HF_HUB_DISABLE_TELEMETRY = True  # the module may have been imported before
    datasets: Any = importlib.import_module("datasets")
    datasets.disable_progress_bars()
