"""What must hold once a run is over and everything is quiet."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mloc_tasks.artifacts.names import MANIFEST_NAME, RESERVED
from mloc_tasks.ledger import GATHER, SCATTER, ShardRecord, State
from scheduler.backlog import backlogs
from scheduler.runs import Run
from tests.chaos.pipeline import Pipeline
from tests.chaos.stack import POLL_SEC, TIMEOUT_SEC, Stack

QUIET_SEC = 60.0
STALE_ENDS_SEC = 20.0
RESULT = "responses.json"

_LOG_LINE = re.compile(r"\[(\S+ \S+): \w+/[^\]]*\] (\S+)/(\d+): (.*)")
_STORED = re.compile(r"the checkpoint of step (\d+) is in the store")
_BEGUN = re.compile(r"resumes from step (\d+)|begins anew")


def wait_for_quiet(stack: Stack) -> None:
    """Until no message is queued or unacknowledged and every worker lives with all its children."""
    client, prefix = stack.ledger.client, stack.ledger.keys.prefix
    stack.wait_for_workers()

    def quiet() -> bool:
        waiting = sum(backlogs(client, prefix, ("cpu",)).values())
        return not waiting and not client.hlen(f"{prefix}unacked") and not client.zcard(f"{prefix}unacked_index")

    try:
        stack.until(quiet, "queues empty and nothing unacknowledged", deadline_sec=QUIET_SEC)
    except AssertionError as error:
        left = {
            "queued": backlogs(client, prefix, ("cpu",)),
            "unacked": {tag: text[:300] for tag, text in client.hgetall(f"{prefix}unacked").items()},
            "unacked_index": client.zrange(f"{prefix}unacked_index", 0, -1),
        }
        raise AssertionError(f"{error}; left: {left}") from None
    stack.until(lambda: all(len(stack.children(name)) == stack.concurrency for name in stack.names), "pools are full")


def audit(stack: Stack, run: Run, pipeline: Pipeline) -> list[str]:
    """Everything that is wrong with a run that is over; empty when all holds."""
    wait_for_quiet(stack)
    # A worker that was paused holds no message any more, but learns only now that its attempts are stale; it ends them.
    # So does a host whose owner is gone: it sees that by a pipe.
    end = time.monotonic() + STALE_ENDS_SEC
    while (problems := _problems(stack, run, pipeline)) and time.monotonic() < end:
        time.sleep(POLL_SEC)
    return problems


def _problems(stack: Stack, run: Run, pipeline: Pipeline) -> list[str]:
    return [
        *_ledger_problems(stack, run, pipeline),
        *_store_problems(stack, run, pipeline),
        *_result_problems(run, pipeline),
        *_training_problems(stack, run),
        *_key_problems(stack),
        *(f"a process is left over: {process}" for process in stack.strays()),
        *(f"a file is left over: {path}" for path in _temporary_files(stack)),
    ]


def _ledger_problems(stack: Stack, run: Run, pipeline: Pipeline) -> Iterator[str]:
    record = stack.ledger.run(run.id)
    if record.state is not State.DONE:
        yield f"the run is {record.state}: {record.error}"
    for stage in stack.ledger.stages(run.id):
        shards = pipeline.shards[stage.name]
        counted = (str(stage.state), stage.shards, stage.shards_done, stage.shards_failed)
        if counted != ("done", shards, shards, 0):
            yield f"stage {stage.name}: (state, shards, done, failed) is {counted}, not ('done', {shards}, {shards}, 0)"
        if stage.scattered and (stage.items_done, stage.items_total) != (pipeline.rows, pipeline.rows):
            yield f"stage {stage.name}: {stage.items_done} of {stage.items_total} items, not {pipeline.rows}"
        records = all_records(stack, run.id, stage.name)
        if stage.scattered and sum(record.shard.isdigit() for record in records) != shards:
            yield f"stage {stage.name}: {len(records)} records"
        for shard in records:
            if shard.state is not State.DONE or shard.holder:
                yield f"{stage.name}[{shard.shard}] is {shard.state}, attempt {shard.attempt}, held by {shard.holder!r}"
    done = [(e.stage, e.shard) for e in run.events() if e.kind == "shard" and e.state == "done"]
    for twice in sorted({name for name in done if done.count(name) > 1}):
        yield f"{twice} was committed {done.count(twice)} times"


def all_records(stack: Stack, run_id: str, stage: str) -> list[ShardRecord]:
    """The stage's shards, also its scatter and gather."""
    body = stack.ledger.client.hgetall(stack.ledger.keys.shards(run_id, stage))
    return [ShardRecord.from_json(shard, text) for shard, text in body.items()]


