"""Checkpoints go to the store and come back: the newest, whole, of the same stage; none of them by a stale attempt."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mloc_tasks.artifacts import ArtifactStore, Manifest, open_store
from mloc_tasks.artifacts.local import LocalStore
from mloc_tasks.artifacts.s3 import S3Store
from mloc_tasks.artifacts.s3_connection import connect
from mloc_tasks.checkpoints.saved import Saved, SavedCheckpoints, remove_checkpoints, step_name
from mloc_tasks.checkpoints.uploads import CheckpointUploads
from mloc_tasks.errors import BrokerError, StoreError, StoreUnavailableError
from tests.s3_server import new_bucket

SHARD = "run/train/0"
KEY = "key"
WAIT_SEC = 60.0


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    request.getfixturevalue("moto_credentials")
    endpoint: str = request.getfixturevalue("moto_endpoint")
    return open_store(f"s3://{new_bucket(endpoint)}/runs", endpoint_url=endpoint)


class Told(list[tuple[str, str]]):
    """What was told, with levels."""

    def __call__(self, text: str, level: str) -> None:
        self.append((text, level))

    @property
    def warnings(self) -> list[str]:
        return [text for text, level in self if level == "warning"]


class Training:
    """An attempt's uploads, and the executor's side of them."""

    def __init__(
        self,
        store: ArtifactStore,
        folder: Path,
        *,
        attempt: int = 1,
        keep: int = 1,
        key: str = KEY,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.told = Told()
        self.saved = SavedCheckpoints(store, SHARD, key, attempt=attempt)
        self.uploads = CheckpointUploads(self.saved, folder, keep=keep, holds=holds, tell=self.told)

    def publish(self, *steps: int) -> None:
        for step in steps:
            making = self.folder / ".making"
            (making / "optimizer").mkdir(parents=True)
            (making / "optimizer" / "state").write_text(f"state {step}")
            (making / "weights").write_text(f"weights {step}")
            making.rename(self.uploads.checkpoint_dir / step_name(step))

    def save(self, *steps: int) -> None:
        for step in steps:
            self.publish(step)
            self.uploads.save_last(lambda: None)

    def look_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SEC
        while not condition():
            assert time.monotonic() < deadline, self.told
            self.uploads.look()
            time.sleep(0.01)

    @property
    def here(self) -> list[str]:
        return sorted(path.name for path in self.uploads.checkpoint_dir.iterdir())


def stored(store: ArtifactStore) -> list[str]:
    """The checkpoints in the store, `<key>/<attempt>/<step>`."""
    names = (info.name.removeprefix(f"{SHARD}/checkpoints/") for info in store.list(SHARD))
    return sorted({"/".join([*name.split("/")[:2], str(int(name.split("/")[2][5:]))]) for name in names})


def damage(store: ArtifactStore, attempt: int, step: int) -> None:
    """Other bytes of the same number, where the store keeps a file."""
    name = f"{SHARD}/checkpoints/{KEY}/{attempt}/{step_name(step)}/weights"
    if isinstance(store, LocalStore):
        (store.root / name).unlink()
        (store.root / name).write_text(f"WEIGHTS {step}")
    else:
        store.put_bytes(f"WEIGHTS {step}".encode(), name)


def test_the_next_attempt_gets_the_newest_and_older_ones_are_gone(store: ArtifactStore, tmp_path: Path) -> None:
    Training(store, tmp_path / "one").save(10, 20)
    assert stored(store) == ["key/1/20"]
    second = Training(store, tmp_path / "two", attempt=2)
    second.uploads.fetch()
    assert second.told == [("resumes from step 20, saved by attempt 1", "info")]
    resumed = second.uploads.resume_from
    assert resumed is not None
    assert (resumed / "weights").read_text() == "weights 20"
    assert (resumed / "optimizer" / "state").read_text() == "state 20"
    second.save(30)
    assert stored(store) == ["key/2/30"]
    remove_checkpoints(store, SHARD)
    assert stored(store) == []


def test_as_many_are_kept_as_asked(store: ArtifactStore, tmp_path: Path) -> None:
    Training(store, tmp_path / "one", keep=2).save(1, 2, 3)
    assert stored(store) == ["key/1/2", "key/1/3"]
    Training(store, tmp_path / "two", keep=2, attempt=2).save(4)
    assert stored(store) == ["key/1/3", "key/2/4"]


def test_a_damaged_checkpoint_is_passed_over(store: ArtifactStore, tmp_path: Path) -> None:
    Training(store, tmp_path / "one", keep=2).save(10, 20)
    damage(store, 1, 20)
    told = Told()
    second = SavedCheckpoints(store, SHARD, KEY, attempt=2)
    assert second.fetch(tmp_path / "two", told) == Saved(1, 10)
    assert len(told.warnings) == 1
    assert "the checkpoint of step 20, saved by attempt 1, is passed over" in told.warnings[0]
    assert (tmp_path / "two" / "weights").read_text() == "weights 10"
    damage(store, 1, 10)
    assert second.fetch(tmp_path / "none", told) is None
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_of_another_document_is_never_taken_and_makes_room(store: ArtifactStore, tmp_path: Path) -> None:
    Training(store, tmp_path / "one", key="other").save(10)
    second = Training(store, tmp_path / "two", attempt=2)
    second.uploads.fetch()
    assert second.uploads.resume_from is None
    assert second.told == [("begins anew: no checkpoint of an earlier attempt is in the store", "info")]
    second.save(5)
    assert stored(store) == ["key/2/5"]


def test_of_a_stage_that_is_wanted_anew_earlier_checkpoints_do_not_count(store: ArtifactStore, tmp_path: Path) -> None:
    Training(store, tmp_path / "one").save(10)
    assert SavedCheckpoints(store, SHARD, KEY, attempt=2, after=1).fetch(tmp_path / "none", Told()) is None
    Training(store, tmp_path / "two", attempt=2).save(5)
    assert SavedCheckpoints(store, SHARD, KEY, attempt=3, after=1).fetch(tmp_path / "there", Told()) == Saved(2, 5)


KILLED = """
import os, signal, sys
from pathlib import Path
import mloc_tasks.artifacts.{module} as module
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
module.Manifest = die
from mloc_tasks.artifacts import open_store
open_store(sys.argv[1], endpoint_url=sys.argv[2] or None).put_dir(Path(sys.argv[3]), sys.argv[4])
"""


def test_what_a_killed_upload_left_goes_with_the_next_attempt_s_first(store: ArtifactStore, tmp_path: Path) -> None:
    first = Training(store, tmp_path / "one")
    first.publish(9)
    source, prefix = first.uploads.checkpoint_dir / step_name(9), f"{SHARD}/checkpoints/{KEY}/1/{step_name(9)}"
    endpoint = store.settings.endpoint_url if isinstance(store, S3Store) else None
    script = KILLED.format(module="s3" if isinstance(store, S3Store) else "local")
    killed = subprocess.run([sys.executable, "-c", script, store.url, endpoint or "", source, prefix], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert "/1/" in "".join(everything(store))
    assert stored(store) == []
    second = Training(store, tmp_path / "two", attempt=2)
    second.uploads.fetch()
    second.save(10)
    assert stored(store) == ["key/2/10"]
    assert "/1/" not in "".join(everything(store))


def everything(store: ArtifactStore) -> list[str]:
    """Also what no method of the store shows."""
    if isinstance(store, LocalStore):
        return [str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()]
    assert isinstance(store, S3Store)
    found = connect(store.settings).client.list_objects_v2(Bucket=store.bucket)
    return [each["Key"] for each in found.get("Contents", ())]


def test_a_later_attempt_s_checkpoint_comes_first_and_stays(store: ArtifactStore, tmp_path: Path) -> None:
    first = Training(store, tmp_path / "one")
    first.save(10)
    Training(store, tmp_path / "two", attempt=2).save(5)
    assert stored(store) == ["key/2/5"]
    first.save(20)
    assert stored(store) == ["key/1/20", "key/2/5"]
    assert SavedCheckpoints(store, SHARD, KEY, attempt=3).fetch(tmp_path / "three", Told()) == Saved(2, 5)


def test_what_a_stale_attempt_has_stored_is_taken_back(store: ArtifactStore, tmp_path: Path) -> None:
    answers = iter([True, False])
    stale = Training(store, tmp_path / "one", holds=lambda: next(answers))
    stale.publish(10)
    stale.uploads.save_last(lambda: None)
    assert stored(store) == []
    assert next(answers, None) is None


def test_a_claim_that_cannot_be_asked_for_is_settled_by_the_end(store: ArtifactStore, tmp_path: Path) -> None:
    answers = iter([True])

    def holds() -> bool:
        for answer in answers:
            return answer
        raise BrokerError("Redis is away")

    stale = Training(store, tmp_path / "one", holds=holds)
    stale.publish(10)
    stale.uploads.save_last(lambda: None)
    assert stored(store) == ["key/1/10"]
    stale.uploads.abandon()
    assert stored(store) == []


class Gated(LocalStore):
    """A store whose `put_dir` waits at a gate, or raises."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.inside = threading.Event()
        self.error: StoreError | None = None
        self.prefixes: list[str] = []

    def put_dir(self, source: Path, prefix: str, *, move: bool = False) -> Manifest:
        self.prefixes.append(prefix)
        self.inside.set()
        assert self.gate.wait(WAIT_SEC)
        if self.error is not None:
            raise self.error
        return super().put_dir(source, prefix, move=move)


