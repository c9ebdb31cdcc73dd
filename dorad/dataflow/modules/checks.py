"""Checks within one file that uses modules, or is a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.dataflow.errors import TextError
from dorad.dataflow.model import Input, LogSource, NodeKind, NodeOutput, NodeSpec
from dorad.dataflow.modules.module import PORTS, Header, Level, Member, PortRoute
from dorad.dataflow.modules.paths import programs
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.wiring import check_sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dorad.dataflow.modules.project import Project
    from dorad.dataflow.problems import Problems
    from dorad.dataflow.value import Value


def check_bindings(
    node: NodeSpec, module: Level, values: Mapping[str, Value], problems: Problems
) -> None:
    """Report required ports that the node does not connect, and inputs that are not ports."""
    ports = module.header.inputs
    given = _entries(values, f"{node.key}.inputs")
    for name, value in given.items():
        if name not in ports:
            hint = did_you_mean(name, ports) or _listing("its inputs are", ports)
            problems.error_in_name(value, f"{module.file} has no input `{name}`", hint)
    for port in ports.values():
        if not port.optional and port.name not in given:
            where = port.value.where().removeprefix("in ")
            problems.error_in_name(
                values.get(f"{node.key}.inputs") or values[node.key],
                f"needs the input `{port.name}` ({module.file}, {where})",
                f"add `{port.name}: node/output`",
            )


def check_members(
    members: Sequence[Member],
    modules: Mapping[str, Level],
    header: Header | None,
    outside: Mapping[str, NodeSpec],
    values: Mapping[str, Value],
    problems: Problems,
) -> frozenset[str]:
    """Report duplicate ids, and inputs whose source does not exist in this file.

    Sources may also name nodes of modules by their full ids. Without `header` the file is the
    dataflow itself. A module's nodes may receive from `outside`, nodes of the dataflow, with a
    warning; return the ids of those that are used.
    """
    used: set[str] = set()
    nodes: list[NodeSpec] = []
    for node, value in members:
        if header is not None and node.id == PORTS:
            problems.error_in_name(value, f"the node id `{PORTS}` is reserved", "rename the node")
        used.update(_check_inputs(node, modules, header, values, problems))
        nodes.append(_as_seen_here(node, modules.get(node.id), in_module=header is not None))
        inside = dict(modules[node.id].flat(f"{node.id}.") if node.id in modules else ())
        nodes += (
            NodeSpec(name, NodeKind.PATH, node.key, outputs=_output_names(inputs))
            for name, inputs in inside.items()
        )
    external = _external_sources(members, nodes, outside, values, problems)
    nodes += (replace(_without_inputs(outside[name]), key=members[0].node.key) for name in external)
    check_sources(nodes, values, problems)
    for port in header.inputs.values() if header else ():
        if port.name not in used:
            problems.warn(port.value, f"no node of the module receives `{port.name}`")
    return external


def read_routes(
    header: Header,
    members: Sequence[Member],
    modules: Mapping[str, Level],
    problems: Problems,
) -> dict[str, PortRoute]:
    """Return the source of each output port; report ports without one or with several."""
    senders: dict[str, list[PortRoute]] = {}
    unknown = False
    for node, _ in members:
        module = modules.get(node.id)
        unknown = unknown or (module is None and node.kind is NodeKind.MODULE)
        outputs = ((o, o) for o in module.header.outputs) if module else _outputs_by_name(node)
        for name, output in outputs:
            senders.setdefault(name, []).append(PortRoute(node.id, output))
    routes: dict[str, PortRoute] = {}
    for port in header.outputs.values():
        senders_of = senders.get(port.name, [])
        if len(senders_of) > 1:
            ids = " and ".join(f"`{route.member}`" for route in senders_of)
            problems.error(
                port.value,
                f"`{port.name}` is an output of {ids}; only one node may have it",
                "rename the others",
            )
        elif senders_of:
            routes[port.name] = senders_of[0]
        elif not unknown:
            hint = did_you_mean(port.name, senders) or _listing("they send", senders)
            problems.error(port.value, f"no node of the module has the output `{port.name}`", hint)
    return routes


def check_paths(
    node: NodeSpec, value: Value, project: Project, folder: Path, problems: Problems
) -> None:
    """Report programs outside the project."""
    for path in programs(node, value):
        try:
            project.rebase(str(path.data), folder)
        except TextError as error:
            problems.text_error(path, error)


def _check_inputs(
    node: NodeSpec,
    modules: Mapping[str, Level],
    header: Header | None,
    values: Mapping[str, Value],
    problems: Problems,
) -> Iterator[str]:
    """Report ports that do not exist, and logs of modules. Return the ports in use."""
    for body, entry in _inputs(node):
        key = f"{body}.inputs.{entry.id}"
        value = values.get(f"{key}.source") or values[key]
        source = entry.source
        if isinstance(source, LogSource) and source.node and source.node in modules:
            inner = [name for name, _ in modules[source.node].flat(f"{source.node}.")]
            problems.error(
                value,
                f"`{source.node}` is a module, and each of its nodes has its own log",
                f"name one of them, such as `{inner[0]}`" if inner else None,
            )
        if header and isinstance(source, NodeOutput) and source.node == PORTS:
            yield source.output
            if source.output not in header.inputs:
                hint = did_you_mean(source.output, header.inputs)
                problems.error(
                    value,
                    f"the module has no input `{source.output}`",
                    hint or "add it to `inputs` or `inputs_optional` of the module",
                )


def _external_sources(
    members: Sequence[Member],
    inside: Iterable[NodeSpec],
    outside: Mapping[str, NodeSpec],
    values: Mapping[str, Value],
    problems: Problems,
) -> frozenset[str]:
    """Return the nodes outside that a module's nodes name as sources; warn about them."""
    names = {node.id for node in inside}
    external: set[str] = set()
    for node, _ in members:
        for body, entry in _inputs(node):
            source = entry.source
            name = source.node if isinstance(source, NodeOutput | LogSource) else None
            if name is not None and name in outside and name not in names:
                external.add(name)
                problems.warn(
                    values[f"{body}.inputs.{entry.id}"],
                    f"`{name}` is a node of the dataflow, not of the module",
                    "receive its output through an input port, so that the module can be reused",
                )
    return frozenset(external)


