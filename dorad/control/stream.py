"""The events of a stream of the control API, for a `for` loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from dorad.control.errors import ControlError
from dorad.control.pending import END, PendingRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from dorad.control.messages import TopicHeader

T = TypeVar("T")


class Stream(Generic[T]):
    """The events of a stream, for a `for` loop. Closing it, or its client, ends the stream."""

    def __init__(
        self,
        request: PendingRequest,
        wait_for: Callable[[PendingRequest, float | None], None],
        cancel: Callable[[PendingRequest], None],
        convert: Callable[[Any], T],
    ) -> None:
        """`wait_for` returns once something has arrived; `cancel` ends the request.

        `convert` converts each event for the loop.
        """
        self._request: PendingRequest | None = request
        self._wait_for = wait_for
        self._cancel = cancel
        self._convert = convert

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout: float | None = None) -> T:
        """Return the next event.

        Raises:
            StopIteration: the stream has ended.
            TimeoutError: none arrived within `timeout` seconds; the stream stays open.
            ControlError: an error ended the stream.
        """
        if self._request is None:
            raise StopIteration
        try:
            self._wait_for(self._request, timeout)
            event = self._request.take()
        except ControlError:
            self._request = None
            raise
        if event is END:
            self._request = None
            raise StopIteration
        return self._convert(event)

    def close(self) -> None:
        """End the stream. Closing it twice does nothing."""
        if self._request is not None:
            self._cancel(self._request)
            self._request = None


ArrayMessage: TypeAlias = "tuple[TopicHeader, pa.Array | None]"
"""A message of an output: its header, and its Arrow array."""
