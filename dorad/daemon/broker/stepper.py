"""Runs one node of a dataflow at a time, by a logical time, so that each run is the same.

Only `dora replay --step` does so. All nodes are held but one, which runs until it sleeps with
nothing left to do. Then the next one in the order of the file that has something to do runs, and so
on. Time stands still meanwhile; it moves on when no node has anything to do. The replayer and the
recorders are never held.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.dataflow.recording import is_recorder, is_replayer, records_or_replays
from dorad.shm.fence import STRONG_ORDER, acquire, fence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.daemon.broker.edges import Edge
    from dorad.daemon.broker.mailbox import Mailbox
    from dorad.daemon.broker.state import BrokerState

TURN_TIMEOUT_S = 30.0
"""How long a node may work on what it has received before it must sleep again."""

MAX_TURNS = 10_000
"""Maximum number of turns without a step of time, which nodes reach that send to each other
without an end."""

LONG_TURNS = 200
"""So many turns that took TURN_TIMEOUT_S without a step of time count as such, too."""

FINISH_NS = 2_000_000_000
"""How long time runs on after the last message, for timeouts and `max_rate_hz`."""

POLL_S = 0.0005
SPINS = 200
"""Looks at a node that runs before each further one waits for POLL_S."""

_log = logging.getLogger(__name__)


class SteppingError(Exception):
    """A dataflow cannot be stepped on; the text names its nodes or its edge."""


class Stepper:
    """Steps the nodes of one dataflow. One call at a time."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._time_ns = 0
        self._seen: dict[str, tuple[int, ...]] = {}
        """What each node had been sent when its last turn began."""

    async def advance(self, time_ns: int) -> None:
        """Run all nodes until nothing is left to do before a time, which is then the time.

        The first time is that of the start of the nodes: `Node()` returns in one after the other.

        Raises:
            SteppingError: a node does not sleep, or a queue is full.
        """
        if not self._time_ns:
            self._set_time(time_ns)
        await self._run_until(time_ns)
        self._set_time(time_ns)

    async def finish(self) -> None:
        """Run all nodes until they have ended, or have nothing left to do: no replayer sends.

        Raises:
            SteppingError: a node does not sleep, or a queue is full.
        """
        for node in self._state.dataflow.nodes:
            if is_replayer(node):
                await self._wait_for_exit(node.id)
        await self._run_until(self._time_ns + FINISH_NS)

    async def _run_until(self, time_ns: int) -> None:
        while True:
            await self._run_nodes()
            due = min(self._dues(), default=time_ns)
            if due >= time_ns:
                return
            _log.debug("the time is %d: a node is due", due)
            self._set_time(due)

    async def _run_nodes(self) -> None:
        """Run nodes until none has anything to do."""
        turns = 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TURN_TIMEOUT_S
        while True:
            last = []
            for node_id in self._stepped():
                if self._has_work(node_id):
                    await self._run(node_id)
                    last.append(node_id)
            if not last:
                return
            turns += len(last)
            if turns > (LONG_TURNS if loop.time() > deadline else MAX_TURNS):
                raise SteppingError(f"nodes send to each other without an end: {', '.join(last)}")

    def _stepped(self) -> Iterator[str]:
        """Yield the nodes with a process that are held, in the order of the file."""
        for node in self._state.dataflow.nodes:
            if node.id in self._state.connections and not records_or_replays(node):
                yield node.id

    def _set_time(self, time_ns: int) -> None:
        self._time_ns = max(self._time_ns, time_ns)
        for box in self._state.mailboxes.values():
            box.step(self._time_ns, held=not records_or_replays(box.node))

    def _dues(self) -> Iterator[int]:
        for node_id in self._stepped():
            due = self._state.mailboxes[node_id].due
            if due:
                yield due

    def _has_work(self, node_id: str) -> bool:
        box, connection = self._state.mailboxes[node_id], self._state.connections[node_id]
        sent = (connection.accepted, *box.pushed())
        return self._seen.get(node_id) != sent or 0 < box.due <= self._time_ns

    async def _run(self, node_id: str) -> None:
        """Let a node go on until it has nothing left to do, or has ended."""
        state = self._state
        box, connection = state.mailboxes[node_id], state.connections[node_id]
        await self._wait_for_sleep(node_id)  # it may just have called Node()
        if state.connections.get(node_id) is not connection:
            return
        _log.debug("the turn of node %s at %d", node_id, self._time_ns)
        box.step(self._time_ns, held=False)
        fence()
        # Each turn has a packet of its own: the node has read it once the turn has begun.
        connection.send("ping", {})
        self._seen[node_id] = (connection.accepted, *box.pushed())
        await self._wait_for_sleep(node_id)
        box.step(self._time_ns, held=True)
        if state.connections.get(node_id) is not connection:
            await self._wait_for_exit(node_id)
        self._check_queues(node_id)
        await self._wait_for_recorders()

    async def _wait_for_sleep(self, node_id: str) -> None:
        """Wait until a node sleeps and has read all packets, or its connection has ended."""
        state = self._state
        box, connection = state.mailboxes[node_id], state.connections[node_id]
        loop = asyncio.get_running_loop()
        deadline, looks = loop.time() + TURN_TIMEOUT_S, 0
        while state.connections.get(node_id) is connection:
            # In this order: it has read its packets, and sleeps since. What has slept before it has
            # read them may work by now.
            has_read = box.seen == connection.accepted
            if not STRONG_ORDER:
                acquire()
            if has_read and box.asleep:
                break
            self._refuse_waiting(node_id)
            if loop.time() > deadline:
                raise SteppingError(
                    f"node {node_id!r} does not wait for its next event; --step needs it"
                )
            looks += 1
            await asyncio.sleep(0 if looks < SPINS else POLL_S)
        # Twice: what it has sent before it went to sleep is read in the next turn of the loop, and
        # handled in that after it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _wait_for_exit(self, node_id: str) -> None:
        """Wait until the process of a node has exited, so that all others have been notified."""
        state = self._state
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TURN_TIMEOUT_S
        box = state.mailboxes[node_id]
        while not (node_id in state.exited or node_id in state.connections or box.node.is_dynamic):
            if loop.time() > deadline:
                raise SteppingError(
                    f"node {node_id!r} has ended its part in the dataflow, but does not exit"
                )
            await asyncio.sleep(POLL_S)

    async def _wait_for_recorders(self) -> None:
        """Wait until recorders have taken enough for the next messages not to be lost."""
        state = self._state
        for edge in list(state.edges):
            box = state.mailboxes.get(edge.consumer)
            if box is None or not is_recorder(box.node):
                continue
            most = box.rings[edge.ring].plan.queue_size // 2
            while edge.consumer in state.connections and box.backlog(edge.ring) > most:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    def _refuse_waiting(self, node_id: str) -> None:
        """Raise SteppingError if a node waits for room in a queue: no other node runs."""
        for edge in self._state.edges.pushed_by(node_id):
            box = self._state.mailboxes.get(edge.consumer)
            if box is not None and not records_or_replays(box.node) and box.has_waiter(edge.ring):
                raise _full(edge, box)

    def _check_queues(self, node_id: str) -> None:
        """Raise SteppingError if a node has sent more than the next one can have queued."""
        for edge in self._state.edges.pushed_by(node_id):
            box = self._state.mailboxes.get(edge.consumer)
            if box is None or records_or_replays(box.node) or box.node.may_skip(edge.input):
                continue
            full = box.backlog(edge.ring) > box.rings[edge.ring].plan.queue_size
            if full and self._state.receives(edge):
                raise _full(edge, box)


def _full(edge: Edge, box: Mailbox) -> SteppingError:
    size = box.rings[edge.ring].plan.queue_size
    return SteppingError(
        f"the queue of {edge.source}/{edge.output} -> {edge.consumer}/{edge.input} is full: more "
        f"than {size} messages were sent at one time; give this input a larger `queue_size`"
    )
