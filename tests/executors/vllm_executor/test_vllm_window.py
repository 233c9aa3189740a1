"""Requests under way at once on a real event loop in another thread; what is asked waits for the test to answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.vllm.window import HELD_PER_FLIGHT, Ready, Window

Question = int
WAIT_SEC = 30.0


class Oracle:
    """Answers a question once the test allows it, and remembers which were asked and which were cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.asked: list[Question] = []
        self.cancelled: list[Question] = []
        self.all_cancelled = threading.Event()
        self._more_asked = threading.Condition()
        self._gates: dict[Question, asyncio.Event] = {}
        self._open: set[Question] = set()

    async def ask(self, question: Question) -> str:
        with self._more_asked:
            self.asked.append(question)
            self._more_asked.notify_all()
        gate = self._gates.setdefault(question, asyncio.Event())
        if question in self._open:
            gate.set()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(question)
            self.all_cancelled.set()
            raise
        if question < 0:
            raise ValueError(f"nobody knows {question}")
        return f"answer {question}"

    def wait_until_asked(self, *questions: Question) -> None:
        """What is cancelled before that has not begun, and cannot tell."""
        with self._more_asked:
            assert self._more_asked.wait_for(lambda: set(questions) <= set(self.asked), WAIT_SEC)

    def allow(self, *questions: Question) -> None:
        """Before or after they were asked."""

        async def opened() -> None:
            self._open.update(questions)
            for each in questions:
                if each in self._gates:
                    self._gates[each].set()

        asyncio.run_coroutine_threadsafe(opened(), self.loop).result()


async def end_all() -> None:
    """Cancel what is left, and see it end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield Oracle(loop)
    asyncio.run_coroutine_threadsafe(end_all(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def window(oracle: Oracle, *, in_flight: int, cancelled: threading.Event | None = None) -> Window[Question, str]:
    return Window(oracle.loop, oracle.ask, in_flight=in_flight, cancelled=cancelled or threading.Event())


def flat(blocks: Iterator[list[str]]) -> list[str]:
    return [each for block in blocks for each in block]


def test_results_stand_in_the_order_of_the_inputs(oracle: Oracle) -> None:
    oracle.allow(1, 2, 3, 4)
    inputs = [1, Ready("known"), 2, 3, Ready("known, too"), 4]
    results = flat(window(oracle, in_flight=2).results(inputs))
    assert results == ["answer 1", "known", "answer 2", "answer 3", "known, too", "answer 4"]


def test_no_inputs_give_no_results(oracle: Oracle) -> None:
    assert flat(window(oracle, in_flight=2).results([])) == []


def test_inputs_are_read_as_room_comes_up(oracle: Oracle) -> None:
    read: list[int] = []

    def inputs() -> Iterator[int]:
        for each in range(100):
            read.append(each)
            yield each

    oracle.allow(0)
    results = window(oracle, in_flight=3).results(inputs())
    assert next(results) == ["answer 0"]
    assert len(read) <= 4, "three under way, and one in the place of the answered one"
    results.close()


def test_a_slow_first_one_holds_back_neither_work_nor_memory_without_bound(oracle: Oracle) -> None:
    oracle.allow(*range(1, 100))
    done: list[str] = []
    one = window(oracle, in_flight=2)
    reader = threading.Thread(target=lambda: done.extend(flat(one.results(range(40)))))
    reader.start()
    most = 2 * HELD_PER_FLIGHT
    while one.waiting < most - 1:
        assert reader.is_alive()
    assert oracle.asked == list(range(most))
    oracle.allow(0)
    reader.join()
    assert done == [f"answer {each}" for each in range(40)]


def test_an_error_ends_the_pass_and_cancels_what_is_under_way(oracle: Oracle) -> None:
    oracle.allow(-1)
    with pytest.raises(ValueError, match="nobody knows -1"):
        flat(window(oracle, in_flight=4).results([1, -1, 2]))
    assert oracle.all_cancelled.wait(WAIT_SEC)
    oracle.allow()  # a turn of the loop, in which all of them see it
    assert set(oracle.cancelled) == set(oracle.asked) - {-1}


def test_a_cancelled_attempt_ends_though_nothing_is_answered(oracle: Oracle) -> None:
    cancelled = threading.Event()

    def cancel() -> None:
        oracle.wait_until_asked(1, 2)
        cancelled.set()

    threading.Thread(target=cancel).start()
    with pytest.raises(ExecutionError, match="cancelled"):
        flat(window(oracle, in_flight=2, cancelled=cancelled).results([1, 2, 3]))
    assert oracle.all_cancelled.wait(WAIT_SEC)


def test_leaving_early_cancels_what_is_under_way(oracle: Oracle) -> None:
    oracle.allow(1)
    results = window(oracle, in_flight=2).results([1, 2, 3])
    assert next(results) == ["answer 1"]
    oracle.wait_until_asked(2, 3)
    results.close()
    assert oracle.all_cancelled.wait(WAIT_SEC)


def test_two_passes_share_a_loop(oracle: Oracle) -> None:
    first = window(oracle, in_flight=2).results([1, 2])
    oracle.allow(1, 2, 11, 12)
    assert flat(window(oracle, in_flight=2).results([11, 12])) == ["answer 11", "answer 12"]
    assert flat(first) == ["answer 1", "answer 2"]
