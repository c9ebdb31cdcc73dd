"""The natural finish: which inputs close when a source ends, and which nodes end after that.

The rules work on units. A unit is a node, or one operator of a node: `node/operator`. What the link
receives from other machines are units too, one for each output: `LINK/node/output`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from dorad.daemon.rules.routing import printed_outputs
from dorad.dataflow.model import LINK, Dataflow, Input, NodeOutput, NodeSpec


class Closing(Struct, frozen=True):
    """The effect of a source's end on one of its consumers."""

    unit: str
    inputs: tuple[str, ...]
    drained: bool
    """All inputs of the unit have closed: it gets STOP with ALL_INPUTS_CLOSED."""


class Flow(Struct, frozen=True):
    """The open data inputs of a dataflow, by consumer."""

    open_inputs: Mapping[str, Mapping[str, str]]
    """Consumer to input id to source, all units. Consumers that have ended are missing."""
    endless: frozenset[str]
    """Units with a timer or a log input, which never closes."""
    drained: frozenset[str] = frozenset()
    """Units that got STOP with ALL_INPUTS_CLOSED."""
    ended: frozenset[str] = frozenset()
    """Operators, and outputs of other machines, that have ended while their node runs on."""
    _units: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Node to its units in `open_inputs`; derived from it."""

    def __post_init__(self) -> None:
        units: dict[str, tuple[str, ...]] = {}
        for unit in self.open_inputs:
            node = node_of(unit)
            units[node] = (*units.get(node, ()), unit)
        force_setattr(self, "_units", units)

    def close_source(self, source: str) -> tuple[Flow, tuple[Closing, ...]]:
        """Close all inputs that a unit feeds; return the flow and the effect on consumers."""
        closings = []
        still_open: dict[str, Mapping[str, str]] = {}
        for consumer, inputs in self.open_inputs.items():
            closed = tuple(name for name, origin in inputs.items() if origin == source)
            left = {name: origin for name, origin in inputs.items() if origin != source}
            still_open[consumer] = MappingProxyType(left)
            if closed:
                drained = not left and consumer not in self.endless
                closings.append(Closing(consumer, closed, drained))
        drained_now = {closing.unit for closing in closings if closing.drained}
        after = replace(self, open_inputs=still_open, drained=self.drained | drained_now)
        return after, tuple(closings)

    def without(self, consumer: str) -> Flow:
        """Return the flow after a node has ended: its inputs no longer need to be closed."""
        rest = {
            unit: inputs for unit, inputs in self.open_inputs.items() if node_of(unit) != consumer
        }
        return replace(self, open_inputs=rest)

    def operator_ended(self, unit: str) -> Flow:
        """Return the flow after an operator has ended while its node runs on."""
        return replace(self, ended=self.ended | {unit})

    def restarted(self, node: str) -> Flow:
        """Return the flow after a node got another process, which runs all its operators."""
        return replace(self, ended=frozenset(u for u in self.ended if node_of(u) != node))

    def has_drained(self, node: str) -> bool:
        """Return True if all inputs of the node have closed, for each of its operators."""
        units = set(self._units.get(node, ()))
        return node in self.drained or (bool(units) and units <= self.drained | self.ended)

    def has_ended_elsewhere(self, output: str) -> bool:
        """Return True if an output of another machine, `node/output`, sends no more."""
        return f"{LINK}/{output}" in self.ended

    def sends(self, source: str, alive: Collection[str]) -> bool:
        """Return True if a unit may still send: its node is `alive`, and it has not ended."""
        return node_of(source) in alive and source not in self.ended

    def is_endless(self, node: str) -> bool:
        """Return True if a part of the node that still runs has a timer or a log input."""
        return node in self.endless or any(
            unit in self.endless and unit not in self.ended for unit in self._units.get(node, ())
        )

    def open_of(self, node: str) -> dict[str, str]:
        """Return the open data inputs of a node and its operators: input id to source."""
        return {
            name: source
            for unit in self._units.get(node, ())
            for name, source in self.open_inputs[unit].items()
        }

    def rewired(
        self,
        before: Dataflow,
        after: Dataflow,
        alive: Collection[str],
        *,
        exit_when_nodes_finish: bool,
    ) -> tuple[Flow, tuple[Closing, ...]]:
        """Return the flow after nodes or edges were added or removed, and the inputs to close.

        An input that both dataflows have keeps its state. A new input is open if its source is one
        of the nodes that are `alive`, and closes at once otherwise. Removing an edge closes no
        input and stops no node, since another edge may follow.
        """
        known = data_inputs(before)
        still_open: dict[str, Mapping[str, str]] = {}
        closings = []
        for unit, inputs in data_inputs(after).items():
            if unit in known and unit not in self.open_inputs:
                continue  # the unit has ended
            old, opened = known.get(unit, {}), self.open_inputs.get(unit, {})
            added = {name: source for name, source in inputs.items() if old.get(name) != source}
            kept = {name: source for name, source in inputs.items() if opened.get(name) == source}
            fed = {name: source for name, source in added.items() if self.sends(source, alive)}
            still_open[unit] = MappingProxyType(kept | fed)
            if unfed := tuple(name for name in added if name not in fed):
                closings.append((unit, unfed))
        endless = flow_of(after, exit_when_nodes_finish=exit_when_nodes_finish).endless
        drained = {
            unit
            for unit, _ in closings
            if not still_open[unit] and unit not in endless and unit not in self.drained
        }
        # Of units that have ended, too: why they did so does not change with other edges.
        before_drained = self.drained & {*still_open, *(known.keys() & data_inputs(after).keys())}
        ended = frozenset(u for u in self.ended if u in still_open or node_of(u) == LINK)
        flow = Flow(still_open, endless, before_drained | drained, ended)
        return flow, tuple(
            Closing(unit, unfed, drained=unit in drained) for unit, unfed in closings
        )

    def started_again(
        self, node: str, dataflow: Dataflow, alive: Collection[str]
    ) -> tuple[Flow, tuple[Closing, ...]]:
        """Return the flow after a node that had ended got a process, and its inputs to close.

        What it feeds is open again. Its own inputs are open if their sources are `alive`, and close
        at once otherwise.
        """
        before = self.restarted(node)
        still_open = dict(self.open_inputs)
        drained = {unit for unit in self.drained if node_of(unit) != node}
        closings = []
        for unit, inputs in data_inputs(dataflow).items():
            if node_of(unit) == node:
                fed = {
                    name: source for name, source in inputs.items() if before.sends(source, alive)
                }
                still_open[unit] = MappingProxyType(fed)
                if unfed := tuple(name for name in inputs if name not in fed):
                    closings.append(Closing(unit, unfed, not fed and unit not in self.endless))
            elif unit in self.open_inputs:
                fed = {name: source for name, source in inputs.items() if node_of(source) == node}
                still_open[unit] = MappingProxyType({**self.open_inputs[unit], **fed})
        drained |= {closing.unit for closing in closings if closing.drained}
        after = replace(before, open_inputs=still_open, drained=frozenset(drained))
        return after, tuple(closings)

    def reopened(self, source: str, dataflow: Dataflow) -> Flow:
        """Return the flow after a unit that had ended sends again: what it feeds is open.

        Consumers that have ended, or end because all their inputs had closed, stay away.
        """
        still_open = dict(self.open_inputs)
        for unit, inputs in data_inputs(dataflow).items():
            if unit in self.open_inputs and unit not in self.drained:
                fed = {name: origin for name, origin in inputs.items() if origin == source}
                still_open[unit] = MappingProxyType({**self.open_inputs[unit], **fed})
        return replace(self, open_inputs=still_open, ended=self.ended - {source})

    def to_json(self) -> dict[str, Any]:
        """Return the flow as JSON-able values."""
        return {
            "open_inputs": {unit: dict(inputs) for unit, inputs in self.open_inputs.items()},
            "endless": sorted(self.endless),
            "drained": sorted(self.drained),
            "ended": sorted(self.ended),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Flow:
        """Return the flow that `to_json` was called on."""
        inputs = {unit: MappingProxyType(dict(each)) for unit, each in data["open_inputs"].items()}
        drained, ended = frozenset(data["drained"]), frozenset(data.get("ended", ()))
        return cls(inputs, frozenset(data["endless"]), drained, ended)


def flow_of(dataflow: Dataflow, *, exit_when_nodes_finish: bool) -> Flow:
    """Return the flow of a dataflow that has just started.

    Timers and the log stream never close, and the link ends after all others. With
    `exit_when_nodes_finish` timers and logs do not keep a unit running that has a data input too; a
    unit without any is a source.
    """
    open_inputs = {unit: MappingProxyType(inputs) for unit, inputs in data_inputs(dataflow).items()}
    endless = {
        unit
        for node in dataflow.nodes
        for unit, entries in _inputs_of(node).items()
        if unit == LINK
        or (
            len(open_inputs[unit]) < len(tuple(entries))
            and not (exit_when_nodes_finish and open_inputs[unit])
        )
    }
    return Flow(open_inputs, frozenset(endless))


def node_of(unit: str) -> str:
    """Return the node of a unit."""
    return unit.partition("/")[0]


def units_of(node: NodeSpec) -> tuple[str, ...]:
    """Return the units of a node: itself, or its operators, or what the link receives."""
    if node.id == LINK:
        return tuple(f"{LINK}/{output}" for output in node.outputs)
    return tuple(f"{node.id}/{operator.id}" for operator in node.operators) or (node.id,)


def data_inputs(dataflow: Dataflow) -> dict[str, dict[str, str]]:
    """Return the inputs that units feed: consuming unit to input id to source unit.

    Input ids are those of the node; the inputs of an operator begin with the operator's id.
    """
    runtimes = {node.id: printed_outputs(node) for node in dataflow.nodes if node.operators}

    def source_of(output: NodeOutput) -> str:
        if output.node == LINK:
            return str(output)
        # The daemon sends printed lines. Such an output ends with the process, even if it is an
        # output of one operator.
        if output.node not in runtimes or output.output in runtimes[output.node]:
            return output.node
        return f"{output.node}/{output.output.partition('/')[0]}"

    return {
        unit: {
            entry.id: source_of(entry.source)
            for entry in entries
            if isinstance(entry.source, NodeOutput)
        }
        for node in dataflow.nodes
        for unit, entries in _inputs_of(node).items()
    }


def _inputs_of(node: NodeSpec) -> dict[str, Collection[Input]]:
    if not node.operators:
        return {node.id: node.inputs}
    return {
        unit: [entry for entry in node.all_inputs if entry.id.partition("/")[0] == operator.id]
        for unit, operator in zip(units_of(node), node.operators, strict=True)
    }


def feeds_of(dataflow: Dataflow) -> dict[str, dict[str, dict[str, tuple[str, ...]]]]:
    """Return the consumers of each node: source to consumer to its units to their inputs.

    For the link, the sources are its units.
    """
    feeds: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}
    for unit, inputs in data_inputs(dataflow).items():
        for name, source in inputs.items():
            feeder = source if node_of(source) == LINK else node_of(source)
            fed = feeds.setdefault(feeder, {}).setdefault(node_of(unit), {})
            fed[unit] = (*fed.get(unit, ()), name)
    return feeds


def merged(closings: Iterable[Closing]) -> dict[str, Closing]:
    """Merge the closings of several sources into one for each consumer."""
    by_output: dict[str, Closing] = {}
    for closing in closings:
        known = by_output.get(closing.unit)
        if known is not None:
            closing = Closing(
                closing.unit,
                (*known.inputs, *closing.inputs),
                known.drained or closing.drained,
            )
        by_output[closing.unit] = closing
    return by_output
