"""A training that does what a list of steps says, each in all of its processes or in one: `do: [[1, "exit", 3]]`."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.executors import Task
from mloc_tasks.executors.training import TrainingExecutor
from mloc_tasks.executors.training.rank import barrier, is_first, rank, world_size
from tests.plugins.mloc_test_script import ScriptExecutor


class TroupeExecutor(TrainingExecutor):
    """Gives what the first process found."""

    name: ClassVar[str] = "troupe"
    requires: ClassVar[tuple[str, ...]] = ("torch",)

    def train(self, task: Task, out_dir: Path) -> dict[str, Any]:
        steps = Steps()
        found: dict[str, Any] = {}
        for who, name, *arguments in task["spec"]["do"]:
            if who in ("all", rank()):
                found[name] = getattr(steps, f"do_{name}")(task, *arguments)
        return {"ok": True, "model": f"of process {rank()}", "world_size": world_size(), "pid": os.getpid(), **found}


class LackingExecutor(TroupeExecutor):
    """Needs what is not there."""

    name: ClassVar[str] = "lacking"
    requires: ClassVar[tuple[str, ...]] = ("torch", "absent_module")


class Steps(ScriptExecutor):
    """What a process can be told to do: what a script can, and this."""

    def do_add_up(self, task: Task, number: float) -> float:
        """The sum of `number` + rank over all processes."""
        import torch

        value = torch.tensor([number + rank()])
        if world_size() > 1:
            torch.distributed.all_reduce(value)
        return float(value)

    def do_meet(self, task: Task) -> None:
        barrier()

    def do_is_first(self, task: Task) -> bool:
        return is_first()

    def do_threads(self, task: Task) -> int:
        import torch

        return torch.get_num_threads()

    def do_backend(self, task: Task) -> str:
        import torch

        return str(torch.distributed.get_backend())

    def do_addresses(self, task: Task) -> list[str]:
        """Where the processes of this training listen."""
        import psutil

        processes = psutil.Process(os.getppid()).children()
        return sorted({c.laddr.ip for each in processes for c in each.net_connections("tcp") if c.status == "LISTEN"})

    def do_tell_pid(self, task: Task) -> None:
        Path(task["spec"]["folder"], f"pid-{rank()}").write_text(str(os.getpid()))

    def do_shard(self, task: Task) -> dict[str, float]:
        """A step of a layer whose weights lie in pieces in all processes (FSDP), and of the same layer whole."""
        import torch
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        torch.manual_seed(0)
        inputs, layer = torch.randn(4, 8), torch.nn.Linear(8, 6)
        whole = copy.deepcopy(layer)
        fully_shard(layer, mesh=init_device_mesh("cpu", (world_size(),)))
        here = sum(weights.to_local().numel() for weights in layer.parameters())
        losses = []
        for model, rows in ((layer, inputs[rank() :: world_size()]), (whole, inputs)):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            model(rows).square().mean().backward()
            optimizer.step()
            losses.append(model(inputs).square().mean().item())
        return {"sharded": losses[0], "whole": losses[1], "weights_here": here}
