"""Move the nodes of modules into the dataflow: ids, sources, paths, inherited keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from dorad.dataflow.env import is_reserved
from dorad.dataflow.errors import TextError
from dorad.dataflow.model import LogSource, ModuleUse, NodeKind, NodeOutput, NodeSpec, Source
from dorad.dataflow.modules.module import PORTS, Level, Port
from dorad.dataflow.modules.paths import bodies, programs
from dorad.dataflow.sources import parse_source
from dorad.dataflow.types.compatible import Rule, fits
from dorad.dataflow.types.urn import parse_urn
from dorad.dataflow.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dorad.dataflow.modules.project import Project
    from dorad.dataflow.problems import Problems

_REFERENCE = re.compile(r"\$\{_param\.([A-Za-z0-9_]+)\}|\$(PARAM_[A-Za-z0-9_]+)")


def with_key(value: Value, key: str) -> Value:
    """Return a deep copy of the value under another key."""
    data = value.data
    if isinstance(data, dict):
        data = {name: with_key(child, f"{key}.{name}") for name, child in data.items()}
    elif isinstance(data, list):
        data = [with_key(child, f"{key}[{index}]") for index, child in enumerate(data)]
    return replace(value, key=key, data=data)


def copied_to(value: Value, key: str, at: Value) -> Value:
    """Return a copy under another key with the position of `at`, which is in the right file."""
    moved = with_key(value, key)
    _move(moved, at)
    return moved


def text(content: str, key: str, at: Value) -> Value:
    """Return a new text value with the position of `at`."""
    return Value(content, content, key, at.line, at.column, at.name_line, at.name_column)


def entries(owner: Value, name: str) -> dict[str, Value]:
    """Return the entries of the mapping `name` in a mapping; empty if there is none."""
    assert isinstance(owner.data, dict)
    value = owner.data.get(name)
    return value.data if value is not None and isinstance(value.data, dict) else {}


def set_entries(owner: Value, name: str, content: Mapping[str, Value]) -> None:
    """Set the mapping `name` in a mapping."""
    assert isinstance(owner.data, dict)
    key = f"{owner.key}.{name}"
    before = owner.data.get(name) or text("", key, owner)
    owner.data[name] = replace(before, text="", data=dict(content))


def substitute(text: str, params: Mapping[str, str]) -> str:
    """Return the text with `${_param.key}` and `$PARAM_KEY` replaced by the parameter's text.

    As in dora 1.x, the first form is case-sensitive, references to unknown parameters stay, and
    replaced text is not expanded again.
    """
    if "$" not in text or not params:
        return text
    by_variable = variables(params)

    def value(match: re.Match[str]) -> str:
        given = params.get(match[1]) if match[1] else by_variable.get(match[2])
        return match[0] if given is None else given

    return _REFERENCE.sub(value, text)


def variables(params: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables with the parameters for a module's nodes."""
    return {f"PARAM_{name.upper()}": text for name, text in params.items()}


def _move(value: Value, at: Value) -> None:
    value.line, value.column = at.line, at.column
    value.name_line, value.name_column = at.name_line, at.name_column
    children = value.data if isinstance(value.data, list) else ()
    for child in value.data.values() if isinstance(value.data, dict) else children:
        _move(child, at)


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
    given = value.data.get(name)
    return None if given is None or given.data is None else given


def _environment(use: _Use, value: Value) -> dict[str, Value]:
    """Return the `env` of a node: inherited, overridden by its own, then by the parameters."""
    env = {
        name: copied_to(variable, f"{value.key}.env.{name}", value)
        for name, variable in use.env.items()
        if not is_reserved(name)  # reported where it is written
    }
    env |= entries(value, "env")
    for name, variable in variables(use.params).items():
        env[name] = text(variable, f"{value.key}.env.{name}", value)
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
    index = [each.id for each in node.operators].index(operator)
    return [body for body in bodies(value) if body is not value][index], name
