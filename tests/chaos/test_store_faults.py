"""The artifact store answers 503 for a while, in the middle of a run, at its end, and after its last stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mloc_tasks.ledger import State
from scheduler import submit_yaml
from tests.chaos.driver import Script, play
from tests.chaos.pipeline import Pipeline
from tests.chaos.s3_proxy import FaultyProxy
from tests.chaos.stack import Stack
from tests.s3_server import new_bucket

pytestmark = pytest.mark.chaos

SEED = 7
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
SMALL = Pipeline(rows=48, seconds=0.02)


@pytest.fixture
def proxy(moto_endpoint: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto_endpoint).running() as proxy:
        yield proxy


@pytest.fixture
def stack(proxy: FaultyProxy, moto_endpoint: str, moto_credentials: None) -> Iterator[Stack]:
    environment = {
        "MLOC_ARTIFACTS_URL": f"s3://{new_bucket(moto_endpoint)}/runs",
        "MLOC_S3_ENDPOINT_URL": proxy.url,
    }
    with Stack(environment=environment, proxy=proxy) as stack:
        yield stack


def test_a_store_that_fails_and_recovers_loses_and_doubles_nothing(stack: Stack, proxy: FaultyProxy) -> None:
    faults = ((SMALL.total // 3, "store_fails"), (SMALL.total - 1, "store_fails"))
    verdict = play(stack, Script(seed=SEED, faults=faults), pipeline=SMALL)
    assert not verdict.problems, str(verdict)
    assert not verdict.repairs, str(verdict)
    assert proxy.refused

    # And when all that is left to do is to publish the result.
    proxy.refused = 0
    proxy.fail(f"{UUID}/responses.json")
    run = submit_yaml({**SMALL.document(), "spec": {"taskType": "echo", "message": "x"}})
    stack.until(lambda: proxy.refused, "the store refused to publish the result")
    assert run.status().state is State.RUNNING
    proxy.recover()
    assert run.wait(60) is State.DONE
