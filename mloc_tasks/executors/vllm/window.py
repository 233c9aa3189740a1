"""Many requests under way at once, a bounded number of them, and their results in the order of the inputs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from mloc_tasks.errors import ExecutionError

In = TypeVar("In")
Out = TypeVar("Out")

CANCEL_POLL_SEC = 0.1
HELD_PER_FLIGHT = 4  # results that may wait for a slower one before them, for each request under way


@dataclass(frozen=True, slots=True)
class Ready(Generic[Out]):
    """An input whose result is there already, with nothing to ask."""

    result: Out


class Window(Generic[In, Out]):
    """Runs a coroutine for each input on an event loop of another thread; use one object for one pass.

    Args:
        loop: runs in another thread.
        ask: what is done for an input; what it raises ends the pass.
        in_flight: inputs under way at once.
        cancelled: when it is set, the pass ends with an ExecutionError, and what is under way is cancelled.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[In], Coroutine[Any, Any, Out]],
        *,
        in_flight: int,
        cancelled: threading.Event,
    ) -> None:
        self._loop = loop
        self._ask = ask
        self._most_in_flight = in_flight
        self._cancelled = cancelled
        self._tasks: set[asyncio.Task[Out]] = set()  # touched in the loop's thread only
        self._arrivals: SimpleQueue[tuple[int, Out | BaseException]] = SimpleQueue()
        self._results: dict[int, Out] = {}
        self._in_flight = 0

    def results(self, inputs: Iterable[In | Ready[Out]]) -> Iterator[list[Out]]:
        """The inputs' results, in lists as they become complete up to there; `inputs` is read as room comes up.

        Ending early, by an error or by closing the iterator, cancels what is under way.
        """
        taken = given = 0
        open_inputs = True
        iterator = iter(inputs)
        try:
            while open_inputs or given < taken:
                while open_inputs and self._has_room(taken - given):
                    try:
                        each = next(iterator)
                    except StopIteration:
                        open_inputs = False
                    else:
                        self._start(taken, each)
                        taken += 1
                        self._collect(block=False)
                if given in self._results:
                    block = []
                    while given in self._results:
                        block.append(self._results.pop(given))
                        given += 1
                    yield block
                elif self._in_flight:
                    self._collect(block=True)
        finally:
            if self._in_flight:
                self._loop.call_soon_threadsafe(self._cancel_all)

    @property
    def waiting(self) -> int:
        """Results that wait for one before them."""
        return len(self._results)

    def _has_room(self, outstanding: int) -> bool:
        return self._in_flight < self._most_in_flight and outstanding < HELD_PER_FLIGHT * self._most_in_flight

    def _start(self, place: int, each: In | Ready[Out]) -> None:
        if isinstance(each, Ready):
            self._results[place] = each.result
        else:
            self._in_flight += 1
            self._loop.call_soon_threadsafe(self._spawn, place, each)

    def _collect(self, *, block: bool) -> None:
        """Take what has arrived; with `block`, wait until something has, or the pass is cancelled."""
        while True:
            if self._cancelled.is_set():
                raise ExecutionError("the attempt was cancelled")
            try:
                place, outcome = self._arrivals.get(block, CANCEL_POLL_SEC)
            except Empty:
                if not block:
                    return
                continue
            self._in_flight -= 1
            if isinstance(outcome, BaseException):
                raise outcome
            self._results[place] = outcome
            block = False

    def _spawn(self, place: int, each: In) -> None:
        task = self._loop.create_task(self._ask(each))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._arrived(place, done))

    def _arrived(self, place: int, task: asyncio.Task[Out]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._arrivals.put((place, ExecutionError("the request was cancelled")))
        else:
            self._arrivals.put((place, task.exception() or task.result()))

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()
