"""Shared memory for samples: made on request, shown to subscribers, taken back in the end."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from dorad.daemon.broker.edges import DAEMON, is_observer
from dorad.daemon.broker.latches import segments_kept
from dorad.daemon.broker.segments import EdgeKey, Segment, Segments
from dorad.node.protocol import ProtocolError
from dorad.shm import create

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.state import BrokerState
    from dorad.shm import mapping

_log = logging.getLogger(__name__)

REAP_S = 1.0
"""Seconds between looks at the samples that ended processes have left in queues."""

MAX_SEGMENTS = 256
"""Segments that one node may have, those that its ended processes have left included.

A pool's segments become larger the more samples it needs: this suffices for any number of them."""

MAX_GROWING = 8
"""Segments that may be in the making for one node. It waits for each, unless a signal ends that."""

SKIPPED = 4096
"""Numbers left out by a new daemon: what it knows of the last one may be a little old."""

_log = logging.getLogger(__name__)


class Samples:
    """The segments of all nodes. Belongs to one event loop."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._segments = Segments(self._dropped)
        self._growing: dict[asyncio.Task[None], tuple[str, int]] = {}
        """What is being made: for whom, and its size."""
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def next_number(self) -> int:
        """A number that no segment had so far."""
        return self._segments.next

    def grow(self, node_id: str, size: int, ask: Any) -> None:
        """Make a segment of `size` bytes for a connected node, and answer its question `ask`."""
        connection = self._state.connection(node_id)
        if connection is None:
            return
        self._reap()
        try:
            self._check_limits(node_id, size)
        except OSError as error:
            _log.debug("no segment of %d bytes for node %s: %s", size, node_id, error)
            connection.send("full", {"error": str(error), "ask": ask})
            return
        task = asyncio.ensure_future(self._grow(node_id, connection, size, ask))
        self._growing[task] = (node_id, size)
        task.add_done_callback(self._growing.pop)

    def _check_limits(self, owner: str, size: int) -> None:
        """Raise OSError if a node has all the shared memory that it may have."""
        held = [segment.size for segment in self._segments.of({owner})]
        growing = [each for node_id, each in self._growing.values() if node_id == owner]
        if len(growing) == MAX_GROWING:
            raise OSError(f"{MAX_GROWING} segments are being made for this node; wait for them")
        if len(held) + len(growing) >= MAX_SEGMENTS:
            raise OSError(
                f"this node has {MAX_SEGMENTS} segments of shared memory, and may not have more; "
                "let go of arrays that were made or received"
            )
        create.check_share(size, sum(held) + sum(growing))

    async def _grow(self, node_id: str, connection: Connection, size: int, ask: Any) -> None:
        state = self._state
        try:
            # Allocating zeroes the pages, which takes a quarter of a second for each gigabyte.
            memory = await asyncio.to_thread(create.create_pool, size)
        except OSError as error:
            _log.debug("no segment of %d bytes for node %s: %s", size, node_id, error)
            if state.connection(node_id) is connection:
                state.send(node_id, "full", {"error": str(error), "ask": ask})
            return
        if state.connection(node_id) is not connection:
            # Whoever has taken its place meanwhile did not ask for it.
            os.close(memory.owner)
            os.close(memory.receiver)
            return
        number = self._add(node_id, connection.pid, memory.receiver, size)
        state.send(node_id, "grown", {"segment": number, "ask": ask}, (memory.owner,))
        # From here on only the owner can write: we, the next daemon and receivers just read.
        os.close(memory.owner)

    def grow_own(self, size: int) -> tuple[int, mapping.Mapping]:
        """Make a segment for what the daemon itself sends; return its number and its memory.

        Raises:
            OSError: there is no room.
        """
        self._check_limits(DAEMON, size)
        memory, mapped = create.create_texts(size)
        return self._add(DAEMON, os.getpid(), memory, size), mapped

    def _add(self, owner: str, pid: int, memory: int, size: int) -> int:
        segment = self._segments.add(owner, pid, memory, size)
        _log.debug("segment %d for %s, process %d", segment.number, owner, pid)
        state = self._state
        state.store.store(self._name(segment), (memory,))
        # Subscribers hear of it before its owner can put anything into it.
        for consumer in self._consumers(owner):
            state.send(consumer, "segment", {"segment": segment.number}, (memory,))
        return segment.number

    def show(self, node_id: str) -> None:
        """Give a node that has just attached the segments it may receive samples in."""
        for source in sorted({edge.producer for edge in self._state.edges.received_by(node_id)}):
            self.show_of(source, node_id)

    def show_of(self, source: str, node_id: str) -> None:
        """Give a node the segments of one that it is going to receive from."""
        for segment in self._segments.of({source}):
            self._state.send(node_id, "segment", {"segment": segment.number}, (segment.memory,))

    def hide_of(self, source: str, node_id: str) -> None:
        """Let a node unmap the segments of one that it receives nothing from any more."""
        for segment in self._segments.of({source}):
            self._state.send(node_id, "retired", {"segment": segment.number})

    def retire(self, node_id: str, number: int) -> None:
        """Let go of a segment that its owner does not need any more.

        Raises:
            ProtocolError: it is not the node's own.
        """
        try:
            self._segments.retire(number, node_id)
        except KeyError:
            raise ProtocolError(f"segment {number} is not the node's own") from None

    def retire_own(self, number: int) -> None:
        """Let go of a segment that the daemon itself does not need any more."""
        self._segments.retire(number, DAEMON)

    def orphan(self, node_id: str, pid: int | None) -> None:
        """Let go of a process's segments once no queued message lies in them.

        The process sends nothing any more. None stands for every process there was of the node.
        """
        self._segments.orphan(node_id, pid, self._heads(node_id))
        self._reap()

    def _heads(self, node_id: str) -> Mapping[EdgeKey, int]:
        heads = {}
        for edge in self._state.edges.reached_by(node_id):
            seen = self._state.edge_counters(edge.key)
            if seen is not None:
                heads[edge.key] = seen.sent
        return heads

    def _reap(self) -> None:
        if self._closed:
            return
        if self._segments.orphans:
            self._segments.reap(self._is_past, segments_kept(self._state))
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        if self._segments.orphans:
            self._reaper = asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _is_past(self, edge: EdgeKey, head: int) -> bool:
        seen = self._state.edge_counters(edge)
        return seen is None or seen.sent - seen.queued >= head

    def _consumers(self, node_id: str) -> set[str]:
        return {edge.consumer for edge in self._state.edges.reached_by(node_id)}

    def _name(self, segment: Segment) -> str:
        numbers = (segment.number, segment.owner, segment.pid, segment.size)
        return self._state.name("segment", *map(str, numbers))

    def _dropped(self, segment: Segment) -> None:
        _log.debug("segment %d of %s is dropped", segment.number, segment.owner)
        self._state.store.drop(self._name(segment))
        heads = segment.heads or {}
        for consumer in sorted(self._consumers(segment.owner) | {key.node for key in heads}):
            self._state.send(consumer, "retired", {"segment": segment.number})

    # -- kept over a restart of the daemon ---------------------------------------------------

    def restore(self, kept: Collection[Segment], following: int, heads: list[Any]) -> None:
        """Take over the segments of another daemon's time.

        `following` is a number that was free lately, `heads` what `snapshot` returned.
        """
        known = {number: {EdgeKey(*key): head for *key, head in each} for number, each in heads}
        self._segments.next = following
        for segment in sorted(kept, key=lambda each: each.number):
            segment.heads = known.get(segment.number)
            self._segments.restore(segment)
        self._segments.next += SKIPPED
        for segment in kept:
            if segment.heads is None and (segment.owner == DAEMON or not _lives(segment.pid)):
                self.orphan(segment.owner, segment.pid)

    def drop_observers(self, consumers: Collection[str]) -> None:
        """Let go of what lies in segments of guests, which ended with another daemon."""
        for owner in {each.owner for each in self._segments if is_observer(each.owner)}:
            for consumer in consumers:
                self.hide_of(owner, consumer)
            self.orphan(owner, None)

    def snapshot(self) -> list[Any]:
        """Return which segments outlive their processes, and until when; JSON-able."""
        return [
            [segment.number, [[*key, head] for key, head in segment.heads.items()]]
            for segment in self._segments
            if segment.heads is not None
        ]

    async def close(self) -> None:
        """Let go of all segments; every connection is closed by now."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        self._segments.close()
        # What is being made for a connection that is gone is closed as soon as it is there.
        while self._growing:
            await asyncio.wait(self._growing)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
