"""An S3 server for tests: moto, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from mloc_tasks.artifacts.s3_connection import S3Settings, connect

LIVE_ENDPOINT = os.environ.get("MLOC_TEST_S3_ENDPOINT", "")
# Real servers let one of several writers through `If-None-Match: *`. moto looks and then writes, in threads: now and
# then two pass.
SERVER = """
import threading
from moto.s3.responses import S3Response
from moto.server import main

put, one_at_a_time = S3Response.put_object, threading.Lock()

def put_object(self):
    with one_at_a_time:
        return put(self)

S3Response.put_object = put_object
main(["-H", "127.0.0.1", "-p", "0"])
"""


def pytest_report_header() -> str:
    """Says which S3 servers the tests run against."""
    live = LIVE_ENDPOINT or "not a server of yours, because MLOC_TEST_S3_ENDPOINT is not set"
    return f"s3: moto; {live}"


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """An S3 server in a process of its own, so that requests really travel."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail("the moto server ended before it listened")
        # Its log of requests would fill the pipe and stop it.
        drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        yield found[1]
    finally:
        server.kill()
        server.wait()
    drain.wait()


@pytest.fixture
def moto_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def new_bucket(endpoint: str) -> str:
    bucket = f"mloc-test-{uuid.uuid4().hex[:12]}"
    connect(S3Settings(endpoint_url=endpoint)).client.create_bucket(Bucket=bucket)
    return bucket