def test_while_one_is_on_its_way_only_the_newest_waits(tmp_path: Path) -> None:
    store = Gated(tmp_path / "store")
    training = Training(store, tmp_path / "one")
    training.publish(1)
    training.look_until(store.inside.is_set)
    began = time.monotonic()
    for step in (2, 3, 4):
        training.publish(step)
        training.uploads.look()
    assert time.monotonic() - began < WAIT_SEC / 2, "a look does not wait for the store"
    assert training.here == [step_name(1), step_name(4)]
    store.gate.set()
    training.look_until(lambda: stored(store) == ["key/1/4"])
    assert [prefix.rpartition("/")[2] for prefix in store.prefixes] == [step_name(1), step_name(4)]
    assert training.here == [step_name(4)]
    training.uploads.end()


def test_what_was_resumed_from_goes_once_a_newer_one_is_published(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    Training(store, tmp_path / "one").save(1)
    second = Training(store, tmp_path / "two", attempt=2)
    second.uploads.fetch()
    resumed = second.uploads.resume_from
    second.uploads.look()
    assert resumed is not None
    assert resumed.exists()
    second.publish(2)
    second.uploads.look()
    assert not resumed.exists()
    second.uploads.end()


def test_a_store_that_is_away_is_a_warning_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mloc_tasks.checkpoints.uploads.AGAIN_SEC", (0.05, 0.1))
    store = Gated(tmp_path / "store")
    store.gate.set()
    store.error = StoreUnavailableError("no space left writing below /store: 0 B free", hint="free space")
    training = Training(store, tmp_path / "one")
    training.publish(1)
    training.look_until(lambda: len(training.told.warnings) >= 2)
    assert training.told.warnings[0] == (
        "the checkpoint of step 1 is not in the store yet, which is tried again: "
        "no space left writing below /store: 0 B free; free space"
    )
    store.error = None
    training.look_until(lambda: stored(store) == ["key/1/1"])
    training.uploads.end()


def test_what_the_store_refuses_for_good_is_tried_once(tmp_path: Path) -> None:
    training = Training(open_store(str(tmp_path / "store")), tmp_path / "one")
    making = training.uploads.checkpoint_dir / ".making"
    making.mkdir()
    (making / "manifest.json").touch()
    making.rename(training.uploads.checkpoint_dir / step_name(1))
    training.uploads.save_last(lambda: None)
    training.uploads.look()
    assert len(training.told.warnings) == 1
    assert "the checkpoint of step 1 cannot be stored" in training.told.warnings[0]


def test_an_upload_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Gated(tmp_path / "store")
    training = Training(store, tmp_path / "one")
    training.publish(1)
    training.look_until(store.inside.is_set)

    def go_on_once_its_files_are_gone() -> None:
        while (training.folder / "outgoing").exists():
            time.sleep(0.01)
        store.gate.set()

    threading.Thread(target=go_on_once_its_files_are_gone, daemon=True).start()
    training.uploads.end()
    assert store.gate.is_set()
    assert stored(store) == []
    assert not training.told.warnings


def test_the_last_upload_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    store = Gated(tmp_path / "store")
    training = Training(store, tmp_path / "one")
    training.publish(1)
    training.uploads.save_last(lambda: None, within_sec=0.3)
    assert training.told.warnings == ["the checkpoint of step 1 is lost: the attempt ends before it is in the store"]
    store.gate.set()
    training.uploads.end()
