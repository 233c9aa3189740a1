"""The hosts that a worker process has: reused, evicted when another needs their devices, ended when idle."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mloc_tasks.cpus import usable_cpus
from mloc_tasks.errors import UnfitWorkerError
from mloc_tasks.executors.base import Executor
from mloc_tasks.host.devices import Devices, cpu_share, host_environment
from mloc_tasks.host.environment import environment
from mloc_tasks.host.interpreters import interpreter
from mloc_tasks.host.process import LOOK_SEC, HostProcess

logger = logging.getLogger("mloc.host")

REAP_SEC = 1.0


@dataclass(frozen=True, slots=True)
class HostKey:
    """What two attempts must agree on to use one host."""

    target: str
    python: str
    key: str
    gpus: int

    @classmethod
    def of(cls, executor: type[Executor], document: Mapping[str, Any], *, gpus: int) -> HostKey:
        """The key of a stage's executor; `gpus` is how many GPUs the stage asks for."""
        target = f"{executor.__module__}:{executor.__qualname__}"
        return cls(target=target, python=interpreter(executor), key=executor.host_key(document), gpus=gpus)


@dataclass(eq=False, slots=True)
class Held:
    """A host in the pool; `place` is its number among those without a GPU, and None of one with GPUs."""

    key: HostKey
    process: HostProcess
    room: int
    gpus: tuple[str, ...]
    place: int | None
    busy: int = 0
    used: float = field(default_factory=time.monotonic)

    @property
    def has_room(self) -> bool:
        if self.process.ending:
            return False
        at_once = self.process.rows_at_once
        if at_once == 0:  # not known yet: the first task loads the engine
            return self.busy == 0
        return self.busy < self.room and (at_once is None or self.process.rows_left < 2 * at_once)


@dataclass(eq=False, slots=True)
class Ticket:
    """An attempt that waits for a host, in the order of coming; `alone`: for one that serves no other meanwhile."""

    key: HostKey
    alone: bool = False


