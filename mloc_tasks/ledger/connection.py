"""The connection to Redis, and its errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from mloc_tasks.errors import BrokerError, LedgerError
from mloc_tasks.settings import Settings

CONNECT_TIMEOUT_SEC = 5.0
SOCKET_TIMEOUT_SEC = 15.0  # above the longest blocking read (events.BLOCK_MS)
PASSING = ("OOM", "READONLY", "LOADING", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "BUSY ")
FOREVER = -1  # retries, as redis-py counts them
RETRY_SEC = (0.05, 1.0)  # between two tries: at first, and at most


# redis-py's types do not know `decode_responses`: they take every answer for bytes or text.
Client = Any


def connect(settings: Settings, *, patient: bool = False) -> Client:
    """A client of the ledger's Redis; connects on first use.

    A `patient` one waits for a Redis that is away and sends the command again, as pool children do: they could record
    nothing of their attempt otherwise, and its claim would be held by a process that has forgotten it.
    """
    retry = Retry(ExponentialWithJitterBackoff(base=RETRY_SEC[0], cap=RETRY_SEC[1]), FOREVER) if patient else None
    try:
        return settings.redis.connect(
            decode_responses=True,
            socket_timeout=SOCKET_TIMEOUT_SEC,
            socket_connect_timeout=CONNECT_TIMEOUT_SEC,
            health_check_interval=25,
            **({"retry": retry} if retry else {}),
        )
    except ValueError as error:
        raise BrokerError(
            f"REDIS_URL={settings.shown_redis_url}: {error}", hint="write redis://host:6379/0 or unix:///path/to.sock"
        ) from error


@contextmanager
def broker_errors(shown_url: str) -> Iterator[None]:
    """Turns redis-py's errors into a `BrokerError` that names the server and what to do."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise BrokerError(
            f"Redis at {shown_url} refuses the password: {error}", hint="put user and password into REDIS_URL"
        ) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise BrokerError(
            f"Redis at {shown_url} cannot be reached: {error}",
            hint="start it (redis-server), or set REDIS_URL; `mloc run SPEC` needs none",
        ) from error
    except redis.exceptions.ResponseError as error:
        if str(error).startswith(PASSING) or isinstance(error, redis.exceptions.OutOfMemoryError):
            raise BrokerError(
                f"Redis at {shown_url} takes no writes: {error}", hint="see its memory limit, its disk and its replicas"
            ) from error
        raise LedgerError(f"Redis at {shown_url} refused a command: {error}") from error


@lru_cache(maxsize=16)
def script_text(name: str) -> str:
    """The Lua source of a ledger script, with the shared head."""
    folder = files("mloc_tasks.ledger") / "scripts"
    return "".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name))


class Scripts:
    """The ledger's Lua scripts, run by digest and loaded where the server does not know them yet."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scripts: dict[str, Any] = {}

    def run(self, name: str, keys: list[str], args: list[str | int | float]) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(script_text(name))
        return script(keys=keys, args=args)
