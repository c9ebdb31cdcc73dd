"""A module's file as it was read, before anything of it is in a dataflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.modules.header import Header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dorad.dataflow.document import Value
    from dorad.dataflow.model import NodeSpec

PORTS = "_mod"
"""The node whose outputs are, inside a module, the module's input ports."""


class Member(NamedTuple):
    """An entry of `nodes`: as it was read, and its part of the file."""

    node: NodeSpec
    value: Value


class PortRoute(NamedTuple):
    """Where an output port gets its data: a member, and its output."""

    member: str
    output: str


@dataclass(frozen=True, slots=True)
class Level:
    """The nodes of one file: of a module, or of the dataflow itself, which has no ports."""

    file: str
    """As people see it."""
    folder: Path
    """Absolute and without symbolic links; relative paths in the file start here."""
    members: tuple[Member, ...]
    modules: Mapping[str, Level] = field(default_factory=dict)
    """What the members with a `module` are, by their ids."""
    header: Header = field(default_factory=Header)
    routes: Mapping[str, PortRoute] = field(default_factory=dict)
    """Of each output port."""
    build: tuple[str, ...] = ()
    """Commands that go before those of each node."""

    height: int = 1
    """How many modules are nested here, with itself."""
    outside: frozenset[str] = frozenset()
    """Nodes of the dataflow itself that the members of a module listen to by their names."""
    size: int = 0
    """Values of the file and of the modules in it, each as often as it is used."""

    def flat(self, prefix: str = "") -> Iterator[tuple[str, NodeSpec]]:
        """All nodes that are no modules, with their ids in the dataflow."""
        for node, _ in self.members:
            module = self.modules.get(node.id)
            if module is None:
                yield f"{prefix}{node.id}", node
            else:
                yield from module.flat(f"{prefix}{node.id}.")

    def origin(self, port: str) -> PortRoute:
        """The node that in the end feeds an output port, its id from here on."""
        member, output = self.routes[port]
        module = self.modules.get(member)
        if module is None:
            return PortRoute(member, output)
        inner = module.origin(output)
        return PortRoute(f"{member}.{inner.member}", inner.output)
