"""Looking for stragglers while a dataflow runs: measures what the rule needs to know."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.daemon.rules.finish import node_of
from dorad.daemon.rules.stragglers import Remaining, next_look, stragglers

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.daemon.supervisor.shared import Shared

LOOK_S = 1.0
"""Seconds between looks at nodes that may have become stragglers, at most."""

_log = logging.getLogger(__name__)


class IdleWatch:
    """How long each node has been out of work, as seen from one look to the next."""

    def __init__(self, shared: Shared, default_grace: float | None) -> None:
        self._shared = shared
        self._default_grace = default_grace
        self._seen: dict[str, tuple[tuple[bool, int], float]] = {}
        """Node to what was last seen of its activity, and since when."""

    async def run(self, stop: Callable[[], None]) -> None:
        """Stop the dataflow when only stragglers are left."""
        shared, loop = self._shared, asyncio.get_running_loop()
        while not shared.life.stopping:
            remaining = self.look(loop.time())
            found = stragglers(remaining, loop.time())
            for straggler in found:
                shared.notice("warn", straggler.node, f"{straggler.reason}; stopping it")
                reason = f"was stopped by force: {straggler.reason}"
                shared.nodes[straggler.node].forced = reason
            if found:
                _log.debug("only stragglers are left: %s", remaining)
                stop()
                return
            wait = next_look(remaining, loop.time())
            await shared.bell.wait(None if wait is None else min(wait, LOOK_S))

    def look(self, now: float) -> tuple[Remaining, ...]:
        """Return what is known now of every node that still runs.

        A node's idle time counts from the first look at which no node had work of its own.
        """
        life = self._shared.life
        working = {node: self._works(node) for node in life.running}
        if any(working.values()):
            self._seen.clear()
            idle_since = dict.fromkeys(life.running, now)
        else:
            taken = dict.fromkeys(life.running, 0)
            for edge in self._shared.broker.stats.counters():
                if edge.node in taken:
                    taken[edge.node] += edge.received
            idle_since = {node: self._idle_since(node, taken[node], now) for node in life.running}
        return tuple(
            Remaining(
                node,
                self._grace(node),
                working[node],
                idle_since[node],
                life.flow.has_drained(node),
            )
            for node in sorted(life.running)
        )

    def _grace(self, node: str) -> float | None:
        own = self._shared.nodes[node].node.finish_grace_secs
        return self._default_grace if own is None else own

    def _works(self, node: str) -> bool:
        """Whether the node has work that does not come from another node that runs here."""
        life = self._shared.life
        if life.flow.has_drained(node):
            return False
        sources = {node_of(source) for source in life.flow.open_of(node).values()} - {node}
        return (
            not self._shared.nodes[node].connected
            or life.flow.is_endless(node)
            or not sources
            or not sources.isdisjoint(life.dynamic)
        )

    def _idle_since(self, node: str, taken: int, now: float) -> float:
        """Return when the node last did something.

        What a node sends once it was told that its inputs are closed does not prolong its life;
        to work through what is still queued does.
        """
        drained = self._shared.life.flow.has_drained(node)
        state = (drained, taken if drained else self._shared.broker.stats.activity(node))
        before = self._seen.get(node)
        if before is None or before[0] != state:
            self._seen[node] = (state, now)
            return now
        return before[1]