def _store_problems(stack: Stack, run: Run, pipeline: Pipeline) -> Iterator[str]:
    """Exactly one attempt of each shard lies in the store: the one that the ledger names."""
    stored: dict[str, set[str]] = {}
    whole: set[str] = set()
    for info in run.store.list(run.id):
        parts = info.name.removeprefix(f"{run.id}/").split("/")
        if len(parts) > 3:
            stored.setdefault("/".join(parts[:2]), set()).add(parts[2])
    for stage in pipeline.shards:
        for record in all_records(stack, run.id, stage):
            if record.shard == SCATTER:
                continue
            place = f"{stage}/{record.shard}"
            attempts = stored.pop(place, set())
            if attempts != {str(record.attempt)}:
                yield f"{place}: attempts {sorted(attempts)} are in the store, the ledger says {record.attempt}"
            elif run.store.manifest(f"{run.id}/{place}/{record.attempt}") is None:
                yield f"{place}: attempt {record.attempt} has no {MANIFEST_NAME}"
            whole.add(place)
    for place in stored:
        yield f"{place} is in the store and not in the ledger"
    if f"noop/{GATHER}" not in whole:
        yield "the ledger has no gather of stage noop"


def _result_problems(run: Run, pipeline: Pipeline) -> Iterator[str]:
    with run.open(RESULT) as stream:
        text = stream.read()
    expected = json.dumps(pipeline.expected(), ensure_ascii=False).encode()
    if text != expected:
        yield f"the result is not a calm run's: {text[:200]!r}... instead of {expected[:200]!r}..."


def _training_problems(stack: Stack, run: Run) -> Iterator[str]:
    """No attempt begins before a checkpoint that was in the store by then; the workers' logs tell."""
    lines = sorted(
        (datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f"), int(match[3]), match[4])
        for name in stack.names
        for line in stack.log(name).read_text(errors="replace").splitlines()
        if (match := _LOG_LINE.match(line)) and match[2] == f"{run.id}/trained/0"
    )
    stored: list[tuple[int, int]] = []  # attempt and step, as they came
    for _, attempt, text in lines:
        if match := _STORED.match(text):
            stored.append((attempt, int(match[1])))
        elif match := _BEGUN.match(text):
            newest = max((step for earlier, step in stored if earlier < attempt), default=0)
            if int(match[1] or 0) < newest:
                yield f"attempt {attempt} at trained: {text!r}, though step {newest} was in the store"


def _key_problems(stack: Stack) -> Iterator[str]:
    client, prefix = stack.ledger.client, stack.ledger.keys.prefix
    lasting = (f"{prefix}_kombu.binding", f"{prefix}runs", f"{prefix}workers")
    for key in client.scan_iter(count=1000):
        if client.ttl(key) == -1 and not key.startswith(lasting):
            yield f"key {key} never expires"
    leases = {stack.ledger.keys.lease(name) for name in stack.names}
    for key in set(client.scan_iter(match=f"{stack.ledger.keys.lease('')}*")) - leases:
        if client.pttl(key) > TIMEOUT_SEC * 1000:
            yield f"lease {key} of no worker lasts for {client.pttl(key)} ms"


def _temporary_files(stack: Stack) -> Iterator[Path]:
    """Hidden entries of a local store, and what workers left in the folder that is their TMPDIR."""
    for folder, directories, files in os.walk(stack.results):
        for name in [*directories, *files]:
            if name.startswith(RESERVED):
                yield Path(folder, name)
    for name in stack.names:
        for path in stack.log(name).parent.iterdir():
            if path != stack.log(name) and not path.name.startswith("pymp-"):
                yield path
