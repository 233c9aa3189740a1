"""How the end of a shard is shown in Flower: a failure on record is a failed task, though the canvas goes on."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

FAILED_RESULT = "{'failed': "


class RunRequest(Request):  # type: ignore[misc]  # celery ships no types
    """A request whose `task-succeeded` event becomes `task-failed` when the task returned `{"failed": why}`.

    A failed stage must not end the canvas: what follows it decides in the ledger whether it is skipped.
    """

    def send_event(self, type: str, **fields: Any) -> None:
        result = fields.get("result")
        if type == "task-succeeded" and isinstance(result, str) and result.startswith(FAILED_RESULT):
            why = result.removeprefix(FAILED_RESULT).removesuffix("}").strip("'\"")
            super().send_event("task-failed", exception=why, traceback="")
        else:
            super().send_event(type, **fields)
