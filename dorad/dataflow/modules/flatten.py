"""Move the nodes of modules into the dataflow: ids, sources, paths, inherited keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.dataflow.env import is_reserved
from dorad.dataflow.model import LogSource, ModuleUse, NodeKind, NodeOutput
from dorad.dataflow.modules.module import PORTS
from dorad.dataflow.modules.paths import bodies, programs
from dorad.dataflow.modules.porttypes import PortType, apply_port_types
from dorad.dataflow.modules.rewrite import (
    copied_to,
    entries,
    set_entries,
    substitute,
    text,
    variables,
    with_key,
)
from dorad.dataflow.sources import parse_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dorad.dataflow.model import NodeSpec, Source
    from dorad.dataflow.modules.header import Port
    from dorad.dataflow.modules.module import Level
    from dorad.dataflow.modules.project import Project
    from dorad.dataflow.problems import Problems
    from dorad.dataflow.types.compatible import Rule
    from dorad.dataflow.value import Value

_MAY_BUILD = (NodeKind.PATH, NodeKind.DYNAMIC, NodeKind.SHELL, NodeKind.URL)


@dataclass(frozen=True, slots=True)
class _Binding:
    """The source that is connected to an input port, or a mapping with source and options."""

    value: Value
    types: tuple[PortType, ...] = ()
    """Types of the port and of the outer ports that lead to it, innermost first."""


@dataclass(frozen=True, slots=True)
class _Use:
    """One use of a file, with everything that its nodes get from outside."""

    level: Level
    key: str = ""
    """The key of the node that names the module; empty for the dataflow itself."""
    prefix: str = ""
    """The prefix of the ids: `nav.`."""
    bindings: Mapping[str, _Binding] = field(default_factory=dict)
    output_types: Mapping[tuple[str, str], tuple[PortType, ...]] = field(default_factory=dict)
    """The types that ports declare for outputs of the members, innermost first."""
    params: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, Value] = field(default_factory=dict)
    deploy: Value | None = None
    build: tuple[str, ...] = ()
    via: tuple[str, ...] = ()


class Flattener:
    """The conversion of a dataflow and its modules to one list of nodes."""

    def __init__(
        self,
        project: Project,
        problems: Problems,
        *,
        strict_types: bool,
        rules: Sequence[Rule] = (),
    ) -> None:
        self.uses: list[ModuleUse] = []
        """The modules, outer ones first."""
        self._project = project
        self._problems = problems
        self._strict_types = strict_types
        self._rules = rules

    def nodes(self, level: Level) -> list[Value]:
        """Return all nodes of the dataflow; report mistakes under the keys of the nodes."""
        return list(self._members(_Use(level)))

    def _members(self, use: _Use) -> Iterator[Value]:
        for node, value in use.level.members:
            if use.key:
                value = with_key(value, f"{use.key}.{value.key}")
                _rename(value, f"{use.prefix}{node.id}")
            named = dict(entries(value, "inputs"))
            wired = [(body, self._wire(use, body)) for body in bodies(value)]
            env = _environment(use, value)
            module = use.level.modules.get(node.id)
            if module is None:
                self._inherit(use, node, value, env)
                self._apply_port_types(use, node, value, wired)
                yield value
            else:
                self._check_wired(module, value, named)
                yield from self._members(self._use_of(use, node, value, module, wired[0][1], env))

    def _use_of(
        self,
        use: _Use,
        node: NodeSpec,
        value: Value,
        module: Level,
        port_of: Mapping[str, str],
        env: Mapping[str, Value],
    ) -> _Use:
        """Return the use of a module by one member; `port_of` maps its inputs to outer ports."""
        assert isinstance(value.data, dict)
        via = (f"`{node.id}` in {use.level.file}:{value.line}", *use.via)
        name = f"{use.prefix}{node.id}"
        self.uses.append(ModuleUse(name, module.header.name, module.file, value.key, via))
        bindings = {}
        for port, source in entries(value, "inputs").items():
            outer = use.bindings[port_of[port]].types if port in port_of else ()
            own = _type_of(module.header.inputs[port], "input", module)
            bindings[port] = _Binding(source, (*own, *outer))
        output_types: dict[tuple[str, str], tuple[PortType, ...]] = {}
        for port, route in module.routes.items():
            outer = use.output_types.get((node.id, port), ())
            own = _type_of(module.header.outputs[port], "output", module)
            output_types[route] = (*output_types.get(route, ()), *own, *outer)
        return _Use(
            module,
            value.key,
            f"{name}.",
            bindings,
            output_types,
            {key: substitute(given, use.params) for key, given in node.params.items()},
            env,
            _given(value, "deploy") or use.deploy,
            (*use.build, *node.build, *module.build),
            via,
        )

    def _wire(self, use: _Use, body: Value) -> dict[str, str]:
        """Give the inputs their sources in the dataflow; return the port of each that has one.

        An input is removed if its port is not connected.
        """
        inputs = entries(body, "inputs")
        port_of: dict[str, str] = {}
        for name, value in list(inputs.items()):
            long = value.data if isinstance(value.data, dict) else {}
            source = parse_source(str((long["source"] if long else value).data))
            if use.key and isinstance(source, NodeOutput) and source.node == PORTS:
                binding = use.bindings.get(source.output)
                if binding is None:
                    del inputs[name]
                    entries(body, "input_types").pop(name, None)
                    continue
                port_of[name] = source.output
                inputs[name] = _with_port_source(value, binding.value)
            else:
                target = long["source"] if long else value
                target.data = target.text = _flat_source(use, source)
        return port_of

    def _check_wired(self, module: Level, value: Value, named: Mapping[str, Value]) -> None:
        """Report required ports that are connected to an optional port without a source."""
        wired = entries(value, "inputs")
        for port in module.header.inputs.values():
            if not port.optional and port.name not in wired and port.name in named:
                self._problems.error(
                    named[port.name],
                    f"{module.file} needs the input `{port.name}`, which comes from an optional"
                    " input that is not connected",
                    "connect that one, or make this one optional, too",
                )

    def _inherit(self, use: _Use, node: NodeSpec, value: Value, env: Mapping[str, Value]) -> None:
        """Give a program the keys that it inherits from the nodes that are modules."""
        if not use.key:
            return
        assert isinstance(value.data, dict)
        if env:
            set_entries(value, "env", env)
        args = value.data.get("args")
        if args is not None and isinstance(args.data, str):
            args.data = args.text = substitute(args.data, use.params)
        for path in programs(node, value):
            path.data = path.text = self._project.rebase(str(path.data), use.level.folder)
        if use.deploy is not None and _given(value, "deploy") is None:
            value.data["deploy"] = copied_to(use.deploy, f"{value.key}.deploy", value)
        body = next((b for b in bodies(value) if b is not value), value)
        if use.build and (body is not value or node.kind in _MAY_BUILD):
            assert isinstance(body.data, dict)
            own = _given(body, "build")
            target = own or text("", f"{body.key}.build", body)
            target.data = target.text = "\n".join((*use.build, *((own.text,) if own else ())))
            body.data["build"] = target

    def _apply_port_types(
        self, use: _Use, node: NodeSpec, value: Value, wired: list[tuple[Value, dict[str, str]]]
    ) -> None:
        """Give the inputs and outputs of a program the types of their ports."""
        for body, port_of in wired:
            for name, port in port_of.items():
                types = use.bindings[port].types
                self._apply_types(body, "input_types", name, types, inwards=True)
        for (member, output), types in use.output_types.items():
            if member == node.id:
                body, name = _sender(node, value, output)
                self._apply_types(body, "output_types", name, types, inwards=False)

    def _apply_types(
        self, body: Value, key: str, name: str, types: Sequence[PortType], *, inwards: bool
    ) -> None:
        rules, report = self._rules, self._report_types
        apply_port_types(body, key, name, types, inwards=inwards, rules=rules, report=report)

    def _report_types(self, target: Value, message: str) -> None:
        if self._strict_types:
            self._problems.error(target, message)
        else:
            self._problems.warn(target, message)


def _rename(value: Value, name: str) -> None:
    assert isinstance(value.data, dict)
    value.data["id"].data = value.data["id"].text = name


def _given(value: Value, name: str) -> Value | None:
    assert isinstance(value.data, dict)
    found = value.data.get(name)
    return None if found is None or found.data is None else found


def _environment(use: _Use, value: Value) -> dict[str, Value]:
    """Return the `env` of a node: inherited, overridden by its own, then by the parameters."""
    env = {
        name: copied_to(found, f"{value.key}.env.{name}", value)
        for name, found in use.env.items()
        if not is_reserved(name)  # reported where it is written
    }
    env |= entries(value, "env")
    for name, found in variables(use.params).items():
        env[name] = text(found, f"{value.key}.env.{name}", value)
    return env


def _with_port_source(value: Value, outer: Value) -> Value:
    """Return an input with the source of its port; its own options override the port's."""
    own, given = (v.data if isinstance(v.data, dict) else {} for v in (value, outer))
    source = str((given["source"] if given else outer).data)
    options = {name: copied_to(v, f"{value.key}.{name}", value) for name, v in given.items()}
    options |= {name: v for name, v in own.items() if v.data is not None}
    options["source"] = text(source, f"{value.key}.source", own.get("source", value))
    if len(options) == 1:
        return replace(value, data=source, text=source)
    return replace(value, data=options, text="")


def _flat_source(use: _Use, source: Source) -> str:
    match source:
        case NodeOutput(node) | LogSource(node=str(node)) if node in use.level.outside:
            return source.text
        case NodeOutput(node, output):
            module = use.level.modules.get(node)
            if module is not None:
                inner = module.origin(output)
                node, output = f"{node}.{inner.member}", inner.output
            elif not use.prefix:
                return source.text
            return f"{use.prefix}{node}/{output}"
        case LogSource(level, str(node)):
            return f"dora/logs/{level or ''}/{use.prefix}{node}"
    return source.text


def _type_of(port: Port, what: str, module: Level) -> tuple[PortType, ...]:
    if port.type is None:
        return ()
    return (PortType(port.type, f"the {what} `{port.name}` of {module.file}"),)


def _sender(node: NodeSpec, value: Value, output: str) -> tuple[Value, str]:
    """Return the mapping that declares an output of a node, and the output's name there."""
    if not node.operators:
        return value, output
    operator, _, name = output.partition("/")
    index = [found.id for found in node.operators].index(operator)
    return [body for body in bodies(value) if body is not value][index], name
