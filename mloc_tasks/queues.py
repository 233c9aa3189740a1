"""The declared queues: `configs/queues.yaml`, read into typed values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mloc_tasks.capabilities import EVERY_TASK_TYPE, Capabilities, Gpus
from mloc_tasks.errors import ConfigError

PACKAGED = Path(__file__).parent / "configs" / "queues.yaml"  # in an installed wheel
CHECKOUT = Path(__file__).parents[1] / "configs" / "queues.yaml"  # in a checkout
DEFAULT_PRIORITY = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """A Celery queue and what a worker that serves it has. A higher `priority` wins among equally tight queues."""

    name: str
    offers: Capabilities
    description: str = ""
    priority: int = DEFAULT_PRIORITY


def default_queues_file() -> Path:
    """The queues file that ships with this installation."""
    return PACKAGED if PACKAGED.exists() else CHECKOUT


@lru_cache(maxsize=4)
def load_queues(path: Path | None = None) -> tuple[Queue, ...]:
    """The queues of a file (default: the shipped one), in its order. Raises `ConfigError` naming file and key."""
    import yaml

    file = path or default_queues_file()
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror}", hint="set MLOC_QUEUES_FILE to a queues file"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("queues"), dict) or not document["queues"]:
        raise ConfigError(f"{file}: needs a mapping `queues:` with at least one queue")
    return tuple(
        _parse_queue(str(name), body or {}, f"{file}: queues.{name}") for name, body in document["queues"].items()
    )


def _parse_queue(name: str, body: Any, where: str) -> Queue:
    _check_keys(body, {"description", "taskTypes", "offers", "priority"}, where)
    offers = body.get("offers") or {}
    _check_keys(offers, {"cpu", "memory", "gpu", "tags"}, f"{where}.offers")
    task_types = body.get("taskTypes", [EVERY_TASK_TYPE])
    if not isinstance(task_types, list) or not all(isinstance(item, str) for item in task_types):
        raise ConfigError(f"{where}.taskTypes: must be a list of task types, or ['*'] for all")
    priority = body.get("priority", DEFAULT_PRIORITY)
    if not isinstance(priority, int):
        raise ConfigError(f"{where}.priority: {priority!r} is not a whole number")
    capabilities = Capabilities(
        task_types=frozenset(task_types),
        cpu=_number(offers.get("cpu"), f"{where}.offers.cpu"),
        memory=_bytes(offers.get("memory"), f"{where}.offers.memory"),
        gpus=_parse_gpus(offers.get("gpu"), f"{where}.offers.gpu"),
        tags=frozenset(map(str, offers.get("tags") or ())),
    )
    return Queue(name=name, offers=capabilities, description=str(body.get("description", "")), priority=priority)


def _parse_gpus(body: Any, where: str) -> Gpus | None:
    if body is None:
        return None
    _check_keys(body, {"type", "count", "memory"}, where)
    count = body.get("count", 1)
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"{where}.count: {count!r} is not a positive whole number")
    return Gpus(
        type=str(body.get("type", "any")).lower(), count=count, memory=_bytes(body.get("memory"), f"{where}.memory")
    )


def _check_keys(body: Any, known: set[str], where: str) -> None:
    if not isinstance(body, dict):
        raise ConfigError(f"{where}: must be a mapping with keys out of {', '.join(sorted(known))}")
    unknown = set(body) - known
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {', '.join(sorted(map(str, unknown)))}; known: {', '.join(sorted(known))}"
        )


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: {value!r} is not a number") from None


def _bytes(value: Any, where: str) -> int | None:
    from mloc_tasks.spec.quantities import parse_bytes

    if value is None:
        return None
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
