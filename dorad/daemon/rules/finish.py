"""The natural finish: which inputs close when a source ends, and who is then out of work.

Decided for units: a unit is a node, or one operator of a node, which is then `node/operator`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from dorad.daemon.rules.routing import printed_outputs
from dorad.dataflow.model import NodeOutput

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dorad.dataflow.model import Dataflow, Input, NodeSpec


class Closing(Struct, frozen=True):
    """What the end of one source means for one of its consumers."""

    unit: str
    inputs: tuple[str, ...]
    drained: bool
    """Nothing can arrive at this unit any more: it is told ALL_INPUTS_CLOSED."""


class Flow(Struct, frozen=True):
    """The data inputs that are still open, by consumer."""

    open_inputs: Mapping[str, Mapping[str, str]]
    """Consumer to input id to source, all units. A consumer that ended is left out."""
    endless: frozenset[str]
    """Units that a timer or the log stream keeps busy whatever happens to their data inputs."""
    drained: frozenset[str] = frozenset()
    """Units that were told ALL_INPUTS_CLOSED."""
    ended: frozenset[str] = frozenset()
    """Operators that have ended while their node goes on."""
    _units: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """The units of each node, as far as they are in `open_inputs`; derived from it."""

    def __post_init__(self) -> None:
        units: dict[str, tuple[str, ...]] = {}
        for unit in self.open_inputs:
            node = node_of(unit)
            units[node] = (*units.get(node, ()), unit)
        force_setattr(self, "_units", units)

    def close_source(self, source: str) -> tuple[Flow, tuple[Closing, ...]]:
        """Close whatever the unit feeds, for good; returns what it means for each consumer."""
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
        """Return the flow after a node ended: nothing needs to be closed for it any more."""
        rest = {
            unit: inputs for unit, inputs in self.open_inputs.items() if node_of(unit) != consumer
        }
        return replace(self, open_inputs=rest)

    def operator_ended(self, unit: str) -> Flow:
        """Return the flow after an operator ended while its node goes on."""
        return replace(self, ended=self.ended | {unit})

    def restarted(self, node: str) -> Flow:
        """Return the flow after a node got another process: all its operators live again."""
        return replace(self, ended=frozenset(u for u in self.ended if node_of(u) != node))

    def has_drained(self, node: str) -> bool:
        """Whether nothing can arrive at any part of the node any more."""
        if node in self.drained:
            return True
        own = {unit for unit in self._units.get(node, ()) if unit != node}
        return bool(own) and own <= self.drained | self.ended

    def is_endless(self, node: str) -> bool:
        """Whether a timer or the log stream keeps a part of the node busy."""
        return node in self.endless or any(
            unit in self.endless and unit not in self.ended for unit in self._units.get(node, ())
        )

    def open_of(self, node: str) -> dict[str, str]:
        """Return the open data inputs of a node, with its operators' own: input id to source."""
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
        """Return the flow after nodes or edges were added or taken away.

        An input that stays as it was is as open as it was. A new one is open if its source is
        of the nodes that are `alive`; the others are closed at once, which is what the second
        value says. To take an edge away closes nothing and drains nobody: the next may follow.
        """
        known = data_inputs(before)
        still_open: dict[str, Mapping[str, str]] = {}
        closings = []
        for unit, inputs in data_inputs(after).items():
            if unit in known and unit not in self.open_inputs:
                continue  # it has ended
            old, opened = known.get(unit, {}), self.open_inputs.get(unit, {})
            added = {name: source for name, source in inputs.items() if old.get(name) != source}
            kept = {name: source for name, source in inputs.items() if opened.get(name) == source}
            live = {
                name: source
                for name, source in added.items()
                if node_of(source) in alive and source not in self.ended
            }
            still_open[unit] = MappingProxyType(kept | live)
            if dead := tuple(name for name in added if name not in live):
                closings.append(Closing(unit, dead, drained=False))
        endless = flow_of(after, exit_when_nodes_finish=exit_when_nodes_finish).endless
        drained = {
            closing.unit
            for closing in closings
            if not still_open[closing.unit]
            and closing.unit not in endless
            and closing.unit not in self.drained
        }
        before_drained, ended = (units & still_open.keys() for units in (self.drained, self.ended))
        flow = Flow(still_open, endless, before_drained | drained, ended)
        return flow, tuple(replace(each, drained=each.unit in drained) for each in closings)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "open_inputs": {unit: dict(inputs) for unit, inputs in self.open_inputs.items()},
            "endless": sorted(self.endless),
            "drained": sorted(self.drained),
            "ended": sorted(self.ended),
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Flow:
        """Return what `to_json` was made of."""
        inputs = {unit: MappingProxyType(dict(each)) for unit, each in kept["open_inputs"].items()}
        drained, ended = frozenset(kept["drained"]), frozenset(kept.get("ended", ()))
        return cls(inputs, frozenset(kept["endless"]), drained, ended)


def flow_of(dataflow: Dataflow, *, exit_when_nodes_finish: bool) -> Flow:
    """Return the flow of a dataflow that has just started.

    Timers and the log stream never close. With `exit_when_nodes_finish` they do not count for a
    unit that has a data input as well; one that has no other inputs is a source.
    """
    open_inputs = {unit: MappingProxyType(inputs) for unit, inputs in data_inputs(dataflow).items()}
    endless = {
        unit
        for node in dataflow.nodes
        for unit, entries in _inputs_of(node).items()
        if len(open_inputs[unit]) < len(tuple(entries))
        and not (exit_when_nodes_finish and open_inputs[unit])
    }
    return Flow(open_inputs, frozenset(endless))


def node_of(unit: str) -> str:
    """Return the node that a unit is, or is an operator of."""
    return unit.partition("/")[0]


def units_of(node: NodeSpec) -> tuple[str, ...]:
    """Return the units of a node: itself, or its operators."""
    return tuple(f"{node.id}/{operator.id}" for operator in node.operators) or (node.id,)


def data_inputs(dataflow: Dataflow) -> dict[str, dict[str, str]]:
    """Return the inputs that other units feed: unit to input id to source, which is a unit too.

    Input ids are those of the node: an operator's begin with the operator's own.
    """
    runtimes = {node.id: printed_outputs(node) for node in dataflow.nodes if node.operators}

    def source_of(output: NodeOutput) -> str:
        # What a process prints ends with the process, whichever operator's output carries it.
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
    """Return whom each node feeds: source node to consumer node to its units to their inputs."""
    feeds: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}
    for unit, inputs in data_inputs(dataflow).items():
        for name, source in inputs.items():
            fed = feeds.setdefault(node_of(source), {}).setdefault(node_of(unit), {})
            fed[unit] = (*fed.get(unit, ()), name)
    return feeds


def merged(closings: Iterable[Closing]) -> dict[str, Closing]:
    """Return what several ends that follow on each other mean, by consumer."""
    found: dict[str, Closing] = {}
    for closing in closings:
        known = found.get(closing.unit)
        if known is not None:
            closing = Closing(
                closing.unit,
                (*known.inputs, *closing.inputs),
                known.drained or closing.drained,
            )
        found[closing.unit] = closing
    return found
