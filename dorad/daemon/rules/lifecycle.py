"""The lifecycle of a running dataflow: from events to the actions to take."""

from collections.abc import Iterator, Sequence
from typing import Any

from dorad.daemon.rules.actions import (
    AbortStart,
    Action,
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
from dorad.daemon.rules.exits import Result
from dorad.daemon.rules.finish import (
    Closing,
    Flow,
    data_inputs,
    feeds_of,
    flow_of,
    merged,
    node_of,
    units_of,
)
from dorad.daemon.rules.report import failure_text
from dorad.dataflow.model import LINK, Dataflow


class Lifecycle:
    """Start, natural finish, changes and stop of one dataflow, as pure decisions.

    Each method is called after an event of the dataflow and returns the actions to take, in order.
    """

    def __init__(
        self, dataflow: Dataflow, *, exit_when_nodes_finish: bool = False, held: bool = False
    ) -> None:
        """With `held` the start barrier opens only after `release`."""
        self.dataflow = dataflow
        self.dynamic = frozenset(node.id for node in dataflow.nodes if node.is_dynamic)
        self.running = {node.id for node in dataflow.nodes if not node.is_dynamic}
        """Nodes that the daemon starts and that have not ended permanently."""
        self.barrier = Barrier.of(self.running, held=held)
        self.flow = flow_of(dataflow, exit_when_nodes_finish=exit_when_nodes_finish)
        self.stopping = False
        self.link_ends = False
        """Whether the link was asked to end because all other nodes have."""
        self._failures: dict[str, str] = {}
        """Why outputs of other machines have failed that have not closed yet."""
        self._exit_when_nodes_finish = exit_when_nodes_finish
        self._feeds = feeds_of(dataflow)

    def snapshot(self) -> dict[str, Any]:
        """Return the state that does not follow from the dataflow, as JSON-able values."""
        return {
            "running": sorted(self.running),
            "barrier": self.barrier.to_json(),
            "flow": self.flow.to_json(),
            "stopping": self.stopping,
            "link_ends": self.link_ends,
            "failures": dict(self._failures),
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
        self.link_ends = snapshot.get("link_ends", False)
        self._failures = dict(snapshot.get("failures", {}))

    def begin(self) -> list[Action]:
        """Start: without nodes the dataflow ends at once, and dynamic nodes alone do not wait."""
        if not self.dataflow.nodes:
            return [OpenBarrier(), Finish()]
        return [OpenBarrier()] if self.barrier.phase is Phase.OPEN else []

    def release(self) -> list[Action]:
        """Handle that a held start barrier may open."""
        before, self.barrier = self.barrier, self.barrier.released()
        return self._barrier_actions(before)

    def expire(self, reason: str) -> list[Action]:
        """Handle that the start barrier was held for too long: the start fails."""
        before, self.barrier = self.barrier, self.barrier.expired()
        if self.barrier is before:
            return []
        return [AbortStart(reason), *self.stop()]

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
        if node == LINK and self.link_ends:
            return False
        return not self.stopping and not aborted and not self.flow.has_drained(node)

    def awaits(self, node: str) -> bool:
        """Return True if the start needs, or needed, a call of `Node()` that has not come.

        A program without inputs and outputs need not call it, unless other nodes wait for that.
        """
        if node == LINK or node not in self.barrier.pending:
            return False
        spec = self.dataflow.node(node)
        text = {spec.logging.send_stdout_as, spec.logging.send_logs_as}
        return bool(self.barrier.waiting or spec.all_inputs or set(spec.all_outputs) - text)

    @property
    def awaited(self) -> list[str]:
        """The nodes whose call of `Node()` the start waits for; none once it is over or stopped."""
        if self.barrier.phase is not Phase.WAITING:
            return []
        return [node for node in self.barrier.pending if self.awaits(node)]

    def was_stopped_early(self, node: str) -> bool:
        """Return True if the dataflow was stopped before a node that the start needed called it."""
        return self.stopping and self.barrier.phase is Phase.OPEN and self.awaits(node)

    def foreign_closed(self, output: str) -> list[Action]:
        """Handle that the source of an output of another machine, `node/output`, has ended."""
        unit = f"{LINK}/{output}"
        error = self._failures.pop(unit, None)
        flow, closings = self.flow.close_source(unit)
        self.flow = flow.operator_ended(unit)
        if self.stopping:
            return []
        return list(self._tell_closed(unit, node_of(output), error, closings))

    def foreign_failed(self, output: str, error: str) -> list[Action]:
        """Handle that the source of an output of another machine has failed.

        As on one machine, nodes get NODE_FAILED after their inputs have closed.
        """
        unit = f"{LINK}/{output}"
        if unit not in self.flow.ended:
            self._failures[unit] = error
            return []
        if self.stopping:
            return []
        return list(self._tell_closed(unit, node_of(output), error, ()))

    def foreign_restarted(self, output: str) -> list[Action]:
        """Handle that the source of an output of another machine restarts.

        If it had ended, what the output feeds is open again. Of several outputs of one node, the
        first notifies its consumer.
        """
        source, unit = node_of(output), f"{LINK}/{output}"
        self._failures.pop(unit, None)
        self.flow = self.flow.reopened(unit, self.dataflow)
        if self.stopping:
            return []
        siblings = sorted(each for each in self._feeds if each.startswith(f"{LINK}/{source}/"))
        first: dict[str, str] = {}
        for each in siblings:
            for consumer, units in self._feeds[each].items():
                if any(map(self._receives, units)):
                    first.setdefault(consumer, each)
        return [SendNodeRestarted(node, source) for node, each in first.items() if each == unit]

    def after_run(self, node: str) -> list[Action]:
        """Handle that the process of a node has exited, and that the node restarts."""
        if node == LINK:
            return []  # the nodes behind it have not restarted
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

        The dataflow ends with its last node, unless that one was `removed`. Before that, the link
        sends what it has.
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
            actions += self._close(node, None if result.ok else failure_text(result))
        if self.stopping or not removed:
            actions += self._finish()
        return actions

    def _finish(self) -> list[Action]:
        if not self.running:
            return [Finish()]
        if self.running == {LINK} and not self.stopping and not self.link_ends:
            self.link_ends = True
            return [Stop(LINK, StopReason.ALL_INPUTS_CLOSED)]
        return []

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

    def may_start_again(self, node: str) -> bool:
        """Return True if an ended node would receive something, or no other node feeds it."""
        units = units_of(self.dataflow.node(node))
        inputs = data_inputs(self.dataflow)
        sources = {source for unit in units for source in inputs[unit].values()}
        sources = {source for source in sources if node_of(source) != node}
        endless = any(unit in self.flow.endless for unit in units)
        alive = self.running | self.dynamic
        return endless or not sources or any(self.flow.sends(each, alive) for each in sources)

    def started_again(self, node: str) -> list[Action]:
        """Handle that a node that had ended gets a process: as if it and its edges were new."""
        self.running.add(node)
        alive = self.running | self.dynamic
        self.flow, closings = self.flow.started_again(node, self.dataflow, alive)
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
        by_feeder: list[tuple[str, tuple[Closing, ...]]] = []
        parts = () if node is None else units_of(node)
        for unit in dict.fromkeys((*parts, source)):
            self.flow, closings = self.flow.close_source(unit)
            by_feeder.append((unit, closings))
        if self.stopping:  # every node has received STOP, which is the last event of a node
            yield from self._tell_recorders(
                [each for _, closings in by_feeder for each in closings]
            )
        elif source == LINK:  # each output that it receives is a feeder of its own
            for unit, closings in by_feeder:
                yield from self._tell_closed(unit, source, error, closings)
        else:
            closed = [each for _, closings in by_feeder for each in closings]
            yield from self._tell_closed(source, source, error, closed)

    def _tell_recorders(self, closings: Sequence[Closing]) -> Iterator[Action]:
        """Close inputs of recorders, which continue after STOP until all other nodes have ended."""
        recorders = {node.id for node in self.dataflow.nodes if node.is_recorder}
        for closing in merged(closings).values():
            if node_of(closing.unit) in recorders:
                yield from (CloseInput(node_of(closing.unit), name) for name in closing.inputs)

    def _tell_closed(
        self, feeder: str, source: str, error: str | None, ended: Sequence[Closing]
    ) -> Iterator[Action]:
        """Close inputs that a feeder, a key of `_feeds`, fed with the messages of `source`."""
        by_unit = merged(ended)
        for consumer, units in self._feeds.get(feeder, {}).items():
            closings = tuple(by_unit[unit] for unit in units if unit in by_unit)
            closes = [CloseInput(consumer, name) for each in closings for name in each.inputs]
            fails: list[Action] = []
            fed = [unit for unit in units if unit in by_unit or self._receives(unit)]
            if error is not None and any(unit in self.flow.open_inputs for unit in fed):
                inputs = tuple(name for unit in fed for name in units[unit])
                fails.append(SendNodeFailed(consumer, source, error, inputs))
            # The other machine must know of the failure when it closes the inputs there.
            yield from (*fails, *closes) if consumer == LINK else (*closes, *fails)
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
