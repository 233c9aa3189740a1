"""Runs that nothing moves any more: found, and sent again.

Messages are hints, the ledger is the truth. A message can be lost (a broker restored from an old copy, a queue deleted
by hand, a crash between a commit and what follows it), and then nobody goes on with the run. Sending again is safe at
any time: the claims are atomic, so a message too many finds its shard taken or done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mloc_tasks.configuration import sending_app
from mloc_tasks.errors import RunNotFoundError
from mloc_tasks.ledger import GATHER, SCATTER, Event, Ledger, RunRecord, ShardRecord, StageRecord
from mloc_tasks.settings import Settings
from scheduler.messages import RunMessages, can_look_into, find_messages
from scheduler.resume import send_rest

logger = logging.getLogger("mloc.reconcile")

GRACE_TIMEOUTS = 2.0  # a vanished worker's messages come back by themselves within one visibility timeout
MOST_DOUBLINGS = 8
SHOWN = 5

ShardName = tuple[str, str]
"""Stage, and shard number, `scatter` or `gather`."""


class Action(StrEnum):
    LEAVE = "leave"
    RESEND = "resend"  # send the messages of what is not over
    END = "end"  # end a cancelled run whose workers are gone


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """What happened within the grace period."""

    anything: bool = False
    run: bool = False
    stages: frozenset[str] = frozenset()
    shards: frozenset[ShardName] = frozenset()

    @classmethod
    def of(cls, events: Iterable[Event]) -> Activity:
        """Of events that are all young enough to count."""
        run, anything = False, False
        stages: set[str] = set()
        shards: set[ShardName] = set()
        for event in events:
            anything = True
            if event.kind in ("run", "resent"):
                run = True
            elif event.shard:
                shards.add((event.stage, event.shard))
            elif event.stage:
                stages.add(event.stage)
        return cls(anything=anything, run=run, stages=frozenset(stages), shards=frozenset(shards))


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What is known of a run at one moment.

    Attributes:
        next: what a message should be about: all that may run now and is not over, of stages whose upstream is over.
        claimed: what a live worker holds.
        messages: what waits for workers or is held by them; None where the broker does not show it.
    """

    run: RunRecord
    stages: tuple[StageRecord, ...]
    next: frozenset[ShardName]
    claimed: frozenset[ShardName]
    activity: Activity
    messages: RunMessages | None
    now: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do about a run, and why."""

    action: Action
    reason: str
    shards: tuple[ShardName, ...] = ()


def decide(picture: Picture, *, grace_sec: float) -> Decision:
    """What to do about a run. Claims, messages and the last `grace_sec` seconds decide."""
    run, activity = picture.run, picture.activity
    if run.state.is_final:
        return Decision(action=Action.LEAVE, reason=f"it is {run.state}")
    if run.cancel_requested and picture.claimed:
        return Decision(action=Action.LEAVE, reason="cancelled; its workers end what runs")
    if run.cancel_requested:
        if activity.anything:
            return Decision(action=Action.LEAVE, reason="cancelled a moment ago")
        return Decision(action=Action.END, reason="cancelled, and none of its workers lives")
    if run.resent is not None and picture.now - run.resent < _pause(picture, grace_sec):
        return Decision(action=Action.LEAVE, reason="its messages were sent again a moment ago")
    if all(stage.state.is_final for stage in picture.stages):
        if activity.anything or picture.messages:
            return Decision(action=Action.LEAVE, reason="its end is on the way")
        return Decision(action=Action.RESEND, reason="all its stages are over, but nothing ends it")
    return _about_open_stages(picture)


def _about_open_stages(picture: Picture) -> Decision:
    if picture.messages is None and (picture.claimed or picture.activity.anything):
        # Where messages cannot be seen only a run that is wholly still counts as stranded.
        return Decision(action=Action.LEAVE, reason="it goes on")
    stranded = sorted(name for name in picture.next - picture.claimed if not _is_cared_for(picture, name))
    if not stranded:
        return Decision(action=Action.LEAVE, reason="it goes on, or its messages wait for workers")
    names = ", ".join(f"{stage}[{shard}]" for stage, shard in stranded[:SHOWN])
    more = f" and {len(stranded) - SHOWN:,} more" if len(stranded) > SHOWN else ""
    return Decision(
        action=Action.RESEND, reason=f"neither message nor worker for {names}{more}", shards=tuple(stranded)
    )


def _is_cared_for(picture: Picture, name: ShardName) -> bool:
    """Whether something will make `name` run: a message of it or of what comes before it, or what just happened."""
    stage, shard = name
    activity, messages = picture.activity, picture.messages or RunMessages()
    if activity.run or name in activity.shards or name in messages.shards or (stage, SCATTER) in messages.shards:
        return True
    if stage in activity.stages:
        return True
    if shard == GATHER:  # the last of the stage's shards brings it
        return any(each == stage for each, _ in activity.shards | messages.shards)
    if shard.isdigit() and _stage(picture, stage).scattered:  # the scatter brought them all
        return (stage, SCATTER) in activity.shards
    above = _upstream(picture.stages, stage)
    if any(each in above for each in activity.stages) or any(each in above for each, _ in activity.shards):
        return True
    return messages.others > 0 or any(each in above for each, _ in messages.shards)


def _pause(picture: Picture, grace_sec: float) -> float:
    """How long to wait after a resend; longer each time where nobody can see whether the messages still wait."""
    if picture.messages is not None:
        return grace_sec
    return float(grace_sec * 2.0 ** min(picture.run.resends, MOST_DOUBLINGS))


def _stage(picture: Picture, name: str) -> StageRecord:
    return next(stage for stage in picture.stages if stage.name == name)


def _upstream(stages: Sequence[StageRecord], name: str) -> set[str]:
    above = {stage.name: stage.depends_on for stage in stages}
    found: set[str] = set()
    waiting = list(above[name])
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found.add(stage)
            waiting += above[stage]
    return found


def runnable(stages: Sequence[StageRecord], open_shards: Mapping[str, Sequence[ShardRecord]]) -> frozenset[ShardName]:
    """What may run now: of each open stage whose upstream is over its scatter, its open shards, or its gather.

    `open_shards`: of each such stage, the records that are not over.
    """
    found: set[ShardName] = set()
    for stage in ready(stages):
        names = {record.shard for record in open_shards.get(stage.name, ())}
        numbers = {name for name in names if name.isdigit()}
        if SCATTER in names:
            found.add((stage.name, SCATTER))
        elif numbers:
            found.update((stage.name, number) for number in numbers)
        else:
            found.add((stage.name, GATHER if stage.scattered else "0"))
    return frozenset(found)


def ready(stages: Sequence[StageRecord]) -> list[StageRecord]:
    """The open stages whose upstream is over."""
    over = {stage.name for stage in stages if stage.state.is_final}
    return [stage for stage in stages if stage.name not in over and over.issuperset(stage.depends_on)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A run about which something was done."""

    run_id: str
    decision: Decision


