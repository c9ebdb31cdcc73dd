"""The content of a module's file, before its nodes are in a dataflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.modules.header import Header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dorad.dataflow.model import NodeSpec
    from dorad.dataflow.value import Value

PORTS = "_mod"
"""The name by which nodes in a module receive from input ports: `_mod/<port>`."""


class Member(NamedTuple):
    """An entry of `nodes`: the node, and its part of the file."""

    node: NodeSpec
    value: Value


class PortRoute(NamedTuple):
    """The source of an output port: a member and its output."""

    member: str
    output: str


@dataclass(frozen=True, slots=True)
class Level:
    """The nodes of one file: a module, or the dataflow itself, which has no ports."""

    file: str
    """The file as messages show it."""
    folder: Path
    """Absolute, without symbolic links; relative paths in the file start here."""
    members: tuple[Member, ...]
    modules: Mapping[str, Level] = field(default_factory=dict)
    """The modules of the members that have one, by id."""
    header: Header = field(default_factory=Header)
    routes: Mapping[str, PortRoute] = field(default_factory=dict)
    """The source of each output port."""
    build: tuple[str, ...] = ()
    """Build commands that run before those of each node."""

    depth: int = 1
    """Depth of nesting, this level included."""
    outside: frozenset[str] = frozenset()
    """Nodes of the dataflow itself that the members of a module receive from."""
    size: int = 0
    """Number of values in the file and its modules, counted once for each use."""

    def flat(self, prefix: str = "") -> Iterator[tuple[str, NodeSpec]]:
        """Yield all nodes that are not modules, with their ids in the dataflow."""
        for node, _ in self.members:
            module = self.modules.get(node.id)
            if module is None:
                yield f"{prefix}{node.id}", node
            else:
                yield from module.flat(f"{prefix}{node.id}.")

    def origin(self, port: str) -> PortRoute:
        """Return the node that feeds an output port in the end, with its id below this level."""
        member, output = self.routes[port]
        module = self.modules.get(member)
        if module is None:
            return PortRoute(member, output)
        inner = module.origin(output)
        return PortRoute(f"{member}.{inner.member}", inner.output)
