"""The processes of a training that has several: started together, ended together, the first error told.

torchrun could start them and does less: its store listens on all networks of the machine, it is one more process that
imports torch, it waits up to 30 s for the others when one has failed, and which of them failed first, and what that one
said last, are to be found in its log.
"""

from __future__ import annotations

import logging
import queue
import socket
import sys
import time
from pathlib import Path
from typing import Any

from mloc_tasks.cpus import usable_cpus
from mloc_tasks.executors.base import Reporter, Task
from mloc_tasks.executors.training.child import Order
from mloc_tasks.executors.training.failure import Failure
from mloc_tasks.executors.training.launch import Launch
from mloc_tasks.executors.training.process import Events, TrainingProcess
from mloc_tasks.executors.training.rank import Place
from mloc_tasks.executors.training.surroundings import LOOPBACK, environment_of
from mloc_tasks.host.frames import Frame

logger = logging.getLogger("mloc.host")

CAUSE_SEC = 5.0  # for the one that failed first to be heard of, when another says that the connection is lost
LAST_SEC = 120.0  # for the others to be done after the first is


def run_processes(target: str, task: Task, out_dir: Path, launch: Launch) -> dict[str, Any]:
    """Have several processes call `train` of the executor `module:Class`; gives what the first one's returned.

    All of them end together: raises the first error of any. One that was killed is a `HostCrashedError`.
    """
    events: Events = queue.SimpleQueue()
    started: list[TrainingProcess] = []
    try:
        with socket.create_server((LOOPBACK, 0), backlog=launch.processes) as meeting:
            port: int = meeting.getsockname()[1]
            for rank in range(launch.processes):
                place = Place(rank, launch.processes)
                order = Order.of(
                    task, target=target, out_dir=out_dir, place=place, port=port, on_gpus=bool(launch.gpus)
                )
                env = environment_of(place, launch, port=port, cpus=len(usable_cpus()), path=sys.path)
                started.append(TrainingProcess(order, env, events, listening=meeting if rank == 0 else None))
        result = _result(started, events, task.report)
        for process in started:
            process.leave()
        for process in started:
            process.wait_for_end()
        return result
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def _result(started: list[TrainingProcess], events: Events, report: Reporter) -> dict[str, Any]:
    """Pass on what the first one reports until all have given a result, or one has failed."""
    results: dict[int, dict[str, Any]] = {}
    until: float | None = None
    while len(results) < len(started):
        try:
            process, frame = events.get(timeout=None if until is None else max(until - time.monotonic(), 0))
        except queue.Empty:
            logger.warning("%d processes of the training did not end with the first one", len(started) - len(results))
            break
        if frame["type"] == "result":
            results[process.rank] = frame["result"]
            if process.rank == 0:
                until = time.monotonic() + LAST_SEC
        elif frame["type"] in ("error", "ended") and process.rank not in results:
            failure = _cause(Failure(process, frame), events, of=len(started))
            for each in started:
                each.kill()
            failure.process.wait()  # for the last that it said
            raise failure.error(of=len(started))
        else:
            _report(frame, report)
    return results[0]


def _report(frame: Frame, report: Reporter) -> None:
    if frame["type"] == "progress":
        report.progress(frame["done"], frame["total"])
    elif frame["type"] == "log":
        report.log(frame["message"], level=frame["level"])
    elif frame["type"] == "metrics":
        report.metrics(frame["step"], frame["values"])


def _cause(first: Failure, events: Events, *, of: int) -> Failure:
    """The failure that came first: the one whose connection broke may have been heard before the one who broke it."""
    failures = {first.process.rank: first}
    until = time.monotonic() + CAUSE_SEC
    while all(failure.is_consequence for failure in failures.values()) and len(failures) < of:
        try:
            process, frame = events.get(timeout=max(until - time.monotonic(), 0))
        except queue.Empty:
            break
        if frame["type"] in ("error", "ended"):
            failures.setdefault(process.rank, Failure(process, frame))
    return min(failures.values(), key=lambda failure: (failure.is_consequence, failure.frame["time"]))
