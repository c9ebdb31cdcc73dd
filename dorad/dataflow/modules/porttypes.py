"""The types that ports and nodes declare for the same data: passed inwards and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.errors import TextError
from dorad.dataflow.modules.rewrite import entries, set_entries, text
from dorad.dataflow.types.compatible import fits
from dorad.dataflow.types.urn import parse_urn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.dataflow.types.compatible import Rule
    from dorad.dataflow.value import Value


class PortType(NamedTuple):
    """The declared type of a port, and which port it is."""

    urn: str
    port: str
    """In words: "the input `goal` of modules/nav.yml"."""


def types_match(sender: str, receiver: str, rules: Sequence[Rule] = ()) -> bool:
    """Return True if data of type `sender` is accepted as type `receiver`; both are URNs.

    `rules` are the dataflow's own conversions. A text that is not a URN equals only itself.
    """
    try:
        return sender == receiver or fits(parse_urn(sender), parse_urn(receiver), rules)
    except TextError:
        return False


def rules_of(root: Value) -> list[Rule]:
    """Return the conversions in a dataflow's `type_rules`, as far as they name types."""
    given = root.data.get("type_rules") if isinstance(root.data, dict) else None
    rules = []
    for item in given.data if given is not None and isinstance(given.data, list) else ():
        ends = item.data if isinstance(item.data, dict) else {}
        try:
            rules.append((parse_urn(ends["from"].text), parse_urn(ends["to"].text)))
        except (KeyError, TextError):
            continue  # reported when the file is read and when types are checked
    return rules


def apply_port_types(
    body: Value,
    key: str,
    name: str,
    ports: Sequence[PortType],
    *,
    inwards: bool,
    rules: Sequence[Rule],
    report: Callable[[Value, str], None],
) -> None:
    """Give an input or output of a node the type of the ports that lead to it, innermost first.

    `key` is `input_types` or `output_types` in the mapping `body`. A type of the node itself stays.
    A port whose type does not agree, considering `rules`, is reported at the type, or else at the
    node.
    """
    types = entries(body, key)
    own = types.get(name)
    if own is None and ports:
        own = text(ports[0].urn, f"{body.key}.{key}.{name}", _port(body, inwards, name))
        set_entries(body, key, {**types, name: own})
    for port in ports:
        assert own is not None
        own_type = str(own.data)
        sender, receiver = (port.urn, own_type) if inwards else (own_type, port.urn)
        if not types_match(sender, receiver, rules):
            report(own, f"`{own_type}` does not agree with `{port.urn}`, the type of {port.port}")


def _port(body: Value, inwards: bool, name: str) -> Value:
    """Return the value with which the node names its input or output."""
    if inwards:
        return entries(body, "inputs")[name]
    assert isinstance(body.data, dict)
    return body.data["outputs"]
