"""The share of one machine of a dataflow over several machines.

A link process on each machine carries what crosses machines. Within a share it is a node like
others, called `LINK`: it receives what goes to other machines, and its outputs are those of other
machines that nodes here receive.

Timers tick where their node runs. A `dora/logs` input gets the lines of its own machine only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from dorad.dataflow.model import (
    LINK,
    Channel,
    Dataflow,
    Input,
    Link,
    NodeKind,
    NodeOutput,
    NodeSpec,
    Operator,
    QueuePolicy,
)
from dorad.dataflow.settings import Restart, RestartPolicy, Types
from dorad.dataflow.types.ports import output_types

RESTART = Restart(RestartPolicy.ALWAYS, delay=0.1, max_delay=2.0, window=60.0)
"""The link is always restarted: nothing else connects this machine."""

_log = logging.getLogger(__name__)


def share(dataflow: Dataflow, machine: str, placement: Mapping[str, str]) -> Dataflow:
    """Return what `machine` runs of a dataflow: its nodes, and the link if it needs one.

    `placement` is the machine of each node; a node without one runs nowhere yet. An input from such
    a node stays open: it is an output of the link that no machine sends to.
    """
    here = {node.id for node in dataflow.nodes if placement.get(node.id) == machine}
    nodes = tuple(_localized(node, here) for node in dataflow.nodes if node.id in here)
    foreign = _foreign_sources(dataflow, here)
    outgoing = _outgoing(dataflow, here, placement)
    _log.debug(
        "%s runs %d of %d nodes, receives %d outputs and sends on %d channels",
        *(machine, len(nodes), len(dataflow.nodes), len(foreign), len(outgoing)),
    )
    if foreign or outgoing:
        nodes = (*nodes, _link(dataflow, foreign, outgoing, placement))
    return replace(dataflow, nodes=nodes)


def _foreign_sources(dataflow: Dataflow, here: set[str]) -> list[NodeOutput]:
    """Return the outputs that nodes here receive from nodes elsewhere."""
    sources = {
        source: None
        for node in dataflow.nodes
        if node.id in here
        for _, source in _sources(node)
        if source.node not in here
    }
    return list(sources)


def _outgoing(
    dataflow: Dataflow, here: set[str], placement: Mapping[str, str]
) -> dict[tuple[NodeOutput, str], list[tuple[str, Input]]]:
    """Return the channels to other machines, each with the inputs that it feeds there."""
    receivers: dict[tuple[NodeOutput, str], list[tuple[str, Input]]] = {}
    for node in dataflow.nodes:
        if node.id not in here and node.id in placement:
            for entry, source in _sources(node):
                if source.node in here:
                    fed = receivers.setdefault((source, placement[node.id]), [])
                    fed.append((node.id, entry))
    return receivers


def _sources(node: NodeSpec) -> Iterator[tuple[Input, NodeOutput]]:
    for entry in node.all_inputs:
        if isinstance(entry.source, NodeOutput):
            yield entry, entry.source


def _localized(node: NodeSpec, here: set[str]) -> NodeSpec:
    """Return a node whose inputs from elsewhere receive from the link."""
    return replace(
        node,
        inputs=_localized_inputs(node.inputs, here),
        operators=tuple(_localized_operator(each, here) for each in node.operators),
    )


def _localized_operator(operator: Operator, here: set[str]) -> Operator:
    return replace(operator, inputs=_localized_inputs(operator.inputs, here))


def _localized_inputs(inputs: tuple[Input, ...], here: set[str]) -> tuple[Input, ...]:
    return tuple(
        replace(entry, source=NodeOutput(LINK, str(entry.source), entry.source.text))
        if isinstance(entry.source, NodeOutput) and entry.source.node not in here
        else entry
        for entry in inputs
    )


def _link(
    dataflow: Dataflow,
    foreign: list[NodeOutput],
    outgoing: Mapping[tuple[NodeOutput, str], list[tuple[str, Input]]],
    placement: Mapping[str, str],
) -> NodeSpec:
    channels = {
        Channel(
            source,
            machine,
            any(entry.queue_policy is QueuePolicy.BACKPRESSURE for _, entry in fed),
            tuple(dict.fromkeys(node for node, _ in fed)),
        ): fed
        for (source, machine), fed in outgoing.items()
    }
    incoming = tuple(
        Channel(source, placement[source.node]) for source in foreign if source.node in placement
    )
    types = {node.id: output_types(node) for node in dataflow.nodes}
    return NodeSpec(
        LINK,
        NodeKind.LINK,
        inputs=tuple(
            _link_input(channel, [entry for _, entry in fed]) for channel, fed in channels.items()
        ),
        outputs=tuple(str(source) for source in foreign),
        types=Types(
            outputs={
                str(source): types[source.node][source.output]
                for source in foreign
                if source.output in types[source.node]
            }
        ),
        restart=RESTART,
        link=Link(tuple(channels), incoming),
    )


def _link_input(channel: Channel, fed: Sequence[Input]) -> Input:
    """Return the input that takes the messages of a channel, and drops no more than any it feeds.

    A rate limit, a timeout and a sync group work where the messages arrive.
    """
    latest = all(entry.queue_policy is QueuePolicy.LATEST for entry in fed)
    policy = QueuePolicy.LATEST if latest else QueuePolicy.DROP_OLDEST
    return Input(
        channel.input,
        channel.output,
        max(entry.queue_size for entry in fed),
        QueuePolicy.BACKPRESSURE if channel.reliable else policy,
        long_form=True,
        latched=any(entry.latched for entry in fed),
    )
