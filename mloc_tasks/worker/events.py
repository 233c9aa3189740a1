"""Events for Flower, sent a few at a time."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

SEND_INTERVAL_SEC = 0.1


class EventBatches(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Sends the task events of a tenth of a second, or as many as the dispatcher buffers, in one message.

    Celery sends what there is at each turn of its loop: with short shards a message for every event, which took a third
    of the main process's time.
    """

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        dispatcher = consumer.event_dispatcher
        if consumer.hub is None or dispatcher is None:
            return
        self._timer = None
        flush = consumer._flush_events

        def send() -> None:
            self._timer = None
            flush()

        def soon() -> None:
            if self._timer is None:
                self._timer = consumer.timer.call_after(SEND_INTERVAL_SEC, send)

        dispatcher.on_send_buffered = soon

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
