"""`mloc worker`: `celery -A mloc_tasks worker` on the queues that suit this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from mloc_tasks.errors import ConfigError

if TYPE_CHECKING:
    from mloc_tasks.settings import Settings

# Celery's options that this wrapper looks at: short and long name.
QUEUES = ("-Q", "--queues")
POOL = ("-P", "--pool")
LOG_LEVEL = ("-l", "--loglevel")


def worker(ctx: typer.Context) -> None:
    """Start a worker on the queues that suit this machine.

    Every option of `celery worker` is passed on: -Q, -c, -P, -n, -l, ...
    Without -Q it serves the queues that TASK_TOPICS names, else every declared queue that this machine satisfies.

    Examples:

        mloc worker

        mloc worker -Q ppo,sft -c 1

        mloc worker -P threads -c 8 -n fast@%h
    """
    from mloc_tasks.settings import get_settings

    arguments = list(ctx.args)
    settings = get_settings()
    _refuse_solo(arguments)
    if option_value(arguments, QUEUES) is None and not settings.task_topics:
        arguments += ["-Q", ",".join(_suitable_queues(settings))]
    if option_value(arguments, LOG_LEVEL) is None:
        arguments += ["-l", settings.log_level]
    command = [sys.executable, "-m", "celery", "-A", "mloc_tasks", "worker", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def option_value(arguments: Sequence[str], names: tuple[str, str]) -> str | None:
    """An option's value as celery would read it: `-Q a`, `-Qa`, `--queues a`, `--queues=a`; None where it is absent."""
    short, long = names
    for position, argument in enumerate(arguments):
        if argument in names:
            return arguments[position + 1] if position + 1 < len(arguments) else ""
        if argument.startswith(f"{long}="):
            return argument.removeprefix(f"{long}=")
        if argument.startswith(short) and not argument.startswith("--"):
            return argument.removeprefix(short)
    return None


def _refuse_solo(arguments: Sequence[str]) -> None:
    if option_value(arguments, POOL) == "solo":
        raise ConfigError(
            "the solo pool runs a stage in the worker's own loop, so that nothing keeps its message from being "
            "delivered again to another worker while it runs",
            hint="use -P prefork (the default) or -P threads; `-c 1` runs one shard at a time",
        )


def _suitable_queues(settings: Settings) -> list[str]:
    """The declared queues that this machine satisfies; says on stderr which, and why not the others."""
    from mloc_tasks.queues import load_queues
    from mloc_tasks.worker.hardware import machine_capabilities
    from mloc_tasks.worker.registration import queue_shortfalls
    from scheduler.cli.fleet import offers_words

    machine = machine_capabilities(settings.worker_tags)
    lacking: dict[str, Any] = {
        queue.name: queue_shortfalls(queue, machine) for queue in load_queues(settings.queues_file)
    }
    served = [name for name, reasons in lacking.items() if not reasons]
    typer.echo(f"This machine: {offers_words(machine)}", err=True)
    for name, reasons in lacking.items():
        typer.echo(f"  {name}: {'not served: ' + '; '.join(reasons) if reasons else 'served'}", err=True)
    if not served:
        raise ConfigError(
            "this machine satisfies none of the declared queues",
            hint="name queues with -Q, or declare one for such machines in the queues file (MLOC_QUEUES_FILE)",
        )
    return served
