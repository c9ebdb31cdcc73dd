"""The lifecycle of a running dataflow: from events to the actions to take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.daemon.rules.actions import (
    AbortStart,
    CloseInput,
    Finish,
    OpenBarrier,
    SendNodeFailed,
    SendNodeRestarted,
    Stop,
    StopAll,
    StopReason,
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
    """Start, natural finish, changes and stop of one dataflow, as pure decisions.

    Each method is called after an event of the dataflow and returns the actions to take, in order.
    """

    def __init__(self, dataflow: Dataflow, *, exit_when_nodes_finish: bool = False) -> None:
        self.dataflow = dataflow
        self.dynamic = frozenset(node.id for node in dataflow.nodes if node.is_dynamic)
        self.running = {node.id for node in dataflow.nodes if not node.is_dynamic}
        """Nodes that the daemon starts and that have not ended permanently."""
        self.barrier = Barrier.of(self.running)
        self.flow = flow_of(dataflow, exit_when_nodes_finish=exit_when_nodes_finish)
        self.stopping = False
        self._exit_when_nodes_finish = exit_when_nodes_finish
        self._feeds = feeds_of(dataflow)

    def snapshot(self) -> dict[str, Any]:
        """Return the state that does not follow from the dataflow, as JSON-able values."""
        return {
            "running": sorted(self.running),
            "barrier": self.barrier.to_json(),
            "flow": self.flow.to_json(),
            "stopping": self.stopping,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Restore the state that `snapshot` returned.

        A node that was being added or removed at that moment is in only one of snapshot and
        dataflow; it does not count as running.
        """
        self.running &= set(snapshot["running"])
        self.barrier = Barrier.from_json(snapshot["barrier"])
        self.flow = Flow.from_json(snapshot["flow"])
        self.stopping = snapshot["stopping"]

    def begin(self) -> list[Action]:
        """Start: without nodes the dataflow ends at once, and dynamic nodes alone do not wait."""
        if not self.dataflow.nodes:
            return [OpenBarrier(), Finish()]
        return [OpenBarrier()] if self.barrier.phase is Phase.OPEN else []

    def connected(self, node: str) -> list[Action]:
        """Handle that a node has called `Node()`."""
        before, self.barrier = self.barrier, self.barrier.connected(node)
        return self._barrier_actions(before)

    def outputs_done(self, node: str) -> list[Action]:
        """Handle that a node sends no more: it dropped its `Node`, or is dynamic and has left."""
        return list(self._close(node, None))

    def operator_ended(self, node: str, operator: str) -> list[Action]:
        """Handle that an operator has ended while others of its node run on."""
        unit = f"{node}/{operator}"
        flow, closings = self.flow.close_source(unit)
        self.flow = flow.operator_ended(unit)
        return [] if self.stopping else list(_closed(closings))

    def may_restart(self, node: str) -> bool:
        """Return True if the node may be restarted.

        It may not if the dataflow is stopping, its start was aborted, or all inputs of the node
        have closed. A node that never had inputs is a source and may restart.
        """
        aborted = self.barrier.phase is Phase.ABORTED
        return not self.stopping and not aborted and not self.flow.has_drained(node)

    def after_run(self, node: str) -> list[Action]:
        """Handle that the process of a node has exited, and that the node restarts."""
        self.flow = self.flow.restarted(node)
        if self.stopping:
            return []
        return [
            SendNodeRestarted(consumer, node)
            for consumer, units in self._feeds.get(node, {}).items()
            if consumer != node and any(map(self._receives, units))
        ]

    def after_exit(self, result: Result, *, removed: bool = False) -> list[Action]:
        """Handle that a node has ended permanently: its process exited or could not be started.

        The dataflow ends with its last node, unless that one was `removed`.
        """
        node = result.node
        self.running.discard(node)
        self.flow = self.flow.without(node)
        before, self.barrier = self.barrier, self.barrier.ended(node)
        actions = self._barrier_actions(before)
        if self.barrier.phase is Phase.ABORTED:
            if self.barrier is not before and not result.ok:
                actions += self.stop()
        else:
            actions += self._close(node, None if result.ok else result.reason)
        if not self.running and (self.stopping or not removed):
            actions.append(Finish())
        return actions

    def stop(self) -> list[Action]:
        """Stop the dataflow: every node gets STOP, and none is restarted."""
        if self.stopping:
            return []
        self.stopping = True
        before, self.barrier = self.barrier, self.barrier.forced_open()
        actions: list[Action] = [StopAll(), *self._barrier_actions(before)]
        if not self.running:
            actions.append(Finish())
        return actions

    def changed(self, dataflow: Dataflow) -> list[Action]:
        """Handle that nodes or edges were added or removed; removed nodes have ended."""
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

    def _receives(self, unit: str) -> bool:
        """Return True if a unit has not ended and may still receive a message."""
        return unit in self.flow.open_inputs and unit not in self.flow.drained

    def _close(self, source: str, error: str | None) -> Iterator[Action]:
        """Close the inputs that a node feeds; NODE_FAILED follows the closed inputs."""
        node = next((each for each in self.dataflow.nodes if each.id == source), None)
        found: list[Closing] = []
        parts = () if node is None else units_of(node)
        for unit in dict.fromkeys((*parts, source)):
            self.flow, closings = self.flow.close_source(unit)
            found += closings
        if self.stopping:  # every node has got STOP, which is the last event of a node
            return
        by_unit = merged(found)
        for consumer, units in self._feeds.get(source, {}).items():
            closings = tuple(by_unit[unit] for unit in units if unit in by_unit)
            for closing in closings:
                yield from (CloseInput(consumer, name) for name in closing.inputs)
            fed = [unit for unit in units if unit in by_unit or self._receives(unit)]
            if error is not None and any(unit in self.flow.open_inputs for unit in fed):
                inputs = tuple(name for unit in fed for name in units[unit])
                yield SendNodeFailed(consumer, source, error, inputs)
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
