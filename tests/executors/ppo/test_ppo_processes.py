"""Two processes together are one: the same rollouts, the same mini-batches, the same weights, up to rounding."""

from __future__ import annotations

import json
import multiprocessing
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mloc_tasks.executors.ppo.group import Group  # noqa: E402
from tests.executors.ppo.tiny_policy import curve_of, learner_of, settings_of, tiny_model  # noqa: E402

WAIT_SEC = 60  # for the other process
SETTINGS: dict[str, Any] = {"steps": 4, "batch_size": 7, "rows_per_update": 3, "slices": 2, "learning_rate": 1e-3}
"""Odd numbers: the processes have unequal shares, and of the mini-batch of one row one has none."""


def train_as(rank: int, size: int, folder: str) -> None:
    """One process's part of a training in float32 and of one in float16."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if size > 1:
        store = torch.distributed.FileStore(f"{folder}/store", size)
        torch.distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=WAIT_SEC)
        )
    for float16 in (False, True):
        settings = settings_of(**SETTINGS)
        group = Group(rank=rank, size=size)
        model = tiny_model(seed=rank)  # the first one's weights are everybody's
        learner = learner_of(model, settings, group, float16=float16)
        curve = curve_of(learner, settings, group=group)
        weights = {name: each.tolist() for name, each in learner.policy.trained_weights().items()}
        name = f"{rank}-{'float16' if float16 else 'float32'}.json"
        Path(folder, name).write_text(json.dumps({"curve": curve, "weights": weights}))
    if size > 1:
        torch.distributed.destroy_process_group()


def result_of(folder: Path, rank: int, number_format: str = "float32") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{rank}-{number_format}.json").read_text())
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have found."""
    folder = tmp_path_factory.mktemp("pair")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=train_as, args=(rank, 2, str(folder))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


def test_two_processes_have_the_curve_and_the_weights_of_one(pair: Path, tmp_path: Path) -> None:
    train_as(0, 1, str(tmp_path))
    one, first, second = result_of(tmp_path, 0), result_of(pair, 0), result_of(pair, 1)
    assert first["weights"] == second["weights"]
    assert repr(first["curve"]) == repr(second["curve"])
    for ours, theirs in zip(first["curve"], one["curve"], strict=True):
        assert ours == pytest.approx(theirs, abs=2e-4, nan_ok=True)
    for name, weights in first["weights"].items():
        torch.testing.assert_close(torch.tensor(weights), torch.tensor(one["weights"][name]), atol=2e-4, rtol=1e-3)


def test_rows_come_together_in_their_order() -> None:
    rows = list(range(5))
    shares = [Group(rank=rank, size=2).share(rows) for rank in range(2)]
    assert shares == [[0, 2, 4], [1, 3]]
    assert Group().whole(rows) == rows


def test_in_float16_a_process_without_a_row_of_a_mini_batch_goes_along(pair: Path) -> None:
    assert result_of(pair, 0, "float16")["weights"] == result_of(pair, 1, "float16")["weights"]