def _inputs(node: NodeSpec) -> Iterator[tuple[str, Input]]:
    """Yield all inputs, each with the key of its node or operator."""
    yield from ((node.key, entry) for entry in node.inputs)
    for index, operator in enumerate(node.operators):
        body = node.operator_key(index)
        yield from ((body, entry) for entry in operator.inputs)


def _as_seen_here(node: NodeSpec, module: Level | None, *, in_module: bool) -> NodeSpec:
    """Return the node without inputs from ports; a module becomes a program with its outputs."""

    def without_ports(inputs: Iterable[Input]) -> tuple[Input, ...]:
        return tuple(
            entry
            for entry in inputs
            if not (isinstance(entry.source, NodeOutput) and entry.source.node == PORTS)
        )

    if in_module:
        operators = tuple(replace(op, inputs=without_ports(op.inputs)) for op in node.operators)
        node = replace(node, inputs=without_ports(node.inputs), operators=operators)
    if module is None:
        return node
    return replace(node, kind=NodeKind.PATH, outputs=tuple(module.header.outputs))


def _without_inputs(node: NodeSpec) -> NodeSpec:
    return NodeSpec(node.id, node.kind, outputs=_output_names(node))


def _outputs_by_name(node: NodeSpec) -> Iterator[tuple[str, str]]:
    """Yield each name of each output of a node, with its name in the dataflow."""
    yield from ((output, output) for output in node.all_outputs)
    for operator in node.operators:
        yield from ((output, f"{operator.id}/{output}") for output in operator.outputs)


def _output_names(node: NodeSpec) -> tuple[str, ...]:
    return tuple(dict(_outputs_by_name(node)))


def _entries(values: Mapping[str, Value], key: str) -> dict[str, Value]:
    value = values.get(key)
    return value.data if value is not None and isinstance(value.data, dict) else {}


def _listing(what: str, names: Iterable[str]) -> str | None:
    listing = ", ".join(names)
    return f"{what} {listing}" if listing else None
