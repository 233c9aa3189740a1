"""`mloc run`: a private broker and worker for the length of one command, and nothing left of them after it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import MLOC, Mloc, environment
from tests.cli.documents import ECHO, THREE_MISTAKES, slow_spec
from tests.waiting import wait_until

Spec = Callable[[str], str]


@pytest.fixture
def private(tmp_path: Path) -> dict[str, str]:
    """An environment whose temporary folder is the test's own, so that what is left behind shows."""
    (tmp_path / "tmp").mkdir()
    return {"TMPDIR": str(tmp_path / "tmp"), "RESULTS_DIR": str(tmp_path / "results")}


def left_behind(private: dict[str, str]) -> list[str]:
    """What lies in the private temporary folder, and processes that were started with it."""
    files = [path.name for path in Path(private["TMPDIR"]).iterdir()]
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RESULTS_DIR") == private["RESULTS_DIR"]:
                processes.append(str(process))
        except psutil.Error:
            continue
    return files + processes


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_nothing_left(private: dict[str, str], *, but: str | None = None) -> None:
    """Soon nothing is left behind, but files that begin with this."""
    wait_until(lambda: [name for name in left_behind(private) if but is None or not name.startswith(but)] == [])


def test_an_echo_run_prints_its_outputs_and_where_they_lie(
    mloc_process: Mloc, spec: Spec, private: dict[str, str]
) -> None:
    done = mloc_process("run", spec(ECHO), env=private)
    assert done.returncode == 0
    assert "  3  three\n" in done.stdout
    place = next(line.strip() for line in done.stdout.splitlines() if line.endswith("/responses.json"))
    assert place.startswith("results/")
    assert (Path(private["RESULTS_DIR"]).parent / place).is_file()
    assert "echo: done  4/4 items  2/2 shards" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert_nothing_left(private)


def test_json_is_one_document_on_stdout(mloc_process: Mloc, spec: Spec, private: dict[str, str]) -> None:
    document = json.loads(mloc_process("run", "--json", spec(ECHO), env=private).stdout)
    assert document["state"] == "done"
    assert document["stages"][0]["location"].startswith("results/")
    assert document["result"].endswith("responses.json")


def test_a_failed_run_ends_with_one_and_says_what_and_where(
    mloc_process: Mloc, spec: Spec, slow_plugin: Path, private: dict[str, str]
) -> None:
    done = mloc_process("run", spec(slow_spec("{fail: true}")), env={**private, **_with(slow_plugin)})
    assert done.returncode == 1
    assert "error: stage slow failed: RuntimeError: it broke" in done.stderr
    assert re.search(r"at: shard [01], attempt 1, worker .*, [12] of 2 shards failed", done.stderr)
    assert 'raise RuntimeError("it broke")' in done.stderr  # the traceback, out of the worker's log
    assert_nothing_left(private)


def test_a_bad_spec_ends_with_two_before_anything_starts(
    mloc_process: Mloc, spec: Spec, private: dict[str, str]
) -> None:
    done = mloc_process("run", spec(THREE_MISTAKES), env=private)
    assert done.returncode == 2
    assert done.stderr.count(": error: spec.") == 3
    assert "Run " not in done.stderr


def test_stages_too_large_for_this_machine_are_refused_at_once(
    mloc_process: Mloc, spec: Spec, private: dict[str, str]
) -> None:
    text = ECHO + "  resources: {hardware: {cpu: 4096}}\n"
    done = mloc_process("run", spec(text), env=private)
    assert done.returncode == 1
    assert "stage echo: needs 4096 CPUs, has" in done.stderr
    assert "MLOC_ALLOW_UNFIT=1" in done.stderr
    assert mloc_process("run", spec(text), env={**private, "MLOC_ALLOW_UNFIT": "1"}).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_in_the_middle_leaves_nothing_behind(
    number: signal.Signals, spec: Spec, slow_plugin: Path, private: dict[str, str], tmp_path: Path
) -> None:
    spec(slow_spec("{seconds: 600}"))
    process = subprocess.Popen(
        [*MLOC, "run", "spec.yaml"],
        cwd=tmp_path,
        env=environment(**private, **_with(slow_plugin)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("slow: running"):
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3  # the broker, the worker, its pool's child
    process.send_signal(number)
    process.send_signal(number)  # impatience does not hurt
    assert process.wait(timeout=30) == 130
    assert "interrupted: the run is cancelled" in process.stderr.read()
    process.stderr.close()
    wait_until(lambda: not any(runs(child) for child in children))
    assert_nothing_left(private)


def test_a_worker_that_dies_ends_the_run_with_its_log(
    spec: Spec, slow_plugin: Path, private: dict[str, str], tmp_path: Path
) -> None:
    spec(slow_spec("{seconds: 600}"))
    process = subprocess.Popen(
        [*MLOC, "run", "spec.yaml"],
        cwd=tmp_path,
        env=environment(**private, **_with(slow_plugin)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("slow: running"):
            break
    worker = next(child for child in psutil.Process(process.pid).children() if "celery" in " ".join(child.cmdline()))
    worker.kill()
    assert process.wait(timeout=30) == 1
    assert "error: the worker ended with exit code -9" in process.stderr.read()
    process.stderr.close()
    # multiprocessing's own folder stays: only the process that was killed could remove it.
    assert_nothing_left(private, but="pymp-")


def _heed_signals() -> None:
    """Also where the tests themselves were started to ignore them, by nohup or in the background of a script."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _with(plugin: Path) -> dict[str, str]:
    path = environment()["PYTHONPATH"]
    return {"PYTHONPATH": f"{plugin}:{path}"}
