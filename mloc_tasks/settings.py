"""Everything the environment may say, in one class; README's table is printed from it (`mloc doctor --settings`)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mloc_tasks.errors import ConfigError
from mloc_tasks.redis_url import RedisUrl, parse_redis_url, without_password

DAY_SEC = 86_400


def _named(name: str, *aliases: str) -> AliasChoices:
    return AliasChoices(name, *aliases)


class Settings(BaseSettings):
    """Settings of clients and workers alike. Names of the first MLOC are kept; new ones start with `MLOC_`."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    redis_url: str = Field(
        default="redis://localhost:6379/0",
        validation_alias=_named("REDIS_URL"),
        description="Redis or Valkey that is broker, result backend and ledger: redis://, rediss://, unix://, sentinel://",
    )
    broker_url: str = Field(
        default="",
        validation_alias=_named("MLOC_BROKER_URL"),
        description="RabbitMQ as broker: amqp:// or amqps:// (TLS); the rest stays in Redis. Default: REDIS_URL",
    )
    results_dir: Path = Field(
        default=Path("results"),
        validation_alias=_named("RESULTS_DIR"),
        description="Directory of results and artifacts, unless MLOC_ARTIFACTS_URL names another store",
    )
    artifacts_url: str = Field(
        default="",
        validation_alias=_named("MLOC_ARTIFACTS_URL"),
        description="Root of the artifact store: s3://bucket/prefix, or a directory; default: RESULTS_DIR",
    )
    s3_endpoint_url: str = Field(
        default="",
        validation_alias=_named("MLOC_S3_ENDPOINT_URL", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"),
        description="Endpoint of an S3-compatible server (MinIO, SeaweedFS, Ceph); credentials as AWS tools find them",
    )
    s3_path_style: bool | None = Field(
        default=None,
        validation_alias=_named("MLOC_S3_PATH_STYLE"),
        description="true: bucket in the path, not in the host name; default: true where an endpoint is set",
    )
    output_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        validation_alias=_named("MLOC_OUTPUT_ROOTS"),
        description="Comma-separated directories that an absolute output.destination.path may lie under",
    )
    queues_file: Path | None = Field(
        default=None,
        validation_alias=_named("MLOC_QUEUES_FILE"),
        description="The queues and what each offers; default: configs/queues.yaml",
    )
    task_topics: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validation_alias=_named("TASK_TOPICS"),
        description="Queues a worker listens to when -Q is not given, comma-separated; tasks.ppo means queue ppo",
    )
    worker_id: str = Field(
        default="", validation_alias=_named("WORKER_ID"), description="Fixed worker id; default: Celery's node name"
    )
    worker_tags: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias=_named("WORKER_TAGS"), description="Comma-separated tags that this worker offers"
    )
    heartbeat_interval_sec: float = Field(
        default=30.0,
        gt=0,
        validation_alias=_named("HEARTBEAT_INTERVAL_SEC"),
        description="Seconds between two signs of life of a worker",
    )
    heartbeat_ttl_sec: float = Field(
        default=120.0,
        gt=0,
        validation_alias=_named("HEARTBEAT_TTL_SEC"),
        description="Seconds after its last sign of life that a worker counts as gone",
    )
    log_level: str = Field(
        default="INFO", validation_alias=_named("LOG_LEVEL"), description="DEBUG, INFO, WARNING, ERROR"
    )
    vllm_model: str = Field(
        default="", validation_alias=_named("VLLM_MODEL"), description="Model of an inference stage that names none"
    )
    ppo_model: str = Field(
        default="", validation_alias=_named("PPO_MODEL"), description="Model of a ppo stage that names none"
    )
    prefix: str = Field(
        default="mloc:", validation_alias=_named("MLOC_PREFIX"), description="Prefix of every key in Redis"
    )
    visibility_timeout_sec: float = Field(
        default=60.0,
        ge=1,
        validation_alias=_named("MLOC_VISIBILITY_TIMEOUT_SEC"),
        description="Seconds after which the work of a worker that vanished goes to the others; the same for all",
    )
    shutdown_grace_sec: float = Field(
        default=30.0,
        ge=0,
        validation_alias=_named("MLOC_SHUTDOWN_GRACE_SEC"),
        description="Seconds that a worker asked to stop (SIGTERM) lets running shards go on before it hands them back",
    )
    cancel_grace_sec: float = Field(
        default=10.0,
        ge=0,
        validation_alias=_named("MLOC_CANCEL_GRACE_SEC"),
        description="Seconds between SIGTERM and SIGKILL for the processes of a shard that was cancelled or timed out",
    )
    retention_days: float = Field(
        default=30.0,
        gt=0,
        validation_alias=_named("MLOC_RETENTION_DAYS"),
        description="Days after its last change that a run stays in the ledger",
    )
    events_per_run: int = Field(
        default=10_000,
        gt=0,
        validation_alias=_named("MLOC_EVENTS_PER_RUN"),
        description="Events kept per run; older ones are dropped",
    )
    max_shards: int = Field(
        default=100_000,
        gt=0,
        validation_alias=_named("MLOC_MAX_SHARDS"),
        description="Most shards that one stage may be split into",
    )
    allow_unfit: bool = Field(
        default=False,
        validation_alias=_named("MLOC_ALLOW_UNFIT"),
        description="1: run stages also where the hardware falls short of what they ask for",
    )
    host_idle_sec: float = Field(
        default=600.0,
        gt=0,
        validation_alias=_named("MLOC_HOST_IDLE_SEC"),
        description="Seconds after which an executor's process that has nothing to do is ended, and its model freed",
    )
    cpu_hosts: int = Field(
        default=1,
        gt=0,
        validation_alias=_named("MLOC_CPU_HOSTS"),
        description="Executor processes without a GPU that one pool child holds at once, each with its model",
    )
    warm_wait_sec: float = Field(
        default=1.0,
        ge=0,
        validation_alias=_named("MLOC_WARM_WAIT_SEC"),
        description="Seconds at most that a shard is left to workers which hold its model already; 0: not at all",
    )
    save_rows_sec: float = Field(
        default=10.0,
        gt=0,
        validation_alias=_named("MLOC_SAVE_ROWS_SEC"),
        description="Seconds between two uploads of a running shard's finished rows, which its next attempt skips",
    )
    cache_dir: Path = Field(
        default=Path("~/.cache/mloc"),
        validation_alias=_named("MLOC_CACHE_DIR"),
        description="Converted models",
    )
    model_cache_gib: float = Field(
        default=200.0,
        gt=0,
        validation_alias=_named("MLOC_MODEL_CACHE_GIB"),
        description="GiB that downloaded models may take in MLOC_CACHE_DIR; the least recently used go first",
    )
    scratch_dir: Path | None = Field(
        default=None,
        validation_alias=_named("MLOC_SCRATCH_DIR"),
        description="Where attempts write first; default: beside a local store, else the temporary folder",
    )
    env_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validation_alias=_named("MLOC_ENV_ALLOW"),
        description="Comma-separated names that a spec may use as ${env.NAME}",
    )

    @field_validator("output_roots", "task_topics", "worker_tags", "env_allow", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, value: str) -> str:
        parse_redis_url(value)
        return value

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: str) -> str:
        if any(urlsplit(each).scheme not in {"amqp", "amqps"} for each in value.split(";") if value):
            raise ValueError("not RabbitMQ; write amqp://user:password@host:5672/vhost, or set REDIS_URL alone")
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("not a log level; use DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()

    @model_validator(mode="after")
    def _heartbeats_overlap(self) -> Settings:
        if self.heartbeat_ttl_sec <= self.heartbeat_interval_sec:
            raise ValueError(
                f"HEARTBEAT_TTL_SEC={self.heartbeat_ttl_sec:g} must be above "
                f"HEARTBEAT_INTERVAL_SEC={self.heartbeat_interval_sec:g}, or live workers look gone between two beats"
            )
        return self

    @property
    def queues_from_topics(self) -> tuple[str, ...]:
        """TASK_TOPICS as queue names: `tasks.inference,tasks.ppo` gives `("inference", "ppo")`."""
        return tuple(topic.removeprefix("tasks.") for topic in self.task_topics)

    @property
    def amqp(self) -> bool:
        """Whether RabbitMQ is the broker."""
        return bool(self.broker_url)

    @property
    def redis(self) -> RedisUrl:
        """`redis_url` as each of its users spells it."""
        return parse_redis_url(self.redis_url)

    @property
    def celery_url(self) -> str:
        """`redis_url` as Celery spells it: a Unix socket is `redis+socket://` there."""
        return self.redis.celery

    @property
    def store_url(self) -> str:
        """Root of the artifact store."""
        return self.artifacts_url or str(self.results_dir.expanduser().absolute())

    @property
    def shown_redis_url(self) -> str:
        """`redis_url` without its password, for messages."""
        return without_password(self.redis_url)

    def worker_name(self, nodename: str = "") -> str:
        """This worker's id: WORKER_ID, else Celery's node name, else host and process id."""
        return self.worker_id or nodename or f"{socket.gethostname()}-{os.getpid()}"


def _problem(item: Mapping[str, Any]) -> str:
    """One of pydantic's errors, without the passwords of what was said."""
    if not item["loc"]:
        return str(item["msg"])
    return f"{'.'.join(map(str, item['loc']))}={without_password(repr(item['input']))}: {item['msg']}"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once. Raises `ConfigError` that names each bad variable."""
    from pydantic import ValidationError

    try:
        return Settings()
    except ValidationError as error:
        lines = [_problem(item) for item in error.errors()]
        raise ConfigError(
            "environment: " + "; ".join(lines), hint="`mloc doctor --settings` lists every variable and its meaning"
        ) from error


def reset_settings() -> None:
    """Forget the settings read so far, after the environment was changed on purpose (embedded mode, tests)."""
    get_settings.cache_clear()
