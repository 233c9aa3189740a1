"""A training whose process dies goes on from its newest checkpoint, wherever its next attempt runs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from mloc_tasks.artifacts import ArtifactStore
from mloc_tasks.checkpoints.keeping import OWNER
from mloc_tasks.ledger import State
from mloc_tasks.locks import locked
from mloc_tasks.settings import get_settings, reset_settings
from mloc_tasks.workplace import store_of
from scheduler import Run, submit_yaml
from tests.durability.conftest import StartWorker, document
from tests.durability.test_recovery import WAIT_SEC, kill_worker, pool_children, wait_for_attempt
from tests.durability.test_saved_rows import kill_host
from tests.plugins.mloc_test_checkpoints import learned_after
from tests.s3_server import new_bucket
from tests.waiting import wait_until

STEPS = 60
FINAL = 5


@pytest.fixture(params=["local"])
def store(request: pytest.FixtureRequest, broker: object, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """The store of the test's workers."""
    if request.param == "s3":
        request.getfixturevalue("moto_credentials")
        endpoint: str = request.getfixturevalue("moto_endpoint")
        monkeypatch.setenv("MLOC_ARTIFACTS_URL", f"s3://{new_bucket(endpoint)}/runs")
        monkeypatch.setenv("MLOC_S3_ENDPOINT_URL", endpoint)
        reset_settings()
    return store_of(get_settings())


ON_BOTH_STORES = pytest.mark.parametrize("store", ["local", "s3"], indirect=True)


class Training:
    """A run of one stage that trains."""

    def __init__(self, store: ArtifactStore, folder: Path, **spec: Any) -> None:
        self.store = store
        self.journal = folder / "steps"
        self.journal.touch()
        self.released = folder / "released"
        files = {"journal": str(self.journal), "released": str(self.released)}
        stage = {"taskType": "checkpointed", "steps": STEPS, "seconds": 0.05, "every": 5, **files}
        self.run = submit_yaml(document({**stage, "retry": {"backoffSeconds": 0.1}, **spec}))

    @property
    def saved(self) -> list[str]:
        """The checkpoints in the store, `<attempt>/step-<step>`."""
        names = [info.name for info in self.store.list(self.run.id)]
        return sorted({"/".join(name.split("/")[5:7]) for name in names if "/checkpoints/" in name})

    def wait_until_saved(self, checkpoint: str) -> None:
        wait_until(lambda: checkpoint in self.saved)

    @property
    def steps(self) -> dict[int, list[int]]:
        """What each attempt has done."""
        done: dict[int, list[int]] = {}
        for line in self.journal.read_text().splitlines():
            attempt, step = map(int, line.split())
            done.setdefault(attempt, []).append(step)
        return done

    def told(self, words: str) -> list[str]:
        lines = [event.data["message"] for event in self.run.events() if event.kind == "log"]
        return [line for line in lines if words in line]

    def check(self, *, attempts: int, most_again: int = 20) -> None:
        """It came to its end in so many attempts, each of which went on from a checkpoint of the one before."""
        assert self.run.wait(WAIT_SEC) is State.DONE, self.run.status().run.error
        assert self.run.result()["learned"] == learned_after(STEPS)
        steps = self.steps
        assert list(steps) == list(range(1, attempts + 1))
        for attempt in range(2, attempts + 1):
            begun = steps[attempt][0]
            assert (begun - 1) % 5 == 0
            assert begun > 1, "from scratch"
            assert self.told(f"resumes from step {begun - 1}, saved by attempt")
        again = sum(times - 1 for times in Counter(step for done in steps.values() for step in done).values())
        assert again <= most_again
        assert not self.saved, "they go when the stage is done"


@ON_BOTH_STORES
def test_after_a_crash_of_the_host_the_training_goes_on(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path
) -> None:
    worker = start_worker("one")
    training = Training(store, tmp_path, stops={"1": 32})
    wait_until(lambda: 32 in training.steps.get(1, ()))
    kill_host(worker)
    # What was complete when the host died was stored after that: only the steps since are done again.
    training.check(attempts=2, most_again=2)


def test_after_a_killed_pool_child_the_training_goes_on_and_leaves_nothing_there(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path
) -> None:
    worker = start_worker("one")
    training = Training(store, tmp_path, stops={"1": 30}, gate=str(tmp_path / "gate"))
    training.wait_until_saved("1/step-00000030")
    (child,) = psutil.Process(worker.pid).children()
    child.kill()
    wait_for_attempt(training.run, stage="checkpointed", attempt=2)
    wait_until(lambda: training.told("resumes from"))
    owners = list((tmp_path / "results").glob(f".mloc-{training.run.id}/*/{OWNER}"))
    assert [json.loads(owner.read_text())["attempt"] for owner in owners] == [2]
    (tmp_path / "gate").touch()
    training.check(attempts=2)


@ON_BOTH_STORES
def test_a_training_killed_twice_ends_as_an_undisturbed_one_on_another_worker(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path
) -> None:
    first = start_worker("first")
    training = Training(store, tmp_path, stops={"1": 20, "2": 40})
    training.wait_until_saved("1/step-00000020")
    kill_worker(first)
    second = start_worker("second")
    training.wait_until_saved("2/step-00000040")
    kill_worker(second)
    start_worker("third")
    training.check(attempts=3, most_again=40)


def test_a_failure_that_may_pass_costs_no_step(start_worker: StartWorker, store: ArtifactStore, tmp_path: Path) -> None:
    start_worker("one")
    training = Training(store, tmp_path, fail={"1": [20, "retryable"], "2": [40, "retryable"]})
    training.check(attempts=3, most_again=0)


