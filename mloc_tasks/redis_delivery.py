"""A message leaves its queue in Redis and is noted as delivered in one step.

kombu does it in two, `BRPOP` and then `HSET` [kombu 5.7.0, transport/redis.py, Channel._brpop_read, QoS.append]. In
between the message is nobody's: a worker that is killed there takes it along, and a stage waits for it without end.
Here a script does both at once. A script cannot wait, so a worker that found no message waits for a token: whoever puts
a message into a queue puts one into the queue's wake list too. Tokens only wake. Where one is lost, the next look, a
second later (kombu's brpop_timeout), finds the message; one too many finds nothing.

A message that a worker gives back lies at the head of its queue again, where it was: it has lost nothing, and whoever
asks next gets it. The worker itself passes over it for a while and takes what lies behind it, or it would get the same
message again before anybody else has heard of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from queue import Empty
from typing import Any

from kombu.transport import virtual
from kombu.transport.redis import QoS
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import OutOfMemoryError, ResponseError

logger = logging.getLogger("mloc.worker")

WAKE_MS = 10_000  # who is not woken by then is awake, and looks by itself
PASS_OVER_SEC = 0.25  # how long a worker takes other messages than the one that it gave back
LOOK_AGAIN_SEC = 0.1  # where all there is was passed over: no token tells when that is over

# KEYS: the notes of deliveries and the times of these, as kombu keeps them; then pairs of a queue's list and its wake
# list, first choice first. ARGV: the time; the name of a task to pass over except where a message says that it is light
# (`signatures.LIGHT`), or ''; then the tags of messages to pass over. Looks at 64 messages of a list at most. Gives the
# place of the list among the keys, the message, and its tag; no tag where it could not be noted: then it is for the
# worker to complain about. The note comes first: where Redis is full, nothing has happened.
TAKE = """
local over, task, passed = {}, ARGV[2], false
for i = 3, #ARGV do
  over[ARGV[i]] = true
end
local reach = (task == '' and #ARGV == 2) and 1 or 64
local function note_of(message)
  local decoded = cjson.decode(message)
  local tag, info = decoded.properties.delivery_tag, decoded.properties.delivery_info
  assert(type(tag) == 'string')
  local headers = task ~= '' and type(decoded.headers) == 'table' and decoded.headers or {}
  local pass = over[tag] or (headers.task == task and not headers.mloc_light)
  local route = cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key)
  return tag, '[' .. message .. ',' .. route .. ']', pass
end
for i = 3, #KEYS, 2 do
  local messages = redis.call('LRANGE', KEYS[i], -reach, -1)
  for at = #messages, 1, -1 do
    local message = messages[at]
    local readable, tag, note, pass = pcall(note_of, message)
    if not (readable and pass) then
      if readable then
        redis.call('HSET', KEYS[1], tag, note)
        redis.call('ZADD', KEYS[2], ARGV[1], tag)
      end
      redis.call('LREM', KEYS[i], -1, message)
      redis.call('RPOP', KEYS[i + 1])
      return {i, message, readable and tag or ''}
    end
    passed = true
  end
end
if passed then
  return false
end
for i = 4, #KEYS, 2 do
  redis.call('DEL', KEYS[i])
end
return false
"""


class NotingQoS(QoS):
    """What a channel holds unacknowledged, less the writing down of what `TAKE` has written down."""

    noted = ""  # the delivery that is on its way to `append`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._given_back: dict[str, float] = {}  # until when each is passed over

    def append(self, message: Any, delivery_tag: str) -> None:
        if self.noted == delivery_tag:
            self.noted = ""
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop the message, or give it back: to the head of its queue. kombu puts it behind all others."""
        if not requeue:
            super().reject(delivery_tag)  # type: ignore[no-untyped-call]
            return
        self._given_back[delivery_tag] = time.monotonic() + PASS_OVER_SEC
        self.restore_by_tag(delivery_tag)  # type: ignore[no-untyped-call]
        virtual.QoS.ack(self, delivery_tag)

    def passed_over(self) -> list[str]:
        """Tags of the messages that were given back just now. From the thread that asks for messages."""
        now = time.monotonic()
        for tag, until in list(self._given_back.items()):
            if until <= now:
                del self._given_back[tag]
        return list(self._given_back)


