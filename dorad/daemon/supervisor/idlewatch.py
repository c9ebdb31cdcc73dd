"""Measures how long nodes have been idle, for the straggler rule, while a dataflow runs."""

import asyncio
import logging
from collections.abc import Callable

from dorad.daemon.rules.finish import node_of
from dorad.daemon.rules.stragglers import Remaining, next_check, stragglers
from dorad.daemon.supervisor.state import SupervisorState
from dorad.dataflow.model import LINK

CHECK_S = 1.0
"""Maximum seconds between two checks of nodes that may have become stragglers."""

_log = logging.getLogger(__name__)


class IdleWatch:
    """Stops a dataflow when only stragglers are left."""

    def __init__(self, state: SupervisorState, default_grace: float | None) -> None:
        """`default_grace` counts for nodes without `finish_grace_secs`; None: never stop them."""
        self._state = state
        self._default_grace = default_grace
        self._seen: dict[str, tuple[tuple[bool, int], float]] = {}
        """Node to its last activity and when that was first seen."""

    async def run(self, stop: Callable[[], None]) -> None:
        """Check until only stragglers are left; then call `stop` and return."""
        state, loop = self._state, asyncio.get_running_loop()
        while not state.lifecycle.stopping:
            remaining = self.measure(loop.time())
            idle = stragglers(remaining, loop.time())
            for straggler in idle:
                state.listener.report("warn", straggler.node, f"{straggler.reason}; stopping it")
                reason = f"was stopped by force: {straggler.reason}"
                state.nodes[straggler.node].forced_reason = reason
            if idle:
                _log.debug("only stragglers are left: %s", remaining)
                stop()
                return
            wait = next_check(remaining, loop.time())
            await state.bell.wait(None if wait is None else min(wait, CHECK_S))

    def measure(self, now: float) -> tuple[Remaining, ...]:
        """Return the facts that the straggler rule needs about every running node.

        The idle time of a node counts from the first check at which no node had its own work.
        """
        lifecycle = self._state.lifecycle
        running = lifecycle.running - {LINK}
        working = {node: self._has_own_work(node) for node in running}
        if any(working.values()):
            self._seen.clear()
            idle_since = dict.fromkeys(running, now)
        else:
            received = dict.fromkeys(running, 0)
            for edge in self._state.broker.stats.counters():
                if edge.node in received:
                    received[edge.node] += edge.received
            idle_since = {node: self._idle_since(node, received[node], now) for node in running}
        return tuple(
            Remaining(
                node,
                self._grace(node),
                working[node],
                idle_since[node],
                lifecycle.flow.has_drained(node),
            )
            for node in sorted(running)
        )

    def _grace(self, node: str) -> float | None:
        own = self._state.nodes[node].node.finish_grace_secs
        return self._default_grace if own is None else own

    def _has_own_work(self, node: str) -> bool:
        """Return True if some of the node's work does not come from other nodes that run here."""
        lifecycle = self._state.lifecycle
        if lifecycle.flow.has_drained(node):
            return False
        sources = {node_of(source) for source in lifecycle.flow.open_of(node).values()} - {node}
        return (
            not self._state.nodes[node].connected
            or lifecycle.flow.is_endless(node)
            or not sources
            or not sources.isdisjoint(lifecycle.dynamic | {LINK})
        )

    def _idle_since(self, node: str, received: int, now: float) -> float:
        """Return when the node was last active.

        Once all inputs of a node have closed, only the messages that it takes count as activity,
        not those that it sends: it may finish its queue, but not run forever.
        """
        drained = self._state.lifecycle.flow.has_drained(node)
        activity = (drained, received if drained else self._state.broker.stats.activity(node))
        before = self._seen.get(node)
        if before is None or before[0] != activity:
            self._seen[node] = (activity, now)
            return now
        return before[1]
