"""The wiring of a dataflow, in the types of the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control.messages import Subscriber, TopicInfo
from dorad.dataflow.model import LINK, NodeOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.messages import LinkChannel
    from dorad.dataflow.model import Dataflow, NodeSpec


def inputs_of(node: NodeSpec) -> dict[str, str]:
    """Return the source of each input, as text."""
    return {entry.id: entry.source.text for entry in node.all_inputs}


def subscribers(dataflow: Dataflow, node_id: str, output: str) -> list[Subscriber]:
    """Return the subscribers of an output, in the order of the file."""
    found = receivers(dataflow, NodeOutput(node_id, output))
    return [Subscriber(node=node, input=name) for node, name in found]


def topic_named(dataflow: Dataflow, name: str) -> NodeOutput | None:
    """Return the topic that a user calls `node/output`, None if there is none."""
    node_id, _, text = name.partition("/")
    for node in dataflow.nodes:
        if node.id == node_id != LINK and (output := node.output_named(text)):
            return NodeOutput(node_id, output)
    return None


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
