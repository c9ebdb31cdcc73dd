"""Types that ports and nodes give to the same data: carried inwards, and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.modules.rewrite import entries, set_entries, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.dataflow.document import Value


class PortType(NamedTuple):
    """The type that a port says, and which port that is."""

    urn: str
    port: str
    """In words: "the input `goal` of modules/nav.yml"."""


def agree(sender: str, receiver: str) -> bool:
    """Whether data of the type `sender` may go where `receiver` is expected; both are URNs."""
    return sender == receiver


def carry(
    body: Value,
    key: str,
    name: str,
    ports: Sequence[PortType],
    *,
    inwards: bool,
    report: Callable[[Value, str], None],
) -> None:
    """Give an input or output of a node the type of the ports that lead to it, innermost first.

    `key` is `input_types` or `output_types`, `body` what holds it. A type that the node has itself
    stays. What a port says that does not agree is reported at that, or else at the node.
    """
    types = entries(body, key)
    own = types.get(name)
    if own is None and ports:
        own = text(ports[0].urn, f"{body.key}.{key}.{name}", _port(body, inwards, name))
        set_entries(body, key, {**types, name: own})
    for port in ports:
        assert own is not None
        mine = str(own.data)
        sender, receiver = (port.urn, mine) if inwards else (mine, port.urn)
        if not agree(sender, receiver):
            report(own, f"`{mine}` does not agree with `{port.urn}`, the type of {port.port}")


def _port(body: Value, inwards: bool, name: str) -> Value:
    """Where the node names its input or output."""
    if inwards:
        return entries(body, "inputs")[name]
    assert isinstance(body.data, dict)
    return body.data["outputs"]
