"""A bounded queue of messages for a reader that may be slow; the oldest messages are displaced."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Any, NamedTuple

MAX_BYTES = 32 << 20


class Message(NamedTuple):
    """One message of a topic, copied out of shared memory."""

    topic: str
    metadata: dict[str, Any]
    payload: bytes | memoryview


class Outbox:
    """Queue between the thread that receives, which never waits, and the one that writes.

    Messages here are copies: a slow reader must not make nodes keep their samples.
    """

    def __init__(self, queue_size: int, max_bytes: int = MAX_BYTES) -> None:
        """Keep up to `queue_size` messages of each topic, and up to `max_bytes` in all.

        The newest message is kept, even if it is larger.
        """
        self._queue_size = queue_size
        self._max_bytes = max_bytes
        self._messages: deque[Message] = deque()
        self._waiting: Counter[str] = Counter()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.displaced: Counter[str] = Counter()
        """Number of displaced messages, by topic."""

    def put(self, message: Message) -> None:
        """Add a message, without waiting; displace old ones if the queue is full."""
        with self._changed:
            self._messages.append(message)
            self._waiting[message.topic] += 1
            self._bytes += len(message.payload)
            if self._waiting[message.topic] > self._queue_size:
                self._displace(next(m for m in self._messages if m.topic == message.topic))
            while self._bytes > self._max_bytes and len(self._messages) > 1:
                self._displace(self._messages[0])
            self._changed.notify()

    def get(self) -> Message | None:
        """Wait for the oldest message and return it; None once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed)
            if not self._messages:
                return None
            return self._take(self._messages[0])

    def close(self) -> None:
        """Let `get` return None once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _displace(self, message: Message) -> None:
        self._take(message)
        self.displaced[message.topic] += 1

    def _take(self, message: Message) -> Message:
        # Compare by identity: equality would read the payloads.
        at = next(at for at, each in enumerate(self._messages) if each is message)
        del self._messages[at]
        self._waiting[message.topic] -= 1
        self._bytes -= len(message.payload)
        return message
