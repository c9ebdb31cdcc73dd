"""Messages on their way to a reader that may be slow: bounded, the oldest go first."""

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
    """Between the thread that receives from nodes, and never waits, and the one that writes.

    What waits here was copied: a slow reader must not make nodes keep their messages.
    """

    def __init__(self, queue_size: int, most_bytes: int = MAX_BYTES) -> None:
        """Keep `queue_size` messages of each topic, and of all together at most so many bytes.

        The newest message is kept whatever its size.
        """
        self._queue_size = queue_size
        self._most_bytes = most_bytes
        self._messages: deque[Message] = deque()
        self._waiting: Counter[str] = Counter()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.displaced: Counter[str] = Counter()
        """Messages by topic that gave way to newer ones."""

    def put(self, message: Message) -> None:
        """Add a message; never waits."""
        with self._changed:
            self._messages.append(message)
            self._waiting[message.topic] += 1
            self._bytes += len(message.payload)
            if self._waiting[message.topic] > self._queue_size:
                self._displace(next(m for m in self._messages if m.topic == message.topic))
            while self._bytes > self._most_bytes and len(self._messages) > 1:
                self._displace(self._messages[0])
            self._changed.notify()

    def get(self) -> Message | None:
        """Wait for the oldest message; None after `close`, when none is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed)
            if not self._messages:
                return None
            return self._take(self._messages[0])

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _displace(self, message: Message) -> None:
        self._take(message)
        self.displaced[message.topic] += 1

    def _take(self, message: Message) -> Message:
        # by identity: equality would look at payloads
        at = next(at for at, each in enumerate(self._messages) if each is message)
        del self._messages[at]
        self._waiting[message.topic] -= 1
        self._bytes -= len(message.payload)
        return message
