"""The content of a module's file, before its nodes are in a dataflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.fields import Fields, scalar_text
from dorad.dataflow.ids import check_data_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dorad.dataflow.model import NodeSpec
    from dorad.dataflow.problems import Problems
    from dorad.dataflow.value import Value


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a module."""

    name: str
    value: Value
    """Its entry in the list of ports."""
    type: str | None = None
    """The declared type URN, if there is one."""
    optional: bool = False
    """Whether an input may have no source."""


@dataclass(frozen=True, slots=True)
class Header:
    """The name and ports of a module; ports by name, in the order of the file."""

    name: str = ""
    inputs: Mapping[str, Port] = field(default_factory=dict)
    outputs: Mapping[str, Port] = field(default_factory=dict)


def read_header(file: Fields) -> Header | None:
    """Return the block `module` of a file; report its mistakes.

    None if the ports are unknown because the block is missing or a key is misspelt.
    """
    value = file.take("module")
    if value is None:
        return None
    block = Fields(value, file.problems, "a mapping with `name`, `inputs` and `outputs`")
    name = block.required_text("name")
    inputs = _read_ports(block, "inputs")
    for port in _read_ports(block, "inputs_optional", optional=True).values():
        if port.name in inputs:
            first = inputs[port.name].value.where()
            file.problems.error(
                port.value,
                f"the input `{port.name}` cannot be optional: it is required {first}",
                "remove it from one of the two lists",
            )
        inputs.setdefault(port.name, port)
    outputs = _read_ports(block, "outputs")
    misspelt = block.finish()
    return (
        None
        if misspelt & {"inputs", "inputs_optional", "outputs"}
        else Header(name, inputs, outputs)
    )


def _read_ports(block: Fields, key: str, *, optional: bool = False) -> dict[str, Port]:
    ports: dict[str, Port] = {}
    for item in block.items(key):
        port = _read_port(item, block.problems, optional=optional)
        if port is None:
            continue
        if port.name in ports:
            first = ports[port.name].value.where()
            block.problems.warn(item, f"`{port.name}` is listed twice, first {first}")
        ports.setdefault(port.name, port)
    return ports


def _read_port(item: Value, problems: Problems, *, optional: bool) -> Port | None:
    """Read a port: a name, or a mapping with `name` and `type`."""
    if not isinstance(item.data, dict):
        name = scalar_text(item, problems, check_data_id)
        return None if name is None else Port(name, item, None, optional)
    entry = Fields(item, problems)
    name = entry.required_text("name", "`{name: image, type: std/media/v1/Image}`")
    if name:
        entry.checked("name", check_data_id, None)
    urn = entry.text("type")
    entry.finish()
    return Port(name, item, urn, optional) if name else None


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
