"""One run of the pipeline under faults, from its seed to its verdict."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from scheduler.runs import Run
from scheduler.submit import submit_yaml
from tests.chaos.audit import audit
from tests.chaos.faults import FAULTS, STORE_FAULTS, Strike
from tests.chaos.pipeline import PIPELINE, Pipeline
from tests.chaos.repair import repair
from tests.chaos.stack import DEADLINE_SEC, POLL_SEC, TIMEOUT_SEC, Stack

MOST_FAULTS = 4
STALL_SEC = TIMEOUT_SEC + 6  # without any event for so long, a run needs `reconcile`
CLIENT_DEATHS = ("", "", "after", "during")  # "": it lives


@dataclass(frozen=True, kw_only=True)
class Script:
    """What shall happen: faults with the number of committed shards at which each strikes, and how the client dies."""

    seed: int
    faults: tuple[tuple[int, str], ...]
    client_death: str = ""

    @classmethod
    def of_seed(cls, seed: int, *, total: int, kinds: Sequence[str] = tuple(FAULTS)) -> Script:
        rng = random.Random(seed)
        times = sorted(rng.randrange(total) for _ in range(rng.randint(1, MOST_FAULTS)))
        return cls(
            seed=seed,
            faults=tuple((at, rng.choice(kinds)) for at in times),
            client_death=rng.choice(CLIENT_DEATHS),
        )

    def __str__(self) -> str:
        parts = [f"{name} at {at}" for at, name in self.faults]
        return ", ".join([*parts, *([f"client dies {self.client_death}"] if self.client_death else [])]) or "calm"


@dataclass(kw_only=True)
class Verdict:
    """What became of a run. `lost` holds, for each fault, the seconds until each shard that it stopped ran again."""

    script: Script
    run_id: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    lost: list[tuple[str, float]] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lost = ", ".join(f"{fault} {seconds:.1f} s" for fault, seconds in self.lost)
        repaired = f"; repaired: {'; '.join(self.repairs)}" if self.repairs else ""
        words = "ok" if not self.problems else "FAILED: " + "\n    ".join(self.problems)
        return f"seed {self.script.seed} ({self.script}) {self.seconds:.1f} s; lost: {lost or '-'}{repaired}: {words}"


def play(stack: Stack, script: Script, *, pipeline: Pipeline = PIPELINE) -> Verdict:
    """Submit the pipeline, let the script's faults strike, wait for the end and audit it."""
    verdict = Verdict(script=script)
    rng = random.Random(script.seed)
    stack.wait_for_workers()
    begun = time.monotonic()
    try:
        run = submit(stack, pipeline, script.client_death, rng)
        verdict.run_id = run.id
        Drive(stack, run, script, verdict, rng).to_the_end()
        verdict.seconds = time.monotonic() - begun
        verdict.problems.extend(audit(stack, run, pipeline))
        verdict.lost.extend(lost_times(run, verdict.strikes))
    except AssertionError as error:
        verdict.problems.append(str(error))
    return verdict


def submit(stack: Stack, pipeline: Pipeline, death: str, rng: random.Random) -> Run:
    """The run, also where the client that submits it is killed on the way."""
    if not death:
        return submit_yaml(pipeline.document())
    known = {record.id for record in stack.ledger.runs()}
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        print(json.dumps(pipeline.document()), file=client.stdin, flush=True)
        client.stdout.readline()
        print("go", file=client.stdin, flush=True)
        if death == "after":
            client.stdout.readline()
        else:
            time.sleep(rng.uniform(0.0, 0.15))  # the fault itself: somewhere in the middle of the submission
    finally:
        client.kill()
        client.communicate()
    created = [record.id for record in stack.ledger.runs() if record.id not in known]
    return Run(created[0]) if created else submit_yaml(pipeline.document())


class Drive:
    """Strikes when it is time, ends what is due, and repairs a run that stands still."""

    def __init__(self, stack: Stack, run: Run, script: Script, verdict: Verdict, rng: random.Random) -> None:
        self._stack = stack
        self._run = run
        self._pending = list(script.faults)
        self._verdict = verdict
        self._rng = rng
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def to_the_end(self) -> None:
        """Until the run has ended, every fault that its end left room for has struck, and all are over."""
        end = time.monotonic() + DEADLINE_SEC
        newest, moved = "", time.monotonic()
        try:
            while not (over := self._over()) or self._due:
                now = time.monotonic()
                if now > end:
                    raise AssertionError(f"the run has not ended after {DEADLINE_SEC:g} s")
                self._end_due(now)
                if not self._due and not over:
                    newest, moved = self._watch(newest, moved)
                else:
                    moved = now
                self._strike()
                time.sleep(POLL_SEC)
        finally:
            self._end_due(float("inf"))

    def _over(self) -> bool:
        return self._stack.ask(lambda: self._stack.ledger.run(self._run.id).state.is_final)

    def _strike(self) -> None:
        if not self._pending:
            return
        at, name = self._pending[0]
        if self._stack.ask(lambda: self._stack.committed(self._run.id)) < at:
            return
        self._pending.pop(0)
        strike = {**FAULTS, **STORE_FAULTS}[name](self._stack, self._rng, self._run.id)
        self._verdict.strikes.append(strike)
        now = time.monotonic()
        for delay, action in strike.due:
            heappush(self._due, (now + delay, next(self._order), action))

    def _end_due(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            _, _, action = heappop(self._due)
            action()

    def _watch(self, newest: str, moved: float) -> tuple[str, float]:
        """Repair a run in which nothing has happened for too long. Gives its newest event and when that was seen."""
        last = self._stack.ask(lambda: self._stack.ledger.last_event(self._run.id))
        now = time.monotonic()
        if last != newest:
            return last, now
        if now - moved > STALL_SEC:
            if done := repair(self._stack):  # else it goes on by itself: the machine stood still
                self._verdict.repairs.append(f"stood still at {self._stack.committed(self._run.id)}: {done}")
            return last, now
        return newest, moved


def lost_times(run: Run, strikes: Sequence[Strike]) -> list[tuple[str, float]]:
    """For each attempt that a strike stopped: seconds until the shard was begun again."""
    began: dict[tuple[str, str, int], tuple[float, str]] = {}
    ended: dict[tuple[str, str, int], float] = {}
    for event in run.events():
        if event.kind != "shard":
            continue
        name = (event.stage, event.shard, event.attempt)
        if event.state == "running":
            began[name] = (event.time, event.data["worker"])
        elif event.state in ("done", "failed", "released"):
            ended[name] = event.time
    found = []
    for strike in strikes:
        for (stage, shard, attempt), (since, worker) in began.items():
            again = began.get((stage, shard, attempt + 1))
            stopped = worker in strike.victims and since <= strike.time < ended.get((stage, shard, attempt), 1e18)
            if stopped and again is not None and again[0] >= strike.time:
                found.append((strike.fault, again[0] - strike.time))
    return found
