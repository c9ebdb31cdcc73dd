"""Events from outside the dataflow, such as messages of ROS 2, among those of a node's inputs."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from dorad.node import events
from dorad.shm.stepping import NO_STAMP

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event

MAX_BYTES = 256 << 20


class Backlog:
    """A queue of values from another thread; the oldest ones make room for new ones."""

    def __init__(self, length: int) -> None:
        """Keep up to `length` values, and up to MAX_BYTES of them, but always the newest."""
        self._length = length
        self._lock = threading.Lock()
        self._values: deque[tuple[Any, int]] = deque()
        self._bytes = 0

    def append(self, value: Any, size: int) -> int:
        """Add a value of `size` bytes; return how many older ones were dropped."""
        dropped = 0
        with self._lock:
            self._values.append((value, size))
            self._bytes += size
            while len(self._values) > 1 and (
                len(self._values) > self._length or self._bytes > MAX_BYTES
            ):
                self._bytes -= self._values.popleft()[1]
                dropped += 1
        return dropped

    def popleft(self) -> Any:
        """Return the oldest value, None if there is none."""
        with self._lock:
            if not self._values:
                return None
            value, size = self._values.popleft()
            self._bytes -= size
            return value

    def __len__(self) -> int:
        return len(self._values)


class ExternalSource(Protocol):
    """What `Node.merge_external_events` takes: `dora.Ros2Subscription`."""

    def merge_into(self, wake: Callable[[], None]) -> Backlog:
        """Return the queue of values; from now on, call `wake` after each new one.

        Raises:
            RuntimeError: the source is merged already.
        """


class ExternalInput:
    """An input whose values come from a source outside the dataflow; see `RingInput`."""

    id = ""
    ring = -1
    removed = False

    def __init__(self, queue: Backlog) -> None:
        self._queue = queue
        self._left: int | None = None
        """How many values still follow after a stop."""

    def ready(self) -> bool:
        """Return True if a value is queued."""
        return len(self._queue) > 0 and self._left != 0

    holds = moved = ready

    def next_stamp(self) -> int:
        """Return a timestamp before all messages if a value is queued, else NO_STAMP."""
        return 0 if self.ready() else NO_STAMP

    def take(self) -> Event | None:
        """Return the event of the oldest value, or None."""
        if not self.ready():
            return None
        value = self._queue.popleft()
        if self._left is not None:
            self._left -= 1
        return events.external(value)

    def stop(self) -> None:
        """Return only as many as are queued now."""
        self._left = len(self._queue)

    leave = stop
