"""The natural finish: which inputs close when a source ends, and who is then out of work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dorad.dataflow.model import NodeOutput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dorad.dataflow.model import Dataflow, Node


@dataclass(frozen=True, slots=True)
class Closing:
    """What the end of one source means for one of its consumers."""

    node: str
    inputs: tuple[str, ...]
    drained: bool
    """Nothing can arrive at this node any more: it is told ALL_INPUTS_CLOSED."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The data inputs that are still open, by consumer."""

    open_inputs: Mapping[str, Mapping[str, str]]
    """Consumer to input id to source node. A consumer that ended is left out."""
    endless: frozenset[str]
    """Nodes that a timer or the log stream keeps busy whatever happens to their data inputs."""
    drained: frozenset[str] = frozenset()
    """Nodes that were told ALL_INPUTS_CLOSED."""

    def close_source(self, source: str) -> tuple[Flow, tuple[Closing, ...]]:
        """Close whatever `source` feeds, for good; returns what it means for each consumer."""
        closings = []
        still_open: dict[str, Mapping[str, str]] = {}
        for consumer, inputs in self.open_inputs.items():
            closed = tuple(name for name, origin in inputs.items() if origin == source)
            left = {name: origin for name, origin in inputs.items() if origin != source}
            still_open[consumer] = MappingProxyType(left)
            if closed:
                drained = not left and consumer not in self.endless
                closings.append(Closing(consumer, closed, drained))
        drained_now = {closing.node for closing in closings if closing.drained}
        after = replace(self, open_inputs=still_open, drained=self.drained | drained_now)
        return after, tuple(closings)

    def without(self, consumer: str) -> Flow:
        """Return the flow after `consumer` ended: nothing needs to be closed for it any more."""
        rest = {node: inputs for node, inputs in self.open_inputs.items() if node != consumer}
        return replace(self, open_inputs=rest)

    def rewired(
        self,
        before: Dataflow,
        after: Dataflow,
        alive: Collection[str],
        *,
        exit_when_nodes_finish: bool,
    ) -> tuple[Flow, tuple[Closing, ...]]:
        """Return the flow after nodes or edges were added or taken away.

        An input that stays as it was is as open as it was. A new one is open if its source is
        among the nodes that are `alive`; the others are closed at once, which is what the second
        value says. To take an edge away closes nothing and drains nobody: the next may follow.
        """
        known = {node.id: data_inputs(node) for node in before.nodes}
        still_open: dict[str, Mapping[str, str]] = {}
        closings = []
        for node in after.nodes:
            if node.id in known and node.id not in self.open_inputs:
                continue  # it has ended
            old, opened = known.get(node.id, {}), self.open_inputs.get(node.id, {})
            inputs = data_inputs(node)
            added = {name: source for name, source in inputs.items() if old.get(name) != source}
            kept = {name: source for name, source in inputs.items() if opened.get(name) == source}
            live = {name: source for name, source in added.items() if source in alive}
            still_open[node.id] = MappingProxyType(kept | live)
            if dead := tuple(name for name in added if name not in live):
                closings.append(Closing(node.id, dead, drained=False))
        endless = flow_of(after, exit_when_nodes_finish=exit_when_nodes_finish).endless
        drained = {
            closing.node
            for closing in closings
            if not still_open[closing.node]
            and closing.node not in endless
            and closing.node not in self.drained
        }
        flow = Flow(still_open, endless, (self.drained & still_open.keys()) | drained)
        return flow, tuple(replace(each, drained=each.node in drained) for each in closings)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "open_inputs": {node: dict(inputs) for node, inputs in self.open_inputs.items()},
            "endless": sorted(self.endless),
            "drained": sorted(self.drained),
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Flow:
        """Return what `to_json` was made of."""
        inputs = {node: MappingProxyType(dict(each)) for node, each in kept["open_inputs"].items()}
        return cls(inputs, frozenset(kept["endless"]), frozenset(kept["drained"]))


def flow_of(dataflow: Dataflow, *, exit_when_nodes_finish: bool) -> Flow:
    """Return the flow of a dataflow that has just started.

    Timers and the log stream never close. With `exit_when_nodes_finish` they do not count for a
    node that has a data input as well; a node that has no other inputs is a source.
    """
    open_inputs = {node.id: MappingProxyType(data_inputs(node)) for node in dataflow.nodes}
    endless = {
        node.id
        for node in dataflow.nodes
        if len(open_inputs[node.id]) < len(node.all_inputs)
        and not (exit_when_nodes_finish and open_inputs[node.id])
    }
    return Flow(open_inputs, frozenset(endless))


def data_inputs(node: Node) -> dict[str, str]:
    """Return the inputs of `node` that other nodes feed: input id to source node."""
    return {
        entry.id: entry.source.node
        for entry in node.all_inputs
        if isinstance(entry.source, NodeOutput)
    }


def feeds_of(dataflow: Dataflow) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return whom each node feeds: source to consumer to the consumer's inputs."""
    feeds: dict[str, dict[str, tuple[str, ...]]] = {}
    for node in dataflow.nodes:
        for name, source in data_inputs(node).items():
            fed = feeds.setdefault(source, {})
            fed[node.id] = (*fed.get(node.id, ()), name)
    return feeds