class HostPool:
    """The hosts of one process.

    A host holds the GPUs it was started with, or a place among those that need none. Whoever comes waits in one of two
    lines, for GPUs or for such a place: one whose model is loaded may pass only while nobody before it in its line
    waits for another model, or for a host of its own.

    Args:
        devices: what this process may give to hosts.
        idle_sec: an idle host is ended after so long.
        cpu_hosts: how many hosts without a GPU are held at once; each has its part of the CPUs.
        on_change: called after a host has gone.
    """

    def __init__(
        self,
        devices: Devices,
        *,
        idle_sec: float,
        cpu_hosts: int = 1,
        grace_sec: float = 10.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._devices = devices
        self._idle_sec = idle_sec
        self._cpu_hosts = cpu_hosts
        self._grace_sec = grace_sec
        self._on_change = on_change
        self._changed = threading.Condition()
        self._held: list[Held] = []
        self._line: list[Ticket] = []
        self._reaper: threading.Thread | None = None
        self._closed = threading.Event()

    @contextmanager
    def host(
        self, executor: type[Executor], key: HostKey, *, room: int, alone: bool = False, look: Callable[[], None]
    ) -> Iterator[Held]:
        """A host for one attempt, loaded or new; `look` may raise while the attempt waits for it.

        `alone`: it serves no other attempt meanwhile.

        Raises `UnfitWorkerError` when this process will never have as many GPUs.
        """
        own = len(self._devices.gpus)
        if self._needs_gpus(key) and key.gpus > own:
            raise UnfitWorkerError(
                f"the stage needs {key.gpus} GPUs, and each process of this worker's pool has {own}",
                hint="start the worker with a smaller -c, or with -P threads",
            )
        held = self._wait(executor, Ticket(key, alone), room, look)
        try:
            yield held
        finally:
            self._give_back(held, places=room if alone else 1, keep=executor.reusable)

    def live(self) -> list[Held]:
        """The hosts there are."""
        with self._changed:
            return [held for held in self._held if not held.process.gone.is_set()]

    @property
    def has_line(self) -> bool:
        """Whether an attempt waits for a host."""
        return bool(self._line)

    def close(self) -> None:
        """End all hosts at once, and for good."""
        self._closed.set()
        with self._changed:
            held, self._held = self._held, []
        for each in held:
            each.process.kill()

    def _wait(self, executor: type[Executor], ticket: Ticket, room: int, look: Callable[[], None]) -> Held:
        places, gone = room if ticket.alone else 1, False
        with self._changed:
            self._line.append(ticket)
        try:
            while True:
                look()
                with self._changed:
                    gone |= self._forget_gone()
                    if (held := self._loaded(ticket)) is not None:
                        held.busy += places
                        return held
                    victims = self._victims(ticket)
                    if victims is None:
                        self._changed.wait(LOOK_SEC)
                        continue
                    if not victims:
                        return self._start(executor, ticket.key, room, places)
                    for victim in victims:
                        victim.busy = victim.room  # nobody takes it any more
                for victim in victims:
                    logger.info("host %d is ended: its devices are needed", victim.process.pid)
                    victim.process.retire(grace_sec=self._grace_sec)
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()
            if gone:
                self._tell_change()

    def _loaded(self, ticket: Ticket) -> Held | None:
        """The least busy host with the ticket's key and room, unless somebody before it waits for another one, or
        for one alone."""
        line = self._line_of(ticket)
        if any(other.key != ticket.key or other.alone for other in line[: line.index(ticket)]):
            return None
        fitting = [held for held in self._held if held.key == ticket.key and held.has_room]
        if ticket.alone:
            fitting = [held for held in fitting if held.busy == 0]
        # Rather another host on a free GPU than a crowd at one.
        if self._needs_gpus(ticket.key) and self._free(ticket.key):
            fitting = [held for held in fitting if held.busy <= held.room // 2]
        return min(fitting, key=lambda held: held.busy, default=None)

    def _victims(self, ticket: Ticket) -> list[Held] | None:
        """The hosts to end so that one for the ticket can start: none where there is room, None where it must wait."""
        if self._line_of(ticket)[0] is not ticket:
            return None
        if self._free(ticket.key) is not None:
            return []
        idle = sorted((held for held in self._held if held.busy == 0), key=lambda held: held.used)
        if not self._needs_gpus(ticket.key):
            return next(([held] for held in idle if not held.gpus), None)
        victims, gpus = [], len(self._free_gpus())
        for held in idle:
            if gpus >= ticket.key.gpus:
                break
            if held.gpus:
                victims.append(held)
                gpus += len(held.gpus)
        return victims if gpus >= ticket.key.gpus else None

    def _needs_gpus(self, key: HostKey) -> bool:
        return bool(key.gpus and self._devices.gpus)

    def _line_of(self, ticket: Ticket) -> list[Ticket]:
        """Those who wait for the same kind of place, in the order of coming."""
        kind = self._needs_gpus(ticket.key)
        return [other for other in self._line if self._needs_gpus(other.key) == kind]

    def _free(self, key: HostKey) -> tuple[str, ...] | None:
        """The GPUs that a new host gets, or None where there are not enough."""
        if not self._needs_gpus(key):
            return () if sum(not held.gpus for held in self._held) < self._cpu_hosts else None
        free = self._free_gpus()
        return tuple(free[: key.gpus]) if len(free) >= key.gpus else None

    def _free_gpus(self) -> list[str]:
        taken = {gpu for held in self._held for gpu in held.gpus}
        return [gpu for gpu in self._devices.gpus if gpu not in taken]

    def _free_place(self) -> int:
        taken = {held.place for held in self._held}
        return next(place for place in range(self._cpu_hosts) if place not in taken)

    def _start(self, executor: type[Executor], key: HostKey, room: int, places: int) -> Held:
        gpus = self._free(key) or ()
        place = None if gpus else self._free_place()
        cpus = self._devices.cpus if place is None else cpu_share(self._devices.cpus, place, self._cpu_hosts)
        of_machine = cpus == usable_cpus()
        env = environment(key.python, host_environment(gpus, cpus, of_machine=of_machine))
        process = HostProcess(key.target, python=key.python, env=env, concurrent=executor.concurrent)
        process.rows_at_once = executor.rows_at_once
        held = Held(key=key, process=process, room=room, gpus=gpus, place=place, busy=places)
        self._held.append(held)
        if self._reaper is None:
            self._reaper = threading.Thread(target=self._reap, name="mloc-host-reaper", daemon=True)
            self._reaper.start()
        logger.info("host for %s started%s", key.target, f" on GPU {', '.join(gpus)}" if gpus else "")
        return held

    def _give_back(self, held: Held, *, places: int, keep: bool) -> None:
        if not keep:
            held.process.retire(grace_sec=self._grace_sec)
        with self._changed:
            held.busy -= places
            held.used = time.monotonic()
            gone = self._forget_gone()
            self._changed.notify_all()
        if gone:
            self._tell_change()

    def _forget_gone(self) -> bool:
        gone = [held for held in self._held if held.process.gone.is_set()]
        for held in gone:
            self._held.remove(held)
        return bool(gone)

    def _reap(self) -> None:
        while not self._closed.wait(min(REAP_SEC, self._idle_sec)):
            with self._changed:
                late = time.monotonic() - self._idle_sec
                idle = [held for held in self._held if held.busy == 0 and held.used < late]
                for held in idle:
                    held.busy = held.room
            for held in idle:
                logger.info("host %d is ended: idle for %g s", held.process.pid, self._idle_sec)
                held.process.retire(grace_sec=self._grace_sec)
            with self._changed:
                if gone := self._forget_gone():
                    self._changed.notify_all()
            if gone:
                self._tell_change()

    def _tell_change(self) -> None:
        try:
            self._on_change()
        except Exception:  # the boundary: whoever listens must neither fail an attempt nor end the reaper
            logger.exception("that a host has gone is not shown")
