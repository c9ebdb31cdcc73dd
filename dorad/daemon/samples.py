"""Shared memory for samples: made on request, shown to subscribers, taken back in the end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Protocol

from dorad.daemon.segments import EdgeKey, Segments
from dorad.node.protocol import ProtocolError
from dorad.shm import create

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.daemon.connection import Connection
    from dorad.daemon.edges import Edge
    from dorad.shm.ring import Counters

REAP_S = 1.0
"""Seconds between looks at the samples that ended processes have left in queues."""


class Desk(Protocol):
    """What the samples' keeper needs from the broker."""

    def connection(self, node_id: str) -> Connection | None:
        """Return the node's connection, if it has one."""

    def send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        """Send a packet to the node, if it has a connection."""

    def edge_counters(self, edge: EdgeKey) -> Counters | None:
        """Return what an edge has seen, None if its consumer will never read again."""


class Samples:
    """The segments of all nodes. Belongs to one event loop."""

    def __init__(self, edges: Sequence[Edge], desk: Desk) -> None:
        self._edges = edges
        self._desk = desk
        self._segments = Segments()
        self._growing: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None

    def grow(self, node_id: str, size: int) -> None:
        """Make a segment of `size` bytes for a connected node, and answer it."""
        connection = self._desk.connection(node_id)
        if connection is None:
            return
        self._reap()
        task = asyncio.ensure_future(self._grow(node_id, connection, size))
        self._growing.add(task)
        task.add_done_callback(self._growing.discard)

    async def _grow(self, node_id: str, connection: Connection, size: int) -> None:
        desk = self._desk
        try:
            # Allocating zeroes the pages, which takes a quarter of a second for each gigabyte.
            memory = await asyncio.to_thread(create.create, size)
        except OSError as error:
            if desk.connection(node_id) is connection:
                desk.send(node_id, "full", {"error": str(error)})
            return
        if desk.connection(node_id) is not connection:
            # Whoever has taken its place meanwhile did not ask for it.
            os.close(memory)
            return
        number = self._segments.add(node_id, connection.pid, memory)
        # Subscribers hear of it before its owner can put anything into it.
        for consumer in self._consumers(node_id):
            desk.send(consumer, "segment", {"segment": number}, (memory,))
        desk.send(node_id, "grown", {"segment": number}, (memory,))

    def show(self, node_id: str) -> None:
        """Give a node that has just attached the segments it may receive samples in."""
        sources = {edge.source for edge in self._edges if edge.consumer == node_id}
        for segment in self._segments.of(sources):
            self._desk.send(node_id, "segment", {"segment": segment.number}, (segment.memory,))

    def retire(self, node_id: str, number: int) -> None:
        """Let go of a segment that its owner does not need any more.

        Raises:
            ProtocolError: it is not the node's own.
        """
        try:
            self._segments.retire(number, node_id)
        except KeyError:
            raise ProtocolError(f"segment {number} is not the node's own") from None
        self._tell_retired(node_id, number)

    def orphan(self, node_id: str, pid: int | None) -> None:
        """Let go of a process's segments once no queued message lies in them.

        The process sends nothing any more. None stands for every process there was of the node.
        """
        heads = {}
        for edge in self._edges:
            seen = self._desk.edge_counters(edge.key) if edge.source == node_id else None
            if seen is not None:
                heads[edge.key] = seen.sent
        self._segments.orphan(node_id, pid, heads)
        self._reap()

    def _reap(self) -> None:
        for segment in self._segments.reap(self._is_past):
            self._tell_retired(segment.owner, segment.number)
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        if self._segments.orphans:
            self._reaper = asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _is_past(self, edge: EdgeKey, head: int) -> bool:
        seen = self._desk.edge_counters(edge)
        return seen is None or seen.sent - seen.queued >= head

    def _consumers(self, node_id: str) -> set[str]:
        return {edge.consumer for edge in self._edges if edge.source == node_id}

    def _tell_retired(self, owner: str, number: int) -> None:
        for consumer in self._consumers(owner):
            self._desk.send(consumer, "retired", {"segment": number})

    async def close(self) -> None:
        """Let go of all segments; every connection is closed by now."""
        if self._reaper is not None:
            self._reaper.cancel()
        self._segments.close()
        # What is being made for a connection that is gone is closed as soon as it is there.
        while self._growing:
            await asyncio.wait(self._growing)
