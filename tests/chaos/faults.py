"""What goes wrong. A fault strikes at once; what puts an end to it (a restart, a SIGCONT) is due some time later."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import psutil

from mloc_tasks.ledger import State
from tests.chaos.stack import POLL_SEC, TIMEOUT_SEC, Stack

ENDS_SEC = 45.0  # a worker after SIGTERM: running shards have 30 s
MOST_AWAY_SEC = 1.5  # the broker
BUSY_VICTIM_SEC = 3.0  # how long a fault waits for its victim to hold a shard


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A fault that struck: when, whom (workers whose shards it stopped), and what is due how many seconds later."""

    fault: str
    time: float
    victims: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    due: tuple[tuple[float, Callable[[], None]], ...] = field(default=(), repr=False)


Fault = Callable[[Stack, random.Random, str], Strike]


def child_killed(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """A pool child gets SIGKILL, preferably one that runs a shard."""
    name = _victim(stack, rng, run_id)
    holders = _holders(stack, run_id, name)
    children = sorted(stack.children(name), key=lambda child: (child.pid not in holders, child.pid))
    for child in children[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    pids = tuple(child.pid for child in children[:1])
    return Strike(fault="child_killed", time=time.time(), victims=(name,), pids=pids)


def worker_killed(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """A worker and its children get SIGKILL, as when a machine goes away; it comes back later."""
    name = _victim(stack, rng, run_id)
    _kill(stack, name)
    back = rng.uniform(0.0, 2 * TIMEOUT_SEC)
    return Strike(
        fault="worker_killed", time=time.time(), victims=(name,), due=((back, partial(stack.start_worker, name)),)
    )


def worker_paused(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """A worker gets SIGSTOP past its timeout, then SIGCONT."""
    name = _victim(stack, rng, run_id)
    worker = stack.workers[name]
    stack.signal_group(worker, signal.SIGSTOP)
    back = rng.uniform(1.2 * TIMEOUT_SEC, 2.5 * TIMEOUT_SEC)
    return Strike(
        fault="worker_paused",
        time=time.time(),
        victims=(name,),
        due=((back, partial(stack.signal_group, worker, signal.SIGCONT)),),
    )


def workers_restarted(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """All workers get SIGTERM, one after the other or at once, and are started again as they end."""
    gap = rng.choice((0.0, rng.uniform(0.2, 1.0)))
    due = tuple((number * gap, partial(_restart, stack, name)) for number, name in enumerate(stack.names))
    return Strike(fault="workers_restarted", time=time.time(), due=due)


def broker_restarted(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """The broker ends in order and starts again with its AOF."""
    stack.valkey.stop()
    return _broker_comes_back(stack, rng, "broker_restarted")


def broker_killed(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """The broker gets SIGKILL and starts again with its AOF (`appendfsync always`: it loses nothing)."""
    os.kill(stack.valkey.pid, signal.SIGKILL)
    stack.valkey.stop()
    return _broker_comes_back(stack, rng, "broker_killed")


def connections_cut(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """The broker closes all connections, or all but those of pub/sub, once or a few times."""
    kinds = [rng.choice(("normal", "all")) for _ in range(rng.randint(1, 3))]
    for kind in kinds:
        types = ("normal", "pubsub") if kind == "all" else ("normal",)
        for one in types:
            stack.ask(partial(stack.ledger.client.client_kill_filter, _type=one, skipme=True))
    return Strike(fault="connections_cut", time=time.time())


def store_fails(stack: Stack, rng: random.Random, run_id: str) -> Strike:
    """The artifact store answers 503, then recovers."""
    assert stack.proxy is not None
    stack.proxy.fail()
    return Strike(fault="store_fails", time=time.time(), due=((rng.uniform(1.0, 3.0), stack.proxy.recover),))


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        child_killed,
        worker_killed,
        worker_paused,
        workers_restarted,
        broker_restarted,
        broker_killed,
        connections_cut,
    )
}


def _broker_comes_back(stack: Stack, rng: random.Random, fault: str) -> Strike:
    """Not later, as other faults end: nothing can be asked for without it, and no worker ends in order."""
    gone = time.time()
    time.sleep(rng.uniform(0.0, MOST_AWAY_SEC))
    stack.valkey.start()
    return Strike(fault=fault, time=gone)


def _kill(stack: Stack, name: str) -> None:
    stack.signal_group(stack.workers[name], signal.SIGKILL)
    stack.until(lambda: not stack.lives(name), f"{name} ended after SIGKILL")


STORE_FAULTS: dict[str, Fault] = {"store_fails": store_fails}  # for a stack with a proxy


def _restart(stack: Stack, name: str) -> None:
    """SIGTERM, and a new one of the same name when it has ended."""
    worker = stack.workers[name]
    if stack.lives(name):
        stack.signal_group(worker, signal.SIGCONT)  # it may be paused
        os.kill(worker.pid, signal.SIGTERM)
        try:
            stack.until(lambda: not stack.lives(name), f"{name} ended after SIGTERM", deadline_sec=ENDS_SEC)
        except AssertionError:
            stack.signal_group(worker, signal.SIGABRT)
            raise
    stack.start_worker(name)


def _victim(stack: Stack, rng: random.Random, run_id: str) -> str:
    """A worker that holds a shard, waited for a little; any live one where none does."""
    wanted = rng.sample(stack.names, len(stack.names))
    end = time.monotonic() + BUSY_VICTIM_SEC
    while time.monotonic() < end:
        for name in wanted:
            if stack.children(name) and _holders(stack, run_id, name):
                return name
        if stack.ask(lambda: stack.ledger.run(run_id).state.is_final):
            break
        time.sleep(POLL_SEC / 10)
    return next((name for name in wanted if stack.children(name)), wanted[0])


def _holders(stack: Stack, run_id: str, worker: str) -> set[int]:
    """Process ids of the children of `worker` that hold a shard of the run."""
    return {
        int(record.holder.partition(":")[0])
        for stage in stack.ask(lambda: stack.ledger.stages(run_id))
        if stage.state is State.RUNNING
        for record in stack.ask(partial(_records, stack, run_id, stage.name))
        if record.holder and record.worker == worker
    }


def _records(stack: Stack, run_id: str, stage: str) -> list:
    return list(stack.ledger.shards(run_id, stage))
