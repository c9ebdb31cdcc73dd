"""Looking for stragglers while a dataflow runs: measures what the rule needs to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.daemon.stragglers import Remaining

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dorad.daemon.lifecycle import Lifecycle
    from dorad.daemon.ports import Broker
    from dorad.dataflow.model import Dataflow


class IdleWatch:
    """How long each node has been out of work, as seen from one look to the next."""

    def __init__(
        self,
        dataflow: Dataflow,
        life: Lifecycle,
        broker: Broker,
        clock: Callable[[], float],
        default_grace: float | None,
    ) -> None:
        self._life = life
        self._broker = broker
        self._clock = clock
        self._grace = {
            node.id: default_grace if node.finish_grace_secs is None else node.finish_grace_secs
            for node in dataflow.nodes
        }
        self._dynamic = {node.id for node in dataflow.nodes if node.is_dynamic}
        self._seen: dict[str, tuple[tuple[bool, int], float]] = {}
        """Node to what was last seen of its activity, and since when."""

    def look(self, connected: Collection[str]) -> tuple[Remaining, ...]:
        """Return what is known now of every node that still runs.

        A node's idle time counts from the first look at which no node had work of its own.
        """
        life = self._life
        working = {node: self._works(node, connected) for node in life.running}
        now = self._clock()
        if any(working.values()):
            self._seen.clear()
            idle_since = dict.fromkeys(life.running, now)
        else:
            taken = dict.fromkeys(life.running, 0)
            for edge in self._broker.counters():
                if edge.node in taken:
                    taken[edge.node] += edge.received
            idle_since = {node: self._idle_since(node, taken[node], now) for node in life.running}
        return tuple(
            Remaining(
                node,
                self._grace[node],
                working[node],
                idle_since[node],
                node in life.flow.drained,
            )
            for node in sorted(life.running)
        )

    def _works(self, node: str, connected: Collection[str]) -> bool:
        """Whether the node has work that does not come from another node that runs here."""
        flow = self._life.flow
        if node in flow.drained:
            return False
        sources = set(flow.open_inputs.get(node, {}).values())
        return (
            node not in connected
            or node in flow.endless
            or not sources
            or not sources.isdisjoint(self._dynamic)
        )

    def _idle_since(self, node: str, taken: int, now: float) -> float:
        """Return when the node last did something.

        What a node sends once it was told that its inputs are closed does not prolong its life;
        to work through what is still queued does.
        """
        drained = node in self._life.flow.drained
        state = (drained, taken if drained else self._broker.activity(node))
        before = self._seen.get(node)
        if before is None or before[0] != state:
            self._seen[node] = (state, now)
            return now
        return before[1]