class NotingChannel:
    """How a channel takes messages in one step. Stands before kombu's `Channel`, whose names these are.

    While `_in_poll`, one command is on its way: `TAKE`, and where that found nothing, `BLPOP` on the wake lists.
    """

    task_to_pass_over: Callable[[], str] = staticmethod(lambda: "")  # its messages are left to others, but light ones
    _unnoted: frozenset[str] = frozenset()  # queues whose messages nobody acknowledges
    _taking_from: tuple[str, ...] = ()  # the queues of TAKE's pairs, while it is on its way
    _passing_over = False  # what is on its way may leave messages where they are
    _waiting = False  # for a token
    _brpop_sent_at: Any = None

    def basic_consume(self: Any, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        self._unnoted = self._unnoted - {queue} | ({queue} if no_ack else set())
        return super().basic_consume(queue, no_ack, *args, **kwargs)  # type: ignore[misc]

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        self._waiting, self._taking_from = False, ()
        if not self.ack_emulation or self._unnoted.intersection(self.active_queues):
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        pairs = [(queue, self._q_for_pri(queue, step)) for step in self.priority_steps for queue in queues]
        keys = [self.unacked_key, self.unacked_index_key]
        for queue, messages in pairs:
            keys += [messages, self._wake_list(queue)]
        self._taking_from = tuple(queue for queue, _ in pairs)
        over = (self.task_to_pass_over(), *self.qos.passed_over())
        self._passing_over = any(over)
        self._ask("EVAL", TAKE, len(keys), *(self.global_keyprefix + key for key in keys), time.time(), *over)

    def _brpop_read(self: Any, **options: Any) -> bool:
        if self._waiting:
            self._waiting = False
            self._answer("BLPOP", **options)
            raise Empty  # and the next thing asked for is a message
        if not self._taking_from:
            return super()._brpop_read(**options)  # type: ignore[misc,no-any-return]
        queues, self._taking_from = self._taking_from, ()
        asked = self._brpop_sent_at
        try:
            found = self._answer("EVAL", **options)
        except ResponseError as error:
            if not isinstance(error, OutOfMemoryError) and "OOM" not in str(error):  # Redis 6 says it in the text
                raise
            logger.warning("no message is taken while Redis is full: %s", error)
            self._pause(self.brpop_timeout or 1)
            raise Empty from error
        if found is None:
            if self._passing_over:  # a token may be meant for somebody who would take what was passed over here
                self._pause(LOOK_AGAIN_SEC)
            else:
                self._wait_for_token(dict.fromkeys(queues), self.brpop_timeout or 1)
            raise Empty
        if time.monotonic() - asked > self.visibility_timeout / 2:
            raise Empty  # this worker has slept: by now it may be somebody else's, and if not, it will be
        self._deliver_noted(queues[(found[0] - 3) // 2], found[1], bytes_to_str(found[2]))
        return True

    def _deliver_noted(self: Any, queue: str, text: bytes, tag: str) -> None:
        self._queue_cycle.rotate(queue)
        self.qos.noted = tag
        try:
            self.connection._deliver(loads(bytes_to_str(text)), queue)
        except (ValueError, TypeError, LookupError, AttributeError):
            if tag and self.qos.noted == tag:  # it cannot be read: it must not end the next worker too
                self.qos._remove_from_indices(tag).execute()
            raise
        finally:
            self.qos.noted = ""

    def _pause(self: Any, seconds: float) -> None:
        self._wait_for_token([""], seconds)  # which nobody sends

    def _wait_for_token(self: Any, queues: Iterable[str], seconds: float) -> None:
        if self._closing or self.client.connection._sock is None:
            return
        wakes = (self.global_keyprefix + self._wake_list(queue) for queue in queues)
        self._waiting = True
        self._ask("BLPOP", *wakes, seconds)

    def _ask(self: Any, *command: Any) -> None:
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(*command)

    def _answer(self: Any, command: str, **options: Any) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _put(self: Any, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if (batch := kwargs.get("_publish_batch")) is not None:
            super()._put(queue, message, **kwargs)  # type: ignore[misc]
            self._wake(queue, batch.add)
            return
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            together = _Together(pipe)
            super()._put(queue, message, _publish_batch=together)  # type: ignore[misc]
            self._wake(queue, together.add)
            pipe.execute()

    def _do_restore_message(
        self: Any, payload: dict[str, Any], exchange: str, routing_key: str, pipe: Any, leftmost: bool = False
    ) -> None:
        super()._do_restore_message(payload, exchange, routing_key, pipe, leftmost)  # type: ignore[misc]
        for queue in self._lookup(exchange, routing_key):
            self._wake(queue, _Together(pipe).add)

    def _wake(self: Any, queue: str, add: Callable[..., None]) -> None:
        add("lpush", self._wake_list(queue), "")
        add("pexpire", self._wake_list(queue), WAKE_MS)

    def _wake_list(self: Any, queue: str) -> str:
        return f"{queue}{self.sep}wake"


class _Together:
    """A pipeline, as kombu's `PublishBatch` takes commands."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def add(self, name: str, *args: Any) -> None:
        getattr(self._pipe, name)(*args)
