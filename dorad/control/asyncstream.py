"""The events of a stream of the control API, for an `async for` loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from dorad.control.errors import ControlError
from dorad.control.pending import END, PendingRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dorad.control.messages import TopicHeader

T = TypeVar("T")


class AsyncStream(Generic[T]):
    """The events of a stream, for an `async for` loop.

    The request is sent on entering an `async with` block, or else with the first event. The stream
    ends when the block, or the client, is left.
    """

    def __init__(
        self,
        send_request: Callable[[], Awaitable[PendingRequest]],
        wait_for: Callable[[PendingRequest], Awaitable[None]],
        cancel: Callable[[PendingRequest], Awaitable[None]],
        convert: Callable[[Any], T],
    ) -> None:
        """`wait_for` returns once something has arrived; `cancel` ends the request.

        `convert` converts each event for the loop.
        """
        self._send_request = send_request
        self._wait_for = wait_for
        self._cancel = cancel
        self._convert = convert
        self._request: PendingRequest | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._ended:
            raise StopAsyncIteration
        request = await self._start()
        try:
            await self._wait_for(request)
            event = request.take()
        except ControlError:
            self._ended = True
            raise
        if event is END:
            self._ended = True
            raise StopAsyncIteration
        return self._convert(event)

    async def close(self) -> None:
        """End the stream. Closing it twice does nothing."""
        self._ended = True
        if self._request is not None:
            await self._cancel(self._request)

    async def _start(self) -> PendingRequest:
        if self._request is None:
            self._request = await self._send_request()
        return self._request


AsyncFrames: TypeAlias = "AsyncStream[tuple[TopicHeader, memoryview]]"
"""Messages of outputs: the header of each, and its Arrow IPC stream."""
