"""The content of a drawing of a dataflow: boxes and bundles of edges between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dorad.dataflow.model import (
    Dataflow,
    HopSource,
    Input,
    LogSource,
    ModuleUse,
    NodeKind,
    NodeOutput,
    NodeSpec,
    QueuePolicy,
    Timer,
    module_of,
)
from dorad.dataflow.types.ports import output_types


class BoxKind(StrEnum):
    """The look of a box."""

    NODE = "node"
    DYNAMIC = "dynamic"
    OPERATORS = "operators"
    TIMER = "timer"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Box:
    """A node, a timer or a stream of log lines."""

    key: str
    """Unique in the picture: the id of a node; keys of other sources contain a `/`."""
    kind: BoxKind
    title: str
    subtitle: str = ""
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class Wire:
    """One input: a line in the label of a bundle."""

    label: str
    """`image` if both ends have this name, else `image → frame`; empty for a timer's `tick`."""
    tooltip: str
    source: str
    """Such as `camera/image`, or `dora/timer/hz/30`."""
    target: str
    """`node/input`."""
    type: str = ""
    """The last part of the output's type, if it has one: `Image`."""
    backpressure: bool = False


@dataclass(frozen=True, slots=True)
class Bundle:
    """All edges from one box to another."""

    source: str
    target: str
    wires: tuple[Wire, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A module of the file: a frame around boxes."""

    title: str
    tooltip: str
    boxes: tuple[str, ...]
    """Keys of the boxes directly in it."""
    groups: tuple[Group, ...]
    """Modules in this module."""

    @property
    def all_boxes(self) -> tuple[str, ...]:
        """The keys of all boxes in it, nested modules included."""
        return (*self.boxes, *(key for group in self.groups for key in group.all_boxes))


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole drawing, without positions."""

    boxes: tuple[Box, ...]
    bundles: tuple[Bundle, ...]
    groups: tuple[Group, ...] = ()


def picture(dataflow: Dataflow) -> Picture:
    """Return the boxes of a dataflow (timers and logs first) and its bundles of edges."""
    outside: dict[str, Box] = {}
    wires: dict[tuple[str, str], list[Wire]] = {}
    for node in dataflow.nodes:
        for entry in node.all_inputs:
            match entry.source:
                case NodeOutput(node=source):
                    key = source
                case Timer() as timer:
                    key = str(timer)
                    outside.setdefault(key, _timer_box(timer))
                case LogSource() as logs:
                    key = str(logs)
                    outside.setdefault(key, _log_box(logs))
                case HopSource():
                    continue
            wires.setdefault((key, node.id), []).append(_wire(dataflow, node, entry))
    return Picture(
        (*outside.values(), *(_node_box(node) for node in dataflow.nodes)),
        tuple(Bundle(source, target, tuple(ws)) for (source, target), ws in wires.items()),
        _groups(dataflow, None) if dataflow.modules else (),
    )


def counts(dataflow: Dataflow) -> dict[str, int]:
    """Count the `nodes`, the `edges` between them, and the distinct `timers`."""
    sources = [entry.source for node in dataflow.nodes for entry in node.all_inputs]
    return {
        "nodes": len(dataflow.nodes),
        "edges": sum(isinstance(source, NodeOutput) for source in sources),
        "timers": len({source for source in sources if isinstance(source, Timer)}),
    }


def summary(dataflow: Dataflow) -> str:
    """Return the size of the dataflow in words: `5 nodes, 6 edges, 1 timer`."""
    return ", ".join(
        f"{count} {name.removesuffix('s') if count == 1 else name}"
        for name, count in counts(dataflow).items()
    )


def interval(nanoseconds: int) -> str:
    """Return an interval in words: `every 33 ms`, `every 2 s`, `every 250 µs`."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if nanoseconds >= size:
            return f"every {nanoseconds / size:.4g} {unit}"
    return f"every {nanoseconds} ns"


def _groups(dataflow: Dataflow, within: ModuleUse | None) -> tuple[Group, ...]:
    """Return the modules directly in a module, or in the dataflow itself."""
    return tuple(
        Group(
            use.id,
            f"{use.id}: {use.name} ({use.file})",
            tuple(n.id for n in dataflow.nodes if module_of(dataflow.modules, n.key) is use),
            _groups(dataflow, use),
        )
        for use in dataflow.modules
        if module_of(dataflow.modules, use.key) is within
    )


def _timer_box(timer: Timer) -> Box:
    hertz = timer.text.rpartition("/hz/")[2] if "/hz/" in timer.text else None
    title = f"{hertz} Hz" if hertz else interval(timer.interval_ns)
    return Box(str(timer), BoxKind.TIMER, title, tooltip=timer.text)


def _log_box(logs: LogSource) -> Box:
    title = " ".join(filter(None, ("logs", logs.level, logs.node)))
    return Box(str(logs), BoxKind.LOGS, title, tooltip=logs.text)


def _node_box(node: NodeSpec) -> Box:
    kind = BoxKind.NODE
    subtitle = ""
    match node.kind:
        case NodeKind.DYNAMIC:
            kind, subtitle = BoxKind.DYNAMIC, "connects later"
        case NodeKind.OPERATORS:
            kind = BoxKind.OPERATORS
            subtitle = ", ".join(operator.id for operator in node.operators)
        case NodeKind.SHELL:
            subtitle = "shell"
        case NodeKind.HUB:
            subtitle = node.hub or ""
        case NodeKind.ROS2:
            subtitle = "ROS 2"
        case NodeKind.PATH | NodeKind.URL:
            subtitle = (node.path or "").rstrip("/").rpartition("/")[2]
    return Box(node.id, kind, node.id, subtitle, _node_tooltip(node))


def _node_tooltip(node: NodeSpec) -> str:
    lines = [node.id if node.name is None else f"{node.name} ({node.id})"]
    if node.description:
        lines.append(node.description.strip())
    if node.path:
        lines.append(f"path: {' '.join(filter(None, (node.path, node.args)))}")
    if node.all_outputs:
        lines.append(f"outputs: {', '.join(node.all_outputs)}")
    return "\n".join(lines)


def _wire(dataflow: Dataflow, node: NodeSpec, entry: Input) -> Wire:
    target = f"{node.id}/{entry.id}"
    facts = [f"queue {entry.queue_size}", str(entry.queue_policy)]
    if entry.input_timeout is not None:
        facts.append(f"timeout {entry.input_timeout:g} s")
    label = entry.id
    urn = ""
    match entry.source:
        case NodeOutput(node=source, output=output):
            label = output if output == entry.id else f"{output} → {entry.id}"
            urn = output_types(dataflow.node(source)).get(output, "")
        case Timer():
            label = "" if entry.id == "tick" else entry.id
        case LogSource() | HopSource():
            pass
    if urn:
        facts.append(urn)
    return Wire(
        label,
        f"{entry.source.text} → {target}\n{' · '.join(facts)}",
        entry.source.text,
        target,
        urn.partition("[")[0].rpartition("/")[2],
        entry.queue_policy is QueuePolicy.BACKPRESSURE,
    )
