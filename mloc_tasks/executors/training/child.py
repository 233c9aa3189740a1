"""One process of a training that has several: `python boot.py call mloc_tasks.executors.training.child:serve ...`."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ConfigError
from mloc_tasks.executors.base import Task
from mloc_tasks.executors.training.rank import Place, take
from mloc_tasks.executors.training.surroundings import LOOPBACK
from mloc_tasks.host.child import WireReporter
from mloc_tasks.host.failures import to_frame
from mloc_tasks.host.frames import Wire

if TYPE_CHECKING:
    from mloc_tasks.executors.training.executor import TrainingExecutor
    from mloc_tasks.spec import StageSpec

COLLECTIVE_SEC = 1800.0  # for one exchange among the processes, unless `training.ddp_timeout` says otherwise


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do: `module:Class` of the executor, the task's document and its other arguments."""

    target: str
    document: dict[str, Any]
    arguments: dict[str, Any]
    out_dir: Path
    place: Place
    port: int
    on_gpus: bool

    @classmethod
    def of(cls, task: Task, **rest: Any) -> Order:
        """An order for the task; its reporter does not travel, nor does its being cancelled."""
        arguments = {name: value for name, value in vars(task).items() if name not in ("report", "cancelled")}
        return cls(document=dict(task), arguments=arguments, **rest)


class Silence:
    """The reporter of all processes but the first."""

    def progress(self, done: int, total: int | None = None) -> None: ...

    def log(self, message: str, *, level: str = "info") -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...


class Owner:
    """Whoever started this process, at the other end of a socket. Once it is gone, so is this process."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._done = False
        self._watch = threading.Thread(target=self._wait_for_its_end, name="mloc-owner", daemon=True)
        self._watch.start()

    def finish(self, result: dict[str, Any]) -> None:
        """Give the result, and wait until the others have given theirs."""
        self._done = True
        self._wire.send({"type": "result", "result": result})
        self._watch.join()

    def _wait_for_its_end(self) -> None:
        while self._wire.receive() is not None:
            pass
        if not self._done:
            os._exit(1)  # the main thread may wait for another process


def serve(descriptor: str, listening: str = "") -> None:
    """Do the order that comes by standard input; reports and the result go through the socket `descriptor`.

    Args:
        listening: of the first process: the socket on which it opens the store where all of them meet.
    """
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO"), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner
    os.set_inheritable(int(descriptor), False)
    wire = Wire(socket.socket(fileno=int(descriptor)))
    owner = Owner(wire)
    try:
        order: Order = pickle.load(sys.stdin.buffer)
        with _in_the_group(order, int(listening) if listening else None):
            result = _train(order, wire)
            owner.finish(result if order.place.rank == 0 else {})
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # the boundary: whatever an executor raises is told
        wire.send({"type": "error", "time": time.monotonic(), **to_frame(error)})
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # what a library would do at its end may wait for the others


def _train(order: Order, wire: Wire) -> dict[str, Any]:
    module, _, name = order.target.partition(":")
    executor: TrainingExecutor = getattr(importlib.import_module(module), name)()
    report = WireReporter(wire, 0, executor) if order.place.rank == 0 else Silence()
    return executor.train(Task(order.document, report=report, **order.arguments), order.out_dir)


@contextmanager
def _in_the_group(order: Order, listening: int | None) -> Iterator[None]:
    """Among the processes of the training, which exchange tensors within the block: by NCCL from GPU to GPU, by Gloo
    what is on CPUs.
    """
    import torch

    dist: Any = importlib.import_module("torch.distributed")  # its types leave out what the platform may lack
    place = order.place
    take(place)
    store = None
    if listening is not None:  # not `init_process_group`'s own, which would listen on all networks
        store = dist.TCPStore(LOOPBACK, order.port, is_master=True, wait_for_workers=False, master_listen_fd=listening)
    if order.on_gpus:
        if not torch.cuda.is_available():
            raise ConfigError(
                f"torch {torch.__version__} under {sys.executable} cannot use this machine's GPUs",
                hint="install a torch for the driver's CUDA version; `nvidia-smi` shows it",
            )
        torch.cuda.set_device(place.rank)
    wait = timedelta(seconds=_collective_sec(order.arguments["spec"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if order.on_gpus else "gloo", timeout=wait)
    yield
    dist.destroy_process_group()
    del store


def _collective_sec(spec: StageSpec) -> float:
    given = (spec.training.model_extra or {}).get("ddp_timeout") if spec.training else None
    return float(given) if given is not None else COLLECTIVE_SEC
