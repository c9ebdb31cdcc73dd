"""The life of a running dataflow as decisions: what is seen goes in, what to do comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.daemon.rules.actions import (
    AbortStart,
    CloseInput,
    Finish,
    OpenBarrier,
    Stop,
    StopAll,
    StopReason,
    TellFailed,
    TellRestarted,
)
from dorad.daemon.rules.barrier import Barrier, Phase
from dorad.daemon.rules.finish import Flow, feeds_of, flow_of, merged, node_of, units_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.daemon.rules.actions import Action
    from dorad.daemon.rules.exits import Result
    from dorad.daemon.rules.finish import Closing
    from dorad.dataflow.model import Dataflow


class Lifecycle:
    """Barrier, natural finish, changes and stop of one dataflow; no I/O, no clock.

    Every method is called when something has happened and returns the actions to take, in order.
    """

    def __init__(self, dataflow: Dataflow, *, exit_when_nodes_finish: bool = False) -> None:
        self.dataflow = dataflow
        self.dynamic = frozenset(node.id for node in dataflow.nodes if node.is_dynamic)
        self.running = {node.id for node in dataflow.nodes if not node.is_dynamic}
        """Nodes this machine started that have not ended for good."""
        self.barrier = Barrier.of(self.running)
        self.flow = flow_of(dataflow, exit_when_nodes_finish=exit_when_nodes_finish)
        self.stopping = False
        self._exit_when_nodes_finish = exit_when_nodes_finish
        self._feeds = feeds_of(dataflow)

    def snapshot(self) -> dict[str, Any]:
        """Return all that is not in the dataflow, as JSON-able values."""
        return {
            "running": sorted(self.running),
            "barrier": self.barrier.to_json(),
            "flow": self.flow.to_json(),
            "stopping": self.stopping,
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Become as the one was that `snapshot` was called on.

        A node that was just being added or removed then, so that it is in the snapshot or in the
        dataflow but not in both, is left out.
        """
        self.running &= set(kept["running"])
        self.barrier = Barrier.from_json(kept["barrier"])
        self.flow = Flow.from_json(kept["flow"])
        self.stopping = kept["stopping"]

    def begin(self) -> list[Action]:
        """Start: a dataflow of dynamic nodes alone waits for nobody; an empty one ends at once."""
        if not self.dataflow.nodes:
            return [OpenBarrier(), Finish()]
        return [OpenBarrier()] if self.barrier.phase is Phase.OPEN else []

    def connected(self, node: str) -> list[Action]:
        """A node called `Node()`."""
        before, self.barrier = self.barrier, self.barrier.connected(node)
        return self._barrier_actions(before)

    def outputs_done(self, node: str) -> list[Action]:
        """A node will send no more, though its process may live on; or a dynamic one left."""
        return list(self._close(node, None))

    def operator_ended(self, node: str, operator: str) -> list[Action]:
        """One operator of a node will send no more, while others go on."""
        unit = f"{node}/{operator}"
        flow, closings = self.flow.close_source(unit)
        self.flow = flow.operator_ended(unit)
        return [] if self.stopping else list(_closed(closings))

    def may_restart(self, node: str) -> bool:
        """Whether a process of the node may follow on one that ended.

        Not when the dataflow is to end, nor when nothing can arrive at the node any more. A node
        that has no inputs at all is a source, and may.
        """
        failed = self.barrier.phase is Phase.POISONED
        return not self.stopping and not failed and not self.flow.has_drained(node)

    def after_run(self, node: str) -> list[Action]:
        """The process of a node ended, and another one will take its place."""
        self.flow = self.flow.restarted(node)
        if self.stopping:
            return []
        return [
            TellRestarted(consumer, node)
            for consumer, units in self._feeds.get(node, {}).items()
            if consumer != node and any(map(self._listens, units))
        ]

    def after_exit(self, result: Result, *, removed: bool = False) -> list[Action]:
        """The process of a node ended, or could not be started, and nobody will start it again.

        The dataflow ends with its last node, unless that one was `removed` from it.
        """
        node = result.node
        self.running.discard(node)
        self.flow = self.flow.without(node)
        before, self.barrier = self.barrier, self.barrier.ended(node)
        actions = self._barrier_actions(before)
        if self.barrier.phase is Phase.POISONED:
            if self.barrier is not before and not result.ok:
                actions += self.stop()
        else:
            actions += self._close(node, None if result.ok else result.reason)
        if not self.running and (self.stopping or not removed):
            actions.append(Finish())
        return actions

    def stop(self) -> list[Action]:
        """Somebody wants the dataflow to end: every node is asked to, from now on none restarts."""
        if self.stopping:
            return []
        self.stopping = True
        before, self.barrier = self.barrier, self.barrier.forced()
        actions: list[Action] = [StopAll(), *self._barrier_actions(before)]
        if not self.running:
            actions.append(Finish())
        return actions

    def changed(self, dataflow: Dataflow) -> list[Action]:
        """Nodes or edges were added or taken away; nodes that are taken away have ended."""
        before = self.dataflow
        known = {node.id for node in before.nodes}
        self.running |= {
            node.id for node in dataflow.nodes if node.id not in known and not node.is_dynamic
        }
        self.dataflow = dataflow
        self.dynamic = frozenset(node.id for node in dataflow.nodes if node.is_dynamic)
        self._feeds = feeds_of(dataflow)
        self.flow, closings = self.flow.rewired(
            before,
            dataflow,
            self.running | self.dynamic,
            exit_when_nodes_finish=self._exit_when_nodes_finish,
        )
        return [] if self.stopping else list(_closed(closings))

    def _barrier_actions(self, before: Barrier) -> list[Action]:
        after = self.barrier.phase
        if after is before.phase:
            return []
        if after is Phase.OPEN:
            return [OpenBarrier()]
        root_cause = self.barrier.root_cause
        return [
            AbortStart(
                f"the dataflow cannot start: node {root_cause} ended before it called Node()"
            )
        ]

    def _listens(self, unit: str) -> bool:
        """Whether a unit lives, as far as is known, and may still receive something."""
        return unit in self.flow.open_inputs and unit not in self.flow.drained

    def _close(self, source: str, error: str | None) -> Iterator[Action]:
        """Close what a node feeds; a consumer learns of the failure after its inputs closed."""
        node = next((each for each in self.dataflow.nodes if each.id == source), None)
        found: list[Closing] = []
        parts = () if node is None else units_of(node)
        for unit in dict.fromkeys((*parts, source)):
            self.flow, closings = self.flow.close_source(unit)
            found += closings
        if self.stopping:  # every node has its STOP, and nothing follows a STOP
            return
        told = merged(found)
        for consumer, units in self._feeds.get(source, {}).items():
            closings = tuple(told[unit] for unit in units if unit in told)
            for closing in closings:
                yield from (CloseInput(consumer, name) for name in closing.inputs)
            fed = [unit for unit in units if unit in told or self._listens(unit)]
            if error is not None and any(unit in self.flow.open_inputs for unit in fed):
                inputs = tuple(name for unit in fed for name in units[unit])
                yield TellFailed(consumer, source, error, inputs)
            yield from _drained(closings)


def _closed(closings: Sequence[Closing]) -> Iterator[Action]:
    for closing in closings:
        yield from (CloseInput(node_of(closing.unit), name) for name in closing.inputs)
        yield from _drained((closing,))


def _drained(closings: Sequence[Closing]) -> Iterator[Action]:
    for closing in closings:
        if closing.drained:
            node, _, operator = closing.unit.partition("/")
            yield Stop(node, StopReason.ALL_INPUTS_CLOSED, operator or None)
