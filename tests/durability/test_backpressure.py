"""A worker whose threads share one host leaves to others what would only wait there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mloc_tasks.ledger import Event, State
from scheduler import Run, submit_yaml
from tests.durability.conftest import StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC

SHARDS = 8
LONG = {"taskType": "slow", "data": rows(1_000), "seconds": 1}


def claims(run: Run, *, until: int) -> list[str]:
    """The workers that claimed the first `until` shards, in order."""
    found: list[str] = []
    for event in run.events(follow=True):
        if event.kind == "shard" and event.shard.isdigit() and event.state == "running":
            found.append(event.data["worker"])
            if len(found) == until:
                break
    return found


def at_work(run: Run, *, begun: int, done: int) -> dict[str, str]:
    """The shards that are claimed and not done, and by whom, once so many have begun and so many are done."""
    found: dict[str, str] = {}
    for event in run.events(follow=True):
        if event.kind == "shard" and event.shard.isdigit():
            if event.state == "running":
                found[event.shard] = event.data["worker"]
                begun -= 1
            elif event.state == "done":
                del found[event.shard]
                done -= 1
            if begun <= 0 and done <= 0:
                break
    return found


def shard_events(run: Run) -> list[Event]:
    return [event for event in run.events() if event.kind == "shard" and event.shard.isdigit()]


def test_threads_that_share_a_host_claim_one_shard_ahead_at_most(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("threads", concurrency=SHARDS, options=("-P", "threads"))
    one_each = {"enabled": True, "shard_size": 1}
    spec = {
        "taskType": "slow",
        "data": rows(SHARDS),
        "seconds": 0.1,
        "until": str(tmp_path / "gate-{}"),
        "parallel": one_each,
    }
    run = submit_yaml(document(spec))
    assert claims(run, until=2) == ["threads@test"] * 2  # one at work, one that waits
    start_worker("other")
    assert claims(run, until=3)[2] == "other@test"
    begun = [event.shard for event in shard_events(run) if event.state == "running"]
    for shard in begun:
        (tmp_path / f"gate-{shard}").touch()
    worker_of = at_work(run, begun=6, done=3)
    assert sorted(worker_of.values()) == ["other@test", "threads@test", "threads@test"]
    for shard in range(SHARDS):
        (tmp_path / f"gate-{shard}").touch()
    assert run.wait(WAIT_SEC) is State.DONE


@pytest.mark.parametrize("waiting", [0, 1])
def test_light_shards_pass_a_host_that_is_busy_and_a_shard_that_waits_for_it(
    start_worker: StartWorker, waiting: int
) -> None:
    start_worker("threads", concurrency=4, options=("-P", "threads"))
    long = [submit_yaml(document(LONG)) for _ in range(1 + waiting)]
    for run in long:
        assert claims(run, until=1) == ["threads@test"]
    left = submit_yaml(document(LONG))  # lies before them
    echo = {"taskType": "echo", "data": rows(4), "parallel": {"enabled": True, "shard_size": 2}}
    light = [submit_yaml(document(spec)) for spec in ({"taskType": "echo", "message": "x"}, echo)]
    for run in light:
        assert run.wait(WAIT_SEC) is State.DONE
    assert bool(shard_events(left)) is not bool(waiting)
    for run in (*long, left):
        run.cancel()
        assert run.wait(WAIT_SEC) is State.CANCELLED


def test_while_a_shard_s_model_is_fetched_others_go_on(start_worker: StartWorker) -> None:
    start_worker("threads", concurrency=4, options=("-P", "threads"))
    with slow_server() as address:
        source = {"type": "http", "identifier": f"{address}/model.tar.gz"}
        fetching = submit_yaml(document({"taskType": "slow", "data": rows(1), "model": {"source": source}}))
        for event in fetching.events(follow=True):
            if "fetching" in str(event.data.get("message")):
                break
        other = submit_yaml(document({"taskType": "slow", "data": rows(1)}))
        assert other.wait(WAIT_SEC) is State.DONE
        assert not fetching.status().state.is_final
    fetching.cancel()
    assert fetching.wait(WAIT_SEC).is_final


@contextmanager
def slow_server() -> Iterator[str]:
    """Serves a file that comes byte by byte, and not to its end within the block. Gives its address."""
    over = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with suppress(OSError):  # who asked has gone
                while not over.wait(0.1):
                    self.wfile.write(b"x")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
