"""The answers of handlers: what they return, and the part of `Node` that sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dorad.node.events import Event


class Answering(Protocol):
    """The part of `Node` that a server uses."""

    def next(self, timeout: float | None = None) -> Event | None:
        """See `Node`."""

    async def recv_async(self, timeout: float | None = None) -> Event | None:
        """See `Node`."""

    def is_empty(self) -> bool:
        """See `Node`."""

    def send_output(self, output_id: str, data: Any, metadata: Any = None) -> None:
        """See `Node`."""

    def send_service_response(self, output_id: str, data: Any, metadata: Any) -> None:
        """See `Node`."""

    def log(self, level: str, message: str) -> None:
        """See `Node`."""


def split_result(result: Any) -> tuple[Any, dict[str, Any]]:
    """Split the return value of a handler into data and metadata."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        return result
    return result, {}


def empty_for(data: Any) -> Any:
    """Return the data to send: an empty array instead of None."""
    if data is not None:
        return data
    import pyarrow as pa

    return pa.nulls(0)
