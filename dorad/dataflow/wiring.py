"""Checks between nodes: ids are unique, sources exist, no cycle can block forever."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from dorad.dataflow.kinds import ALL_KEYS
from dorad.dataflow.model import (
    Input,
    LogSource,
    NodeKind,
    NodeOutput,
    NodeSpec,
    QueuePolicy,
    Source,
)
from dorad.dataflow.nearest import did_you_mean, nearest
from dorad.dataflow.problems import Problems, hint_for
from dorad.phrases import first_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dorad.dataflow.value import Value

_MAX_LISTED = 12


class _Edge(NamedTuple):
    consumer: NodeSpec
    input: Input
    key: str
    """The key of the input in the file."""
    receiver: str
    """The receiver: the node, or its operator as `node/operator`."""


def connect(
    nodes: Sequence[NodeSpec], values: Mapping[str, Value], problems: Problems
) -> tuple[NodeSpec, ...]:
    """Return the nodes with every source resolved; report sources that do not exist or fit.

    A source `node/output` whose node has a single `operator` becomes `node/<operator>/output`.
    """
    resolved, edges = _resolve_sources(nodes, values, problems)
    by_id = {node.id: node for node in resolved}
    _check_cycles(edges, by_id, values, problems)
    return resolved


def check_sources(
    nodes: Sequence[NodeSpec], values: Mapping[str, Value], problems: Problems
) -> None:
    """Report duplicate ids and sources that do not exist, but not cycles.

    Use this while some nodes are modules: the paths through modules are not known yet.
    """
    _resolve_sources(nodes, values, problems)


def _resolve_sources(
    nodes: Sequence[NodeSpec], values: Mapping[str, Value], problems: Problems
) -> tuple[tuple[NodeSpec, ...], list[_Edge]]:
    by_id: dict[str, NodeSpec] = {}
    for node in nodes:
        if node.id in by_id:
            first = values[by_id[node.id].key].where()
            problems.error_in_name(
                values.get(f"{node.key}.id", values[node.key]),
                f"two nodes with the id `{node.id}`, the first {first}",
            )
        elif node.id:
            by_id[node.id] = node
    resolved = tuple(nodes)
    if any(node.single_operator for node in by_id.values()):
        resolved = tuple(_resolve(node, by_id) for node in nodes)
    edges = [edge for node in resolved for edge in _edges(node)]
    for edge in edges:
        _check_source(edge, by_id, values, problems)
    return resolved, edges


def _edges(node: NodeSpec) -> Iterator[_Edge]:
    for entry in node.inputs:
        yield _Edge(node, entry, f"{node.key}.inputs.{entry.id}", node.id)
    for index, operator in enumerate(node.operators):
        body = node.operator_key(index)
        for entry in operator.inputs:
            key = f"{body}.inputs.{entry.id}"
            yield _Edge(node, entry, key, f"{node.id}/{operator.id}")


def _resolve(node: NodeSpec, by_id: Mapping[str, NodeSpec]) -> NodeSpec:
    def resolved(inputs: tuple[Input, ...]) -> tuple[Input, ...]:
        return tuple(replace(i, source=_full_source(i.source, by_id)) for i in inputs)

    operators = tuple(replace(op, inputs=resolved(op.inputs)) for op in node.operators)
    return replace(node, inputs=resolved(node.inputs), operators=operators)


def _full_source(source: Source, by_id: Mapping[str, NodeSpec]) -> Source:
    if not isinstance(source, NodeOutput):
        return source
    node = by_id.get(source.node)
    if node is None or not node.single_operator or source.output in node.all_outputs:
        return source
    return replace(source, output=f"{node.operators[0].id}/{source.output}")


def _hint_for_node(name: str, by_id: Mapping[str, NodeSpec]) -> str | None:
    if name in ("timer", "logs"):
        return f"write `dora/{name}/...`"
    return hint_for(name, by_id)


def _check_source(
    edge: _Edge, by_id: Mapping[str, NodeSpec], values: Mapping[str, Value], problems: Problems
) -> None:
    source = edge.input.source
    place = values.get(f"{edge.key}.source") or values[edge.key]
    name = source.node if isinstance(source, NodeOutput | LogSource) else None
    if name is None:
        return
    node = by_id.get(name)
    if node is None:
        problems.error(place, f"there is no node `{name}`", _hint_for_node(name, by_id))
    elif isinstance(source, NodeOutput) and not (
        _has_output(node, source.output) or _misspells_outputs(values[node.key])
    ):
        outputs = _written_outputs(node)
        written = source.text.partition("/")[2]
        hint = did_you_mean(written, outputs)
        if len(node.operators) and not node.single_operator:
            within = [output for output in outputs if output.endswith(f"/{written}")]
            hint = f"write `{node.id}/{within[0]}`" if within else hint
        problems.error(place, f"`{name}` has no output `{written}`; {_listing(outputs)}", hint)
    elif isinstance(source, NodeOutput):
        _check_options(edge, node, source, values, problems)


def _check_options(
    edge: _Edge, node: NodeSpec, source: NodeOutput, values: Mapping[str, Value], problems: Problems
) -> None:
    """Report options of an input that its source does not support."""
    if edge.input.latched and _is_printed(node, source.output):
        problems.error_in_name(
            values[f"{edge.key}.latched"],
            f"`{source.text}` carries printed lines, and the last one is not kept",
        )
    if edge.input.queue_policy is QueuePolicy.BACKPRESSURE and _is_printed(node, source.output):
        problems.warn(
            values[f"{edge.key}.queue_policy"],
            f"`{source.text}` carries printed lines, which wait for no receiver: the oldest are"
            " dropped, and counted, when the queue is full",
            "give it a larger `queue_size`",
        )
    if node.id != edge.consumer.id or not node.operators:
        return
    for key, given in (
        ("latched", edge.input.latched),
        ("max_rate_hz", edge.input.max_rate_hz is not None),
    ):
        if given:
            problems.error_in_name(
                values[f"{edge.key}.{key}"],
                f"`{source.text}` is an operator of the same node, which calls this one directly",
                "remove it, or put the operator into a separate node",
            )


def _is_printed(node: NodeSpec, output: str) -> bool:
    """Return True if the output carries lines that the node prints."""
    printed = {node.logging.send_stdout_as, node.logging.send_logs_as}
    for operator in node.operators:
        for target in (operator.logging.send_stdout_as, operator.logging.send_logs_as):
            printed.add(target and f"{operator.id}/{target}")
    return output in printed


def _has_output(node: NodeSpec, output: str) -> bool:
    """Return True if the node sends `output`, or if the file does not list its outputs."""
    return output in node.all_outputs or node.kind in (NodeKind.MODULE, NodeKind.HUB)


def _misspells_outputs(node: Value) -> bool:
    """Return True if `outputs` is probably misspelt; the unknown key was reported already."""
    keys = node.data if isinstance(node.data, dict) else {}
    return nearest("outputs", (key for key in keys if key not in ALL_KEYS)) is not None


def _written_outputs(node: NodeSpec) -> tuple[str, ...]:
    return node.operators[0].outputs if node.single_operator else node.all_outputs


def _listing(outputs: Sequence[str]) -> str:
    if not outputs:
        return "it has none"
    return f"it has {first_of(outputs, _MAX_LISTED)}"


def _sender(source: NodeOutput, by_id: Mapping[str, NodeSpec]) -> str:
    """Return the sender, a node or an operator; each waits for queue space separately."""
    node = by_id.get(source.node)
    if node is None or not node.operators:
        return source.node
    return f"{source.node}/{source.output.partition('/')[0]}"


def _check_cycles(
    edges: Sequence[_Edge],
    by_id: Mapping[str, NodeSpec],
    values: Mapping[str, Value],
    problems: Problems,
) -> None:
    """Report each cycle on which every input has backpressure.

    Each node on it could wait for space in the queue of the next one, and none would read.
    """
    blocking: dict[str, dict[str, _Edge]] = {}
    for edge in edges:
        source = edge.input.source
        if edge.input.queue_policy is QueuePolicy.BACKPRESSURE and isinstance(source, NodeOutput):
            blocking.setdefault(edge.receiver, {})[_sender(source, by_id)] = edge
    if not blocking:
        return
    from graphlib import CycleError, TopologicalSorter  # most dataflows never block

    while True:
        try:
            TopologicalSorter(blocking).prepare()
        except CycleError as error:
            cycle: list[str] = error.args[1]
        else:
            return
        # graphlib lists predecessors first: each name is the source of the one after it
        around = [blocking[consumer].pop(source) for source, consumer in pairwise(cycle)]
        place = values[min(around, key=lambda edge: values[edge.key].line).key]
        problems.error_in_name(
            place,
            f"every input on the cycle {' -> '.join(cycle)} has backpressure,"
            " so its nodes could block each other forever",
            "use `queue_policy: drop_oldest` for one of them",
        )
