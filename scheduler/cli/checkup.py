"""The examinations of `mloc doctor`: each looks at one thing and says what it found."""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

from mloc_tasks.errors import ConfigError, MlocError

if TYPE_CHECKING:
    from mloc_tasks.settings import Settings

LEAST_FREE_BYTES = 2 * 2**30
PROBE_BYTES = b"written by mloc doctor\n"
# Package -> what needs it, and the extra that brings it.
PACKAGES = {
    "torch": ("inference and training", "inference"),
    "transformers": ("inference and training", "inference"),
    "accelerate": ("models over several devices", "inference"),
    "gguf": ("models in GGUF files", "inference"),
    "datasets": ("data.type dataset", "data"),
    "pyarrow": ("Parquet files", "data"),
    "trl": ("training", "ppo"),
    "peft": ("LoRA", "ppo"),
    "vllm": ("inference by vLLM", ""),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What an examination found. A "problem" must be repaired, a "note" is good to know."""

    what: str
    state: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Everything, one after the other; an examination that fails is itself a finding."""
    yield _installation()
    try:
        from mloc_tasks.settings import get_settings

        settings = get_settings()
    except ConfigError as error:
        yield Finding(what="settings", state="problem", found=str(error), advice=error.hint)
        return
    examinations: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
        ("queues file", _queues_file),
        ("broker", _broker),
        ("artifact store", _store),
        ("embedded broker", _embedded_broker),
        ("hardware", _hardware),
    )
    for what, examination in examinations:
        try:
            yield from examination(settings)
        except MlocError as error:
            yield Finding(what=what, state="problem", found=str(error), advice=error.hint)
    yield from _packages()
    yield from _interpreters()


def _installation() -> Finding:
    from mloc_tasks import __version__

    found = f"{__version__} on Python {platform.python_version()}, celery {version('celery')}"
    return Finding(what="mloc", state="ok", found=found)


def _queues_file(settings: Settings) -> Iterator[Finding]:
    from mloc_tasks.queues import default_queues_file, load_queues

    declared = load_queues(settings.queues_file)
    file = settings.queues_file or default_queues_file()
    names = ", ".join(queue.name for queue in declared)
    yield Finding(what="queues file", state="ok", found=f"{file}: {names}")


def _broker(settings: Settings) -> Iterator[Finding]:
    from mloc_tasks.ledger import Ledger
    from mloc_tasks.worker.registry import live_workers

    ledger = Ledger.connect(settings)
    ledger.ping()
    server = ledger.client.info()
    name = "Valkey" if server.get("server_name") == "valkey" else "Redis"
    number = server.get("valkey_version") or server.get("redis_version", "?")
    yield Finding(what="broker", state="ok", found=f"{name} {number} at {settings.shown_redis_url}")
    policy = server.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and server.get("maxmemory", 0):
        yield Finding(
            what="broker",
            state="problem",
            found=f"maxmemory-policy is {policy}: under memory pressure it drops keys, and with them runs",
            advice="set `maxmemory-policy noeviction`",
        )
    if not server.get("aof_enabled"):
        yield Finding(
            what="broker",
            state="note",
            found="appendonly is off: a restart of the server forgets runs",
            advice="set `appendonly yes` where runs must survive it",
        )
    yield _workers(len(live_workers(ledger.client, ledger.keys)))


def _workers(count: int) -> Finding:
    if not count:
        return Finding(what="workers", state="note", found="none lives", advice="start one: mloc worker")
    return Finding(what="workers", state="ok", found=f"{count} live; `mloc workers` lists them")


def _store(settings: Settings) -> Iterator[Finding]:
    from mloc_tasks.workplace import store_of

    store = store_of(settings)
    name = f"doctor-{uuid.uuid4()}"
    store.put_bytes(PROBE_BYTES, name)
    try:
        back = store.read_bytes(name)
    finally:
        store.delete(name)
    if back != PROBE_BYTES:
        yield Finding(what="artifact store", state="problem", found=f"{store.url} gives back other bytes than it took")
        return
    yield Finding(what="artifact store", state="ok", found=f"{store.url} is writable")
    if not settings.artifacts_url and os.path.isdir(settings.store_url):
        yield from _free_space(settings.store_url)


def _free_space(folder: str) -> Iterator[Finding]:
    from mloc_tasks.artifacts.disk import shown_bytes

    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        yield Finding(
            what="artifact store",
            state="note",
            found=f"only {shown_bytes(free)} are free in {folder}",
            advice="free space there, or set RESULTS_DIR to a larger disk",
        )


def _embedded_broker(settings: Settings) -> Iterator[Finding]:
    from scheduler.embedded import server_binary

    try:
        yield Finding(what="embedded broker", state="ok", found=f"{server_binary()}, for `mloc run`")
    except ConfigError as error:
        yield Finding(what="embedded broker", state="note", found=str(error), advice=error.hint)


def _hardware(settings: Settings) -> Iterator[Finding]:
    from mloc_tasks.capabilities import GIB
    from mloc_tasks.worker.hardware import machine_capabilities

    machine = machine_capabilities(settings.worker_tags)
    memory = f", {machine.memory / GIB:.3g}Gi of memory" if machine.memory else ""
    yield Finding(what="processors", state="ok", found=f"{machine.cpu or 0:g} CPUs{memory}")
    if machine.gpus is not None:
        yield Finding(what="GPU", state="ok", found=str(machine.gpus))
    else:
        yield Finding(
            what="GPU",
            state="note",
            found="none that NVML sees; stages that ask for one wait for another worker",
            advice="where there should be one: is `nvidia-smi` well, and does the container have --gpus all?",
        )


def _packages() -> Iterator[Finding]:
    for package, (purpose, extra) in PACKAGES.items():
        try:
            yield Finding(what=package, state="ok", found=f"{version(package)}, for {purpose}")
        except PackageNotFoundError:
            install = f"pip install 'mloc[{extra}]'" if extra else f"pip install {package}"
            yield Finding(what=package, state="note", found=f"is not installed; {purpose} needs it", advice=install)


def _interpreters() -> Iterator[Finding]:
    """Under which Python each family of executors runs, and whether that one can."""
    from scheduler.cli.interpreters import families

    for family in families():
        missing = (f"without {family.missing}",) if family.missing else ()
        found = f"{family.python}: {'; '.join([', '.join((*family.versions, *missing)), *family.errors]).lstrip('; ')}"
        state: Literal["ok", "note", "problem"] = "problem" if family.errors else "note" if missing else "ok"
        yield Finding(what=f"executor {family.name}", state=state, found=found.rstrip(": "), advice=family.advice)