def test_after_a_final_failure_a_retry_goes_on(start_worker: StartWorker, store: ArtifactStore, tmp_path: Path) -> None:
    start_worker("one")
    training = Training(store, tmp_path, fail={"1": [42, "final"]}, training={"save_total_limit": 2})
    assert training.run.wait(WAIT_SEC) is State.FAILED
    assert len(training.saved) == 2
    assert training.saved[1] == "1/step-00000040"
    training.run.retry_failed()
    training.check(attempts=2, most_again=2)


def test_after_a_cancel_a_resumed_run_goes_on(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_CANCEL_GRACE_SEC", "60")
    worker = start_worker("one")
    training = Training(store, tmp_path, stops={"1": 30})
    training.wait_until_saved("1/step-00000030")
    began = time.monotonic()
    training.run.cancel()
    assert training.run.wait(WAIT_SEC) is State.CANCELLED
    assert time.monotonic() - began < 30, "it was not waited for"
    wait_until(lambda: not any("boot.py" in " ".join(each.cmdline()) for each in pool_children(worker)))
    assert len(training.saved) == 1
    training.run.resume()
    training.check(attempts=2)


def test_a_training_is_handed_back_at_shutdown_and_goes_on(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_SHUTDOWN_GRACE_SEC", "1")
    leaving = start_worker("leaving")
    training = Training(store, tmp_path, stops={"1": 30})
    training.wait_until_saved("1/step-00000030")
    start_worker("staying")
    os.kill(leaving.pid, signal.SIGTERM)
    training.check(attempts=2, most_again=20)


def test_a_paused_worker_that_comes_back_changes_nothing(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path
) -> None:
    paused = start_worker("paused")
    training = Training(store, tmp_path, stops={"1": 30}, gate=str(tmp_path / "gate"))
    training.wait_until_saved("1/step-00000030")
    host = next(each for each in pool_children(paused) if any("boot.py" in word for word in each.cmdline()[:2]))
    os.killpg(paused.pid, signal.SIGSTOP)
    training.released.touch()
    start_worker("other")
    wait_until(lambda: any(name.startswith("2/") for name in training.saved))
    os.killpg(paused.pid, signal.SIGCONT)
    log = tmp_path / "paused" / "worker.log"
    wait_until(lambda: "a newer attempt has taken over" in log.read_text())
    psutil.wait_procs([host], timeout=WAIT_SEC)
    wait_until(lambda: training.saved == [f"2/step-{STEPS:08d}"])
    (tmp_path / "gate").touch()
    assert training.run.wait(WAIT_SEC) is State.DONE
    assert training.run.result()["learned"] == learned_after(STEPS)
    assert training.steps[2][0] > 1
    assert not training.saved


def test_what_a_killed_worker_left_of_a_stage_that_is_done_goes_with_the_run_s_end(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path
) -> None:
    start_worker("one")
    stage = {"taskType": "checkpointed", "steps": 5, "journal": str(tmp_path / "steps")}
    run = submit_yaml(
        document({"stages": [{"name": "train", **stage}, {"name": "after", **stage, "gate": str(tmp_path / "gate")}]})
    )
    wait_for_attempt(run, stage="after")
    left = f"{run.id}/train/0/checkpoints/key/1/step-00000005/weights"
    store.put_bytes(b"left", left)
    (tmp_path / "gate").touch()
    assert run.wait(WAIT_SEC) is State.DONE
    assert not [info for info in store.list(run.id) if "/checkpoints/" in info.name]


def test_a_stage_that_never_failed_leaves_no_checkpoint(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path
) -> None:
    start_worker("one")
    training = Training(store, tmp_path, steps=20)
    assert training.run.wait(WAIT_SEC) is State.DONE
    assert training.told("is in the store")
    assert not training.saved
    assert [path.name for path in (tmp_path / "results" / training.run.id / "checkpointed" / "0").iterdir()] == ["1"]


def test_what_a_killed_process_left_of_another_run_goes_and_what_is_in_use_stays(
    start_worker: StartWorker, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    monkeypatch.setenv("MLOC_SCRATCH_DIR", str(scratch))
    for name in ("left", "used", "young"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / OWNER).write_text('{"shard": "another/train/0", "attempt": 1}')
        if name != "young":
            os.utime(scratch / name / OWNER, (0, 0))
    start_worker("one")
    with locked(scratch / "used" / OWNER):
        training = Training(store, tmp_path, steps=10)
        assert training.run.wait(WAIT_SEC) is State.DONE
    assert sorted(path.name for path in scratch.iterdir()) == ["used", "young"]


def test_what_is_wanted_anew_begins_anew(start_worker: StartWorker, store: ArtifactStore, tmp_path: Path) -> None:
    """`mloc resume --from`; later attempts go on from the checkpoints since, and all go in the end."""
    start_worker("one")
    (tmp_path / "rows").write_text("a\n")
    stages = [
        {"name": "rows", "taskType": "echo", "data": {"type": "file", "url": str(tmp_path / "rows"), "format": "text"}},
        {
            "name": "train",
            "taskType": "checkpointed",
            "steps": 20,
            "every": 5,
            "journal": str(tmp_path / "steps"),
            "fail": {"1": [12, "final"], "2": [7, "retryable"]},
            "retry": {"backoffSeconds": 0.1},
        },
    ]
    run: Run = submit_yaml(document({"stages": stages}))
    assert run.wait(WAIT_SEC) is State.FAILED
    run.resume(from_stage="rows")
    assert run.wait(WAIT_SEC) is State.DONE
    result = run.result()
    assert (result["began_after"], result["learned"]) == (5, learned_after(20))
    assert not [info for info in store.list(run.id) if "/checkpoints/" in info.name]
