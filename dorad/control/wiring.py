"""The wiring of a dataflow, in the types of the control API."""

from __future__ import annotations

from collections.abc import Sequence

from dorad.control.errors import ControlError
from dorad.control.messages import LinkChannel, Subscriber, TopicInfo
from dorad.dataflow.model import LINK, Dataflow, NodeOutput, NodeSpec
from dorad.dataflow.nearest import did_you_mean
from dorad.phrases import first_of

MAX_NAMED = 20
"""Outputs that an error names."""


def inputs_of(node: NodeSpec) -> dict[str, str]:
    """Return the source of each input, as text."""
    return {entry.id: entry.source.text for entry in node.all_inputs}


def subscribers(dataflow: Dataflow, node_id: str, output: str) -> list[Subscriber]:
    """Return the subscribers of an output, in the order of the file."""
    inputs = receivers(dataflow, NodeOutput(node_id, output))
    return [Subscriber(node=node, input=name) for node, name in inputs]


def topic_named(dataflow: Dataflow, name: str) -> NodeOutput | None:
    """Return the topic that a user calls `node/output`, None if there is none."""
    node_id, _, text = name.partition("/")
    for node in dataflow.nodes:
        if node.id == node_id != LINK and (output := node.output_named(text)):
            return NodeOutput(node_id, output)
    return None


def topics_named(dataflow: Dataflow, wanted: Sequence[str]) -> list[NodeOutput]:
    """Return the topics that a user names, or all without any name. A node is all its outputs.

    Raises:
        ControlError: there is no such topic or node.
    """
    nodes = {node.id: node for node in dataflow.nodes if node.id != LINK}
    known = {
        f"{id_}/{output}": NodeOutput(id_, output)
        for id_, node in nodes.items()
        for output in node.all_outputs
    }
    if not known and not wanted:
        raise ControlError("not-found", "the dataflow has no outputs")
    chosen: dict[NodeOutput, None] = {} if wanted else dict.fromkeys(known.values())
    for name in wanted:
        topic = topic_named(dataflow, name)
        named = [topic] if topic else [each for each in known.values() if each.node == name]
        if not named and name in nodes:
            raise ControlError("not-found", f"node {name!r} has no outputs")
        if not named:
            what = "output" if "/" in name else "node or output"
            hint = did_you_mean(name, [*known, *nodes]) or (
                f"it has: {first_of(list(known), MAX_NAMED) or 'none'}"
            )
            raise ControlError("not-found", f"the dataflow has no {what} {name!r}", hint)
        chosen |= dict.fromkeys(named)
    return list(chosen)


def one_topic(dataflow: Dataflow, name: str) -> NodeOutput:
    """Return the topic `node/output`, to which a message is sent. Raises ControlError."""
    chosen = topics_named(dataflow, [name])
    if "/" not in name:
        hint = f"its outputs: {first_of([str(each) for each in chosen], MAX_NAMED)}"
        raise ControlError("bad-request", f"{name!r} is a node: name one of its outputs", hint)
    return chosen[0]


def receivers(dataflow: Dataflow, topic: NodeOutput) -> list[tuple[str, str]]:
    """Return the inputs that a topic feeds as (node, input), in the order of the file."""
    return [
        (node.id, entry.id)
        for node in dataflow.nodes
        for entry in node.all_inputs
        if entry.source == topic
    ]


def topics(dataflow: Dataflow, channels: Sequence[LinkChannel] = ()) -> list[TopicInfo]:
    """Return all topics of a dataflow, in the order of the file.

    Those of other machines, which the link receives, are not among them.
    """
    return [
        TopicInfo(
            node=node.id,
            output=output,
            subscribers=subscribers(dataflow, node.id, output),
            type=node.types.outputs.get(output),
            links=[c for c in channels if c.outgoing and c.output == f"{node.id}/{output}"],
        )
        for node in dataflow.nodes
        if node.id != LINK
        for output in node.all_outputs
    ]
