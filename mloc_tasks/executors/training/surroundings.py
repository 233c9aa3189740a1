"""What a training's processes have in their environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mloc_tasks.executors.training.launch import Launch
from mloc_tasks.executors.training.rank import Place

LOOPBACK = "127.0.0.1"
# What torchrun, accelerate, mpirun and Slurm tell their processes, and libraries look for. Where they have started the
# worker, it is about the worker.
OTHERS = frozenset(
    {
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR"),
        *("MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "ACCELERATE_USE_CPU"),
        *("PMI_RANK", "PMI_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    }
)
LOOPBACK_DEVICE = "lo"


def settle_alone(launch: Launch) -> None:
    """Make this process's environment that of a training of one process. Nothing here has asked for CUDA yet.

    A GPU that is not for it must not be seen: transformers' Trainer would use all it sees.
    """
    for name in OTHERS:
        os.environ.pop(name, None)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(launch.gpus)


def environment_of(place: Place, launch: Launch, *, port: int, cpus: int, path: Sequence[str]) -> dict[str, str]:
    """The whole environment of one of several processes: torchrun's variables, so that all that runs under that runs.

    Args:
        port: where the processes meet, on this machine alone; somebody listens there already.
        cpus: how many they share.
        path: where this process finds modules (`sys.path`).
    """
    rank, size = str(place.rank), str(place.world_size)
    threads = min(int(os.environ.get("OMP_NUM_THREADS") or cpus), cpus) // place.world_size
    env = {
        **{name: value for name, value in os.environ.items() if name not in OTHERS},
        **dict.fromkeys(("RANK", "LOCAL_RANK", "ROLE_RANK"), rank),
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE"), size),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store where they meet is there: nobody is to open one
        "CUDA_VISIBLE_DEVICES": ",".join(launch.gpus),
        "OMP_NUM_THREADS": str(max(threads, 1)),
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in path),
    }
    if not launch.gpus:
        env["ACCELERATE_USE_CPU"] = "true"  # else accelerate lets each process train alone
    if os.path.exists(f"/sys/class/net/{LOOPBACK_DEVICE}"):
        # Else they look up the host's own name, which in many a container leads nowhere.
        env.update(dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), LOOPBACK_DEVICE))
    return env
