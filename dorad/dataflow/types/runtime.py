"""The types of a node's ports as plain data for its process, which needs no library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dorad.dataflow.errors import TextError
from dorad.dataflow.model import Dataflow, NodeOutput, NodeSpec
from dorad.dataflow.types.compatible import Rule, fits
from dorad.dataflow.types.library import Library
from dorad.dataflow.types.ports import input_types, output_types
from dorad.dataflow.types.standard import BYTES
from dorad.dataflow.types.urn import Urn, parse_urn


def port_types(dataflow: Dataflow, node: NodeSpec) -> dict[str, Any] | None:
    """Return the types of a node's annotated ports as JSON values; None if there are none.

    `inputs` and `outputs` map ids to `{"type": URN, "accepts": [shape, …]}` with shapes as in
    `Library.plain`: the input's own first, then its source's if that converts to it. An output also
    has its receivers, `{"to": ["node/input", …]}`, and an input its sender,
    `{"from": "node/output"}`. Ports that accept everything, or of unknown type, are omitted.
    """
    inputs, outputs = input_types(node), output_types(node)
    if not inputs and not outputs:
        return None
    library = Library(dataflow.own_types)
    rules = _rules(dataflow)
    types: dict[str, Any] = {"inputs": {}, "outputs": {}}
    sources = {item.id: item.source for item in node.all_inputs}
    for port, text in inputs.items():
        urn = _urn(library, text)
        source = sources[port]
        if urn is not None and urn.base != BYTES and isinstance(source, NodeOutput):
            given = _urn(library, _output_type(dataflow, source))
            converted = given is not None and given.base != urn.base and fits(given, urn, rules)
            accepts = [urn.base, given.base] if given is not None and converted else [urn.base]
            types["inputs"][port] = _port(library, urn, accepts) | {"from": source.text}
    receivers = _receivers(dataflow, node.id) if outputs else {}
    for port, text in outputs.items():
        urn = _urn(library, text)
        if urn is not None:
            types["outputs"][port] = _port(library, urn, [urn.base]) | {
                "to": receivers.get(port, [])
            }
    return types if types["inputs"] or types["outputs"] else None


def _port(library: Library, urn: Urn, accepts: list[str]) -> dict[str, Any]:
    types = [library.get(base) for base in accepts]
    return {
        "type": str(urn),
        "accepts": [library.plain(each.shape) for each in types if each is not None],
    }


def _urn(library: Library, text: str) -> Urn | None:
    try:
        urn = parse_urn(text)
    except TextError:
        return None
    return urn if library.get(urn.base) is not None else None


def _rules(dataflow: Dataflow) -> list[Rule]:
    rules = []
    for rule in dataflow.type_rules:
        try:
            rules.append((parse_urn(rule.source), parse_urn(rule.target)))
        except TextError:
            continue  # reported when the file was checked
    return rules


def _output_type(dataflow: Dataflow, source: NodeOutput) -> str:
    """Return the type of an output as written; empty if it has none."""
    node = next((node for node in dataflow.nodes if node.id == source.node), None)
    return "" if node is None else output_types(node).get(source.output, "")


def _receivers(dataflow: Dataflow, node_id: str) -> Mapping[str, list[str]]:
    receivers: dict[str, list[str]] = {}
    for node in dataflow.nodes:
        for item in node.all_inputs:
            if isinstance(item.source, NodeOutput) and item.source.node == node_id:
                receivers.setdefault(item.source.output, []).append(f"{node.id}/{item.id}")
    return receivers