@dataclass(kw_only=True)
class Reconciler:
    """Looks at all runs that have not ended. Several may run at once: the ledger lets one of them act.

    `grace_sec`: how long nothing must have happened; default: two visibility timeouts.
    """

    ledger: Ledger
    settings: Settings
    grace_sec: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.grace_sec = self.grace_sec or GRACE_TIMEOUTS * self.settings.visibility_timeout_sec

    def look(self) -> list[Finding]:
        """One look at every run; acts where it must. Raises BrokerError."""
        doubtful = [picture for run_id in self.ledger.open_runs() if (picture := self._doubtful(run_id)) is not None]
        if not doubtful:
            return []
        messages = self._messages(doubtful)  # before the ledger is read again: what is taken now shows there
        found = []
        for earlier in doubtful:
            run_id = earlier.run.id
            try:
                picture = self._picture(run_id, messages.get(run_id))
                decision = decide(picture, grace_sec=self.grace_sec)
                if decision.action is not Action.LEAVE and self._act(picture, decision):
                    logger.warning("run %s: %s: %s", run_id, decision.action, decision.reason)
                    found.append(Finding(run_id=run_id, decision=decision))
            except RunNotFoundError:
                continue  # its retention has passed just now
        return found

    def _doubtful(self, run_id: str) -> Picture | None:
        """The run where it would need help if there were no messages of it."""
        try:
            picture = self._picture(run_id, RunMessages())
        except RunNotFoundError:
            return None
        return None if decide(picture, grace_sec=self.grace_sec).action is Action.LEAVE else picture

    def _messages(self, pictures: Sequence[Picture]) -> dict[str, RunMessages]:
        if not can_look_into(sending_app(self.settings)):
            return {}
        queues = sorted({stage.queue for picture in pictures for stage in picture.stages})
        return find_messages(self.ledger.client, self.ledger.keys, queues, [picture.run.id for picture in pictures])

    def _picture(self, run_id: str, messages: RunMessages | None) -> Picture:
        ledger, now = self.ledger, time.time()
        run, stages = ledger.run(run_id), tuple(ledger.stages(run_id))
        open_shards = {stage.name: ledger.open_shards_of(run_id, stage.name) for stage in ready(stages)}
        held = [(name, record) for name, records in open_shards.items() for record in records if record.holder]
        leases = ledger.leases(record.worker for _, record in held)
        return Picture(
            run=run,
            stages=stages,
            next=runnable(stages, open_shards),
            claimed=frozenset((name, record.shard) for name, record in held if record.stands_under(leases)),
            activity=Activity.of(ledger.recent_events(run_id, since=now - self.grace_sec)),
            messages=messages,
            now=now,
        )

    def _act(self, picture: Picture, decision: Decision) -> bool:
        run = picture.run
        if decision.action is Action.END:
            return self.ledger.bury(run.id, [stage.name for stage in picture.stages if not stage.state.is_final])
        if not self.ledger.note_resent(run.id, resends=run.resends, reason=decision.reason):
            return False
        send_rest(run.id, ledger=self.ledger, settings=self.settings)
        return True
