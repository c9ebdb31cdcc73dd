"""The typed ports of nodes and operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dorad.dataflow.model import Dataflow, Input, NodeSpec
    from dorad.dataflow.settings import Types


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


def input_types(node: NodeSpec) -> Mapping[str, str]:
    """Return the type of each annotated input, as written, by its id in the data plane."""
    known = {item.id for item in node.all_inputs}
    found = {
        f"{body.prefix}{port}": text
        for body in bodies_of(node)
        for port, text in body.types.inputs.items()
    }
    return {port: text for port, text in found.items() if port in known}


def is_typed(dataflow: Dataflow) -> bool:
    """Return True if the dataflow has type annotations or type rules."""
    return bool(dataflow.type_rules) or any(
        body.types.inputs or body.types.outputs for body in bodies(dataflow)
    )
