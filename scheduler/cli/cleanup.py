"""`mloc cleanup`: what vanished workers left behind."""

from __future__ import annotations

import typer

from scheduler.cli.options import AsJson


def cleanup(as_json: AsJson = False) -> None:
    """Forget workers whose signs of life have stopped.

    An entry expires by itself HEARTBEAT_TTL_SEC after the last one; this removes what is left of it in the index.

    Examples:

        mloc cleanup
    """
    from mloc_tasks.ledger import Ledger
    from mloc_tasks.worker.registry import clean_up
    from scheduler.cli.terminal import print_json

    ledger = Ledger.connect()
    ledger.ping()
    gone = clean_up(ledger.client, ledger.keys)
    if as_json:
        print_json({"removed": gone})
    else:
        typer.echo(f"forgot {', '.join(gone)}" if gone else "every worker in the list lives")
