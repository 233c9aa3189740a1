"""`mloc queues` and `mloc workers`: who takes what, and who is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from scheduler.cli.options import AsJson

if TYPE_CHECKING:
    from mloc_tasks.capabilities import Capabilities
    from mloc_tasks.queues import Queue
    from mloc_tasks.worker.registry import WorkerInfo
    from scheduler.routing import Load


def queues(as_json: AsJson = False) -> None:
    """List the declared queues, with live workers and backlog.

    The queues are declared in configs/queues.yaml, or in the file that MLOC_QUEUES_FILE names.

    Examples:

        mloc queues

        mloc queues --json | jq '.queues[] | select(.consumers == 0) | .name'
    """
    from mloc_tasks.queues import load_queues
    from mloc_tasks.settings import get_settings
    from scheduler.cli.terminal import print_json

    declared = load_queues(get_settings().queues_file)
    load = _load(tuple(queue.name for queue in declared))
    if as_json:
        print_json({"queues": [_queue_document(queue, load) for queue in declared]})
    else:
        _print_queues(declared, load)


def workers(as_json: AsJson = False) -> None:
    """List the live workers: their queues, hardware and age.

    Examples:

        mloc workers

        mloc workers --json | jq -r '.workers[].id'
    """
    from mloc_tasks.ledger import Ledger
    from mloc_tasks.worker.registry import live_workers
    from scheduler.cli.terminal import print_json

    ledger = Ledger.connect()
    ledger.ping()
    found = live_workers(ledger.client, ledger.keys)
    if as_json:
        print_json({"workers": [asdict(worker) for worker in found]})
    else:
        _print_workers(found)


def _load(names: tuple[str, ...]) -> Load | None:
    """The queues' live state; None, with a warning, where the broker does not answer."""
    from mloc_tasks.errors import BrokerError
    from mloc_tasks.ledger import Ledger
    from scheduler.cli.boundary import show_warning
    from scheduler.submit import current_load

    try:
        return current_load(Ledger.connect(), names)
    except BrokerError as error:
        show_warning(f"workers and backlog are unknown: {error}")
        return None


def _queue_document(queue: Queue, load: Load | None) -> dict[str, Any]:
    offers = queue.offers
    return {
        "name": queue.name,
        "description": queue.description,
        "task_types": sorted(offers.task_types),
        "offers": {
            "cpu": offers.cpu,
            "memory": offers.memory,
            "gpu": None if offers.gpus is None else asdict(offers.gpus),
            "tags": sorted(offers.tags),
        },
        "priority": queue.priority,
        "consumers": None if load is None else load.consumers.get(queue.name, 0),
        "backlog": None if load is None else load.backlog.get(queue.name, 0),
    }


def _print_queues(declared: tuple[Queue, ...], load: Load | None) -> None:
    from rich.text import Text

    from scheduler.cli.tables import table
    from scheduler.cli.terminal import output

    grid = table("queue", "takes", "offers", "slots", "backlog")
    for queue in declared:
        slots = None if load is None else load.consumers.get(queue.name, 0)
        grid.add_row(
            queue.name,
            "every task type" if queue.offers.takes_every_task_type else ", ".join(sorted(queue.offers.task_types)),
            offers_words(queue.offers),
            Text("?" if slots is None else str(slots), style="green" if slots else "dim"),
            "?" if load is None else str(load.backlog.get(queue.name, 0)),
        )
    console = output()
    console.print(grid)
    console.print(
        "\nSLOTS: shards that can run at once on the live workers. Add some: mloc worker -Q QUEUE", style="dim"
    )


def offers_words(offers: Capabilities) -> str:
    """What a queue promises, or a machine has."""
    from mloc_tasks.capabilities import GIB

    words = [str(offers.gpus)] if offers.gpus is not None else []
    words += [f"{offers.cpu:g} CPUs"] if offers.cpu is not None else []
    words += [f"{offers.memory / GIB:.3g}Gi of memory"] if offers.memory is not None else []
    words += [f"tags {', '.join(sorted(offers.tags))}"] if offers.tags else []
    return ", ".join(words) or "no GPU"


def _print_workers(found: list[WorkerInfo]) -> None:
    from mloc_tasks.capabilities import GIB
    from scheduler.cli.tables import table
    from scheduler.cli.terminal import notices, output
    from scheduler.cli.wording import duration, elapsed

    if not found:
        notices().print("no worker lives; start one: mloc worker")
        return
    grid = table("worker", "queues", "slots", "busy", "models", "cpus", "memory", "gpus", "tags", "up", "seen")
    for worker in found:
        grid.add_row(
            worker.id,
            ", ".join(worker.queues),
            f"{worker.concurrency} ({worker.pool})",
            str(len(worker.shards)),
            ", ".join(worker.models) or "-",
            "-" if worker.cpu is None else f"{worker.cpu:g}",
            "-" if worker.memory is None else f"{worker.memory / GIB:.3g}Gi",
            worker.gpus or "-",
            ", ".join(worker.tags) or "-",
            duration(elapsed(worker.started, None)),
            f"{duration(elapsed(worker.last_seen, None))} ago",
        )
    output().print(grid)
