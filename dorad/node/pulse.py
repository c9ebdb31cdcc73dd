"""Receiver and sender of a node with a hang watchdog: each call counts heartbeats.

The count changes when a call begins and ends, and ten times a second while a call waits for room or
for an answer of the daemon. A call that waits for events marks the mailbox as asleep instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.node.sender import Sender

if TYPE_CHECKING:
    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.offline.capture import Receiving
    from dorad.shm.pool import Sample


class WatchedReceiver:
    """A receiver whose calls count heartbeats."""

    def __init__(self, receiver: Receiving, connection: DaemonConnection) -> None:
        self._receiver = receiver
        self._beat = connection.beat

    @property
    def ended(self) -> bool:
        """True after the last event."""
        return self._receiver.ended

    def next(self, timeout: float | None) -> Event | None:
        """See `Receiver`."""
        self._beat()
        try:
            return self._receiver.next(timeout)
        finally:
            self._beat()

    async def recv_async(self, timeout: float | None) -> Event | None:
        """See `Receiver`."""
        self._beat()
        try:
            return await self._receiver.recv_async(timeout)
        finally:
            self._beat()

    def try_recv(self) -> Event | None:
        """See `Receiver`."""
        self._beat()
        return self._receiver.try_recv()

    def drain(self) -> list[Event]:
        """See `Receiver`."""
        self._beat()
        return self._receiver.drain()

    def is_empty(self) -> bool:
        """See `Receiver`."""
        self._beat()
        return self._receiver.is_empty()


class WatchedSender(Sender):
    """A sender whose calls count heartbeats."""

    def send(self, output: str, data: Any, metadata: dict[str, Any] | None) -> None:
        """See `Sender`."""
        self._connection.beat()
        try:
            super().send(output, data, metadata)
        finally:
            self._connection.beat()

    def send_sample(
        self, output: str, sample: Sample, length: int, metadata: dict[str, Any] | None
    ) -> None:
        """See `Sender`."""
        self._connection.beat()
        try:
            super().send_sample(output, sample, length, metadata)
        finally:
            self._connection.beat()

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """See `Sender`."""
        self._connection.beat()
        return super().empty(shape, dtype)

    def take_sample(self, size: int) -> Sample:
        """See `Sender`."""
        self._connection.beat()
        return super().take_sample(size)
