"""The life of a running dataflow as decisions: what is seen goes in, what to do comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.daemon.actions import (
    CloseInput,
    Finish,
    OpenBarrier,
    Poison,
    Stop,
    StopAll,
    StopReason,
    TellFailed,
)
from dorad.daemon.barrier import Barrier, Phase
from dorad.daemon.finish import data_inputs, flow_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.daemon.actions import Action
    from dorad.daemon.exits import Result
    from dorad.dataflow.model import Dataflow


class Lifecycle:
    """Barrier, natural finish and stop of one dataflow; does no I/O and knows no clock.

    Every method is called when something has happened and returns the actions to take, in order.
    """

    def __init__(self, dataflow: Dataflow, *, exit_when_nodes_finish: bool = False) -> None:
        self.cohort = frozenset(node.id for node in dataflow.nodes if not node.is_dynamic)
        self.running = set(self.cohort)
        """Nodes this machine started whose process has not ended."""
        self.barrier = Barrier.of(self.cohort)
        self.flow = flow_of(dataflow, exit_when_nodes_finish=exit_when_nodes_finish)
        self.stopping = False
        self._empty = not dataflow.nodes
        self._feeds: dict[str, dict[str, tuple[str, ...]]] = {}
        for node in dataflow.nodes:
            for name, source in data_inputs(node).items():
                fed = self._feeds.setdefault(source, {})
                fed[node.id] = (*fed.get(node.id, ()), name)

    def begin(self) -> list[Action]:
        """Start: a dataflow of dynamic nodes alone waits for nobody; an empty one ends at once."""
        if self._empty:
            return [OpenBarrier(), Finish()]
        return [OpenBarrier()] if self.barrier.phase is Phase.OPEN else []

    def connected(self, node: str) -> list[Action]:
        """A node called `Node()`."""
        before, self.barrier = self.barrier, self.barrier.connected(node)
        return self._barrier_actions(before)

    def outputs_done(self, node: str) -> list[Action]:
        """A node will send no more, though its process may live on; or a dynamic one left."""
        return list(self._close(node, None))

    def after_exit(self, result: Result) -> list[Action]:
        """The process of a node ended, or could not be started, and nobody will start it again."""
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
        if not self.running:
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

    def _barrier_actions(self, before: Barrier) -> list[Action]:
        after = self.barrier.phase
        if after is before.phase:
            return []
        if after is Phase.OPEN:
            return [OpenBarrier()]
        culprit = self.barrier.culprit
        return [Poison(f"the dataflow cannot start: node {culprit} ended before it called Node()")]

    def _close(self, source: str, error: str | None) -> Iterator[Action]:
        """Close what `source` feeds; a consumer learns of the failure after its inputs closed."""
        self.flow, closings = self.flow.close_source(source)
        if self.stopping:  # every node has its STOP, and nothing follows a STOP
            return
        told = {closing.node: closing for closing in closings}
        for consumer, inputs in self._feeds.get(source, {}).items():
            closing = told.get(consumer)
            for name in closing.inputs if closing else ():
                yield CloseInput(consumer, name)
            listens = consumer in self.flow.open_inputs and (
                closing is not None or consumer not in self.flow.drained
            )
            if error is not None and listens:
                yield TellFailed(consumer, source, error, inputs)
            if closing and closing.drained:
                yield Stop(consumer, StopReason.ALL_INPUTS_CLOSED)
