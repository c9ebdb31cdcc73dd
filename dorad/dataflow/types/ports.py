"""The typed ports of nodes and operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dorad.dataflow.model import Dataflow, Input, NodeSpec
    from dorad.dataflow.settings import Types


ROS2 = "ros2/"
"""The prefix of the messages of ROS 2: `ros2/sensor_msgs/Image`."""


class Body(NamedTuple):
    """A node or one of its operators."""

    node: str
    key: str
    """Its key in the file."""
    prefix: str
    """The prefix of its port ids in the data plane: empty, or `<operator>/`."""
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    types: Types


def bodies_of(node: NodeSpec) -> Iterator[Body]:
    """Yield the node and its operators."""
    yield Body(node.id, node.key, "", node.inputs, node.outputs, node.types)
    for index, op in enumerate(node.operators):
        key = node.operator_key(index)
        yield Body(node.id, key, f"{op.id}/", op.inputs, op.outputs, op.types)


def bodies(dataflow: Dataflow) -> Iterator[Body]:
    """Yield all nodes and operators."""
    for node in dataflow.nodes:
        yield from bodies_of(node)


def output_types(node: NodeSpec) -> Mapping[str, str]:
    """Return the type of each annotated output, as written, by its id in the data plane."""
    return {
        f"{body.prefix}{output}": text
        for body in bodies_of(node)
        for output, text in body.types.outputs.items()
        if output in body.outputs
    }


def output_rates(dataflow: Dataflow) -> Mapping[str, float]:
    """Return the declared rate of each output `node/output` that has one, in messages a second."""
    return {
        f"{body.node}/{body.prefix}{output}": rate
        for body in bodies(dataflow)
        for output, rate in body.types.rates.items()
        if output in body.outputs
    }


def input_types(node: NodeSpec) -> Mapping[str, str]:
    """Return the type of each annotated input, as written, by its id in the data plane."""
    known = {item.id for item in node.all_inputs}
    types = {
        f"{body.prefix}{port}": text
        for body in bodies_of(node)
        for port, text in body.types.inputs.items()
    }
    return {port: text for port, text in types.items() if port in known}


def bridged_types(node: NodeSpec, kind: str) -> Mapping[str, str]:
    """Return the type of each port of a bridge to ROS 2 that has a topic, by the port's id.

    `kind` is `subscribe` for its outputs, `publish` for its inputs.
    """
    endpoints = node.ros2.endpoints if node.ros2 else ()
    return {
        port: f"{ROS2}{endpoint.type}"
        for endpoint in endpoints
        if endpoint.kind == kind
        for port in (endpoint.outputs if kind == "subscribe" else endpoint.inputs)
    }


def named_types(dataflow: Dataflow) -> Iterator[str]:
    """Yield the types in annotations and type rules, as written."""
    for rule in dataflow.type_rules:
        yield from (rule.source, rule.target)
    for body in bodies(dataflow):
        yield from (*body.types.inputs.values(), *body.types.outputs.values())


def is_typed(dataflow: Dataflow) -> bool:
    """Return True if the dataflow has type annotations or type rules."""
    return next(named_types(dataflow), None) is not None
