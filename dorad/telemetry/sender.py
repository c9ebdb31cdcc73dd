"""A bounded queue in front of an exporter of OpenTelemetry, which blocks while it sends."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.telemetry.settings import Endpoint

T = TypeVar("T")

MAX_WAITING = 64 << 20
"""Bytes that wait at most."""
MAX_REQUEST = 2 << 20
"""Bytes from which on a request gets no more: collectors refuse over 4 MiB by gRPC."""
MAX_ERROR = 300
"""Characters of an error that are shown."""

_log = logging.getLogger(__name__)


class Delivery(NamedTuple):
    """How the sending of a signal goes."""

    url: str
    sent: int
    """Number of items that the collector has accepted."""
    dropped: int
    error: str
    """Why the last attempt failed; empty if it did not."""


class _Queued(NamedTuple, Generic[T]):
    value: T
    items: int
    size: int


class LastErrors(logging.Handler):
    """Keeps why the exporter of each thread failed, as it has logged that.

    Exporters return only whether they failed. They warn with the reason before they try again, and
    end with an error that may have none.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._of_threads: dict[int | None, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a record, but no error after a warning."""
        if record.levelno < logging.ERROR or record.thread not in self._of_threads:
            self._of_threads[record.thread] = record.getMessage()

    def take(self, thread: int | None) -> str:
        """Return why the exporter of a thread failed, and forget it."""
        return self._of_threads.pop(thread, "")


class Sender(Generic[T]):
    """Sends batches of one signal, in order, in a thread of its own.

    What does not fit into the queue, what the collector refuses after the exporter's own retries,
    and what is left at the end is dropped and counted.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        export: Callable[[Sequence[T]], bool],
        changed: Callable[[str, Delivery], None],
        *,
        limit: int,
        batch: int,
    ) -> None:
        """`export` blocks, and returns whether the collector has accepted the batch.

        At most `limit` items wait, `batch` are sent at once; see `put`.
        `changed` is called in that thread when sending begins to fail and when it works again.
        """
        self._name = name
        self._endpoint = endpoint
        self._export = export
        self._changed = changed
        self._limit = limit
        self._batch = batch
        self._queue: deque[_Queued[T]] = deque()
        self._items = self._size = 0
        """Of what waits, and of what is being sent."""
        self._sent = self._dropped = 0
        self._error = ""
        self._condition = threading.Condition()
        self._closing = self._given_up = False
        self._errors = LastErrors()
        self._thread = threading.Thread(target=self._work, name=f"send {name}", daemon=True)
        logging.getLogger("opentelemetry").addHandler(self._errors)
        self._thread.start()

    def put(self, value: T, *, items: int = 1, size: int = 0) -> None:
        """Queue what counts as so many items and has about so many bytes, or drop it."""
        with self._condition:
            full = self._items + items > self._limit or self._size + size > MAX_WAITING
            if full and self._items:
                self._dropped += items
                return
            self._queue.append(_Queued(value, items, size))
            self._items += items
            self._size += size
            self._condition.notify()

    def drop(self, count: int) -> None:
        """Count items that were lost before they came here."""
        with self._condition:
            self._dropped += count

    @property
    def delivery(self) -> Delivery:
        """How the sending goes."""
        with self._condition:
            return Delivery(self._endpoint.shown, self._sent, self._dropped, self._error)

    def close(self) -> None:
        """Let the thread end when the queue is empty."""
        with self._condition:
            self._closing = True
            self._condition.notify()

    def join(self, seconds: float) -> None:
        """Wait that long for the thread after `close`; then what is left is dropped."""
        self._thread.join(max(seconds, 0.0))
        with self._condition:
            self._given_up = True
            if self._items:
                late = self._errors.take(self._thread.ident) or self._error
                self._error = visible(late[:MAX_ERROR]) or "not sent in time at the end"
                self._dropped += self._items

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                batch = self._take_batch()
            error = self._attempt([each.value for each in batch])
            items, size = sum(each.items for each in batch), sum(each.size for each in batch)
            with self._condition:
                if self._given_up:
                    return  # these are counted
                self._items -= items
                self._size -= size
                before, self._error = self._error, error
                if error:
                    self._dropped += items
                else:
                    self._sent += items
            _log.debug("%s: %d items, error %r", self._name, items, error)
            if bool(before) is not bool(error):
                self._changed(self._name, self.delivery)

    def _take_batch(self) -> list[_Queued[T]]:
        batch, size = [self._queue.popleft()], 0
        while self._queue and len(batch) < self._batch and size < MAX_REQUEST:
            size += batch[-1].size
            batch.append(self._queue.popleft())
        return batch

    def _attempt(self, batch: list[T]) -> str:
        """Send a batch; return why that failed, an empty text if it did not."""
        try:
            if self._export(batch):
                self._errors.take(self._thread.ident)
                return ""
            error = self._errors.take(self._thread.ident) or "the exporter does not say why"
        except Exception as failure:  # noqa: BLE001 - an exporter must not end the thread
            _log.debug("exporter of %s", self._name, exc_info=True)
            error = repr(failure)
        return visible(error[:MAX_ERROR])
