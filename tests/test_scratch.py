"""Scratch folders of living processes stay; those of the dead go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mloc_tasks import locks
from mloc_tasks.scratch import NEW_SEC, in_use, make_scratch, remove_left, remove_scratch

HOLD = """
import sys
from pathlib import Path
from mloc_tasks.scratch import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    held, left = make_scratch(tmp_path, "run"), make_scratch(tmp_path, "other")
    for folder in (held, left):
        (folder / "half").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with in_use(held):
            remove_left(tmp_path)
            assert left.exists()
            process.send_signal(signal.SIGKILL)
            process.wait()
            remove_left(tmp_path)
            assert held.exists()
            assert not left.exists()
    remove_left(tmp_path)
    assert not held.exists()


@pytest.mark.parametrize("old", [False, True])
def test_an_empty_folder_gets_a_minute_to_be_used(tmp_path: Path, old: bool) -> None:
    folder = make_scratch(tmp_path, "run")
    if old:
        then = folder.stat().st_mtime - NEW_SEC - 1
        os.utime(folder, (then, then))
    remove_left(tmp_path)
    assert folder.exists() is not old


def test_a_folder_that_its_process_removes_at_the_same_time_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_scratch(tmp_path, "run") / "half").mkdir()
    is_still = locks._is_still

    def owner_was_faster(path: Path, descriptor: int) -> bool:
        shutil.rmtree(path, ignore_errors=True)
        return is_still(path, descriptor)

    monkeypatch.setattr(locks, "_is_still", owner_was_faster)
    remove_left(tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_folders_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mloc-mine" / "x").mkdir(parents=True)
    (tmp_path / "mloc-scratch-file").write_text("")
    remove_left(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_owner_s_folders_go_together(tmp_path: Path) -> None:
    mine, other = make_scratch(tmp_path, "run"), make_scratch(tmp_path, "run2")
    with in_use(mine):
        remove_scratch(tmp_path, "run")
    assert not mine.exists()
    assert other.exists()
