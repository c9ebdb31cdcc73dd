"""Changes of a dataflow: add, remove or replace a node, add or remove an edge.

Pure functions: each returns a new checked dataflow with a new descriptor. The daemon stores the
descriptor, so that a restart brings back the changed dataflow.
"""

from __future__ import annotations

import logging
import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from dorad.dataflow.errors import DataflowError, TextError
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.model import (
    Dataflow,
    Input,
    LogSource,
    NodeKind,
    NodeOutput,
    NodeSpec,
    Operator,
    Source,
)
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.nodes import read_one
from dorad.dataflow.recording import keep_recorder
from dorad.dataflow.sources import parse_source
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Code = Literal["not-found", "exists", "refused"]

_log = logging.getLogger(__name__)

_SPAWNED = (NodeKind.PATH, NodeKind.URL, NodeKind.SHELL, NodeKind.OPERATORS, NodeKind.ROS2)


class TopologyError(ProblemError):
    """A change that cannot be made; `problems` lists what is wrong with a definition."""

    def __init__(
        self, code: Code, message: str, hint: str | None = None, problems: tuple[str, ...] = ()
    ) -> None:
        super().__init__(code, message, hint, problems)


def add_node(dataflow: Dataflow, definition: Mapping[str, Any]) -> Dataflow:
    """Return the dataflow with an additional node, which may receive from existing ones.

    `definition` is an entry of `nodes` as plain values with `env` expanded. Raises TopologyError.
    """
    node = _read(definition)
    if any(node.id == other.id for other in dataflow.nodes):
        raise TopologyError(
            "exists", f"there is a node `{node.id}` already", "`dora node replace` changes it"
        )
    descriptor = deepcopy(dataflow.descriptor)
    descriptor["nodes"] = [*(descriptor["nodes"] or ()), deepcopy(dict(definition))]
    return _checked(dataflow, descriptor)


def remove_node(dataflow: Dataflow, node_id: str) -> Dataflow:
    """Return the dataflow without a node and without the inputs that receive from it.

    Raises TopologyError.
    """
    _node(dataflow, node_id)
    descriptor = deepcopy(dataflow.descriptor)
    descriptor["nodes"] = [node for node in descriptor["nodes"] if node["id"] != node_id]
    for body in _bodies(descriptor):
        for input_id, value in dict(body.get("inputs") or {}).items():
            source = parse_source(value if isinstance(value, str) else value["source"])
            if isinstance(source, NodeOutput | LogSource) and source.node == node_id:
                del body["inputs"][input_id]
    return _checked(dataflow, descriptor)


def replace_node(dataflow: Dataflow, node_id: str, definition: Mapping[str, Any]) -> Dataflow:
    """Return the dataflow with another definition for a node, which keeps its edges.

    As in dora 1.x, id and inputs must be the same, all outputs that have receivers must remain, and
    dorad must start both programs. Raises TopologyError.
    """
    old, new = _node(dataflow, node_id), _read(definition)
    if new.id != node_id:
        raise TopologyError(
            "refused",
            f"the new definition is for `{new.id}`, not for `{node_id}`",
            f"write `id: {node_id}` into it",
        )
    for node, which in ((old, "node"), (new, "new definition")):
        if node.kind not in _SPAWNED:
            raise TopologyError(
                "refused",
                f"the {which} `{node_id}` is not a program that dorad starts, but `{node.kind}`",
                "only a node with a `path`, or with operators, can be replaced",
            )
    descriptor = deepcopy(dataflow.descriptor)
    descriptor["nodes"] = [
        deepcopy(dict(definition)) if node["id"] == node_id else node
        for node in descriptor["nodes"]
    ]
    consumed = {
        source.output: f"{node.id}/{entry.id}"
        for node in dataflow.nodes
        for entry in node.all_inputs
        if isinstance(source := entry.source, NodeOutput) and source.node == node_id
    }
    for output, consumer in consumed.items():
        if output not in new.all_outputs:
            raise TopologyError(
                "refused",
                f"the new definition has no output `{output}`, which `{consumer}` receives",
                "add it, or disconnect that input first",
            )
    after = _checked(dataflow, descriptor)
    _keep_inputs(old, after.node(node_id))
    return after


def connect(
    dataflow: Dataflow, source: str, target: str, options: Mapping[str, Any] | None = None
) -> Dataflow:
    """Return the dataflow with an additional edge, from `node/output` to `node/input`.

    The input may be a new one. `options` are those of its long form, with the defaults of a file.
    Raises TopologyError.
    """
    output, (consumer, input_id) = _output(dataflow, source), _target(dataflow, target)
    present = _input(consumer, input_id)
    if consumer.operators and _operator_of(consumer, input_id) is None:
        raise TopologyError(
            "not-found",
            f"`{consumer.id}` has no operator `{input_id.partition('/')[0]}`",
            f"write `{consumer.id}/<operator>/<input>`",
        )
    if present is not None and present.source == output:
        raise TopologyError("exists", f"`{source}` goes to `{target}` already")
    if present is not None:
        raise TopologyError(
            "exists",
            f"the input `{target}` already receives `{present.source.text}`",
            "disconnect that first, or choose another input",
        )
    descriptor = deepcopy(dataflow.descriptor)
    body, name = _body(descriptor, consumer, input_id)
    entry = {**options, "source": source} if options else source
    body["inputs"] = {**(body.get("inputs") or {}), name: deepcopy(entry)}
    return _checked(dataflow, descriptor)


def disconnect(dataflow: Dataflow, source: str, target: str) -> Dataflow:
    """Return the dataflow without the edge from `node/output` to `node/input`.

    Raises TopologyError.
    """
    output, (consumer, input_id) = _output(dataflow, source), _target(dataflow, target)
    entry = _input(consumer, input_id)
    if entry is None:
        raise TopologyError(
            "not-found",
            f"`{consumer.id}` has no input `{input_id}`",
            did_you_mean(input_id, (other.id for other in consumer.all_inputs)),
        )
    if entry.source != output:
        raise TopologyError(
            "not-found", f"the input `{target}` receives `{entry.source.text}`, not `{source}`"
        )
    descriptor = deepcopy(dataflow.descriptor)
    body, name = _body(descriptor, consumer, input_id)
    del body["inputs"][name]
    return _checked(dataflow, descriptor)


def changes(before: Dataflow, after: Dataflow) -> list[str]:
    """Return one line for each difference between two dataflows.

    The edges of added and removed nodes are not listed.
    """
    old, new = ({node.id: node for node in flow.nodes} for flow in (before, after))
    lines = [f"removed node {name}" for name in old if name not in new]
    lines += [f"added node {name}" for name in new if name not in old]
    both = [(old[name], node) for name, node in new.items() if name in old]
    lines += [f"replaced node {node.id}" for was, node in both if _replaced(was, node)]
    for was, node in both:
        lines += [
            f"disconnected {edge}"
            for edge, source in _edges(was).items()
            if edge not in _edges(node) and not _source_is_missing(source, new)
        ]
    for was, node in both:
        lines += [f"connected {edge}" for edge in _edges(node) if edge not in _edges(was)]
    return lines


def _read(definition: Mapping[str, Any]) -> NodeSpec:
    name = definition.get("id")
    try:
        return read_one(definition, name=f"node {name}" if isinstance(name, str) else "node")
    except DataflowError as error:
        raise _refusal(error) from None


def _checked(before: Dataflow, descriptor: dict[str, Any]) -> Dataflow:
    try:
        after = from_descriptor(descriptor, path=before.path)
    except DataflowError as error:
        nodes = descriptor["nodes"]
        problems = (
            replace(problem, key=re.sub(r"^nodes\[(\d+)\]", _name_of(nodes), problem.key))
            for problem in error.problems
        )
        raise _refusal(DataflowError(problems)) from None
    return keep_recorder(before, replace(after, base_dir=before.base_dir))


def _name_of(nodes: list[dict[str, Any]]) -> Callable[[re.Match[str]], str]:
    return lambda match: f"node {nodes[int(match[1])]['id']}"


def _refusal(error: DataflowError) -> TopologyError:
    _log.debug("a change is refused with %d problems", len(error.problems))
    if len(error.problems) == 1:
        problem = error.problems[0]
        key = problem.key and f"{problem.key}: "
        return TopologyError("refused", f"{key}{problem.message}", problem.hint)
    return TopologyError(
        "refused", "the definition has errors", None, tuple(map(str, error.problems))
    )


def _node(dataflow: Dataflow, node_id: str) -> NodeSpec:
    try:
        return dataflow.node(node_id)
    except KeyError:
        raise TopologyError(
            "not-found",
            f"there is no node `{node_id}`",
            did_you_mean(node_id, (node.id for node in dataflow.nodes)),
        ) from None


def _output(dataflow: Dataflow, text: str) -> NodeOutput:
    """Return the output that `text` names."""
    try:
        source = parse_source(text)
    except TextError as error:
        raise TopologyError("refused", error.message, error.hint) from None
    if not isinstance(source, NodeOutput):
        raise TopologyError("refused", f"`{text}` is not the output of a node")
    node = _node(dataflow, source.node)
    output = node.output_named(source.output)
    if output is not None:
        return replace(source, output=output)
    raise TopologyError(
        "not-found",
        f"`{node.id}` has no output `{text.partition('/')[2]}`",
        did_you_mean(source.output, node.all_outputs),
    )


def _target(dataflow: Dataflow, text: str) -> tuple[NodeSpec, str]:
    node_id, slash, input_id = text.partition("/")
    if not (slash and input_id):
        raise TopologyError("refused", f"`{text}` is not an input", "write `node/input`")
    node = _node(dataflow, node_id)
    if node.kind not in (*_SPAWNED, NodeKind.DYNAMIC):
        raise TopologyError("refused", f"the inputs of `{node_id}` cannot be changed")
    return node, input_name(node, input_id)


def input_name(node: NodeSpec, text: str) -> str:
    """Return the id of an input in the data plane for the name that a user gives.

    As in the file, the operator's id may be omitted for a node with a single `operator`.
    """
    if node.single_operator and _operator_of(node, text) is None:
        return f"{node.operators[0].id}/{text}"
    return text


def _operator_of(node: NodeSpec, input_id: str) -> Operator | None:
    """Return the operator that has, or would have, the input."""
    name, slash, _ = input_id.partition("/")
    return next((each for each in node.operators if slash and each.id == name), None)


def _input(node: NodeSpec, input_id: str) -> Input | None:
    return next((entry for entry in node.all_inputs if entry.id == input_id), None)


def _keep_inputs(old: NodeSpec, new: NodeSpec) -> None:
    """Raise TopologyError unless both have the same inputs: the new node gets the old mailbox."""
    were, are = ({entry.id: entry for entry in node.all_inputs} for node in (old, new))
    for input_id in were.keys() | are.keys():
        was, now = were.get(input_id), are.get(input_id)
        if was is None or now is None:
            having = "lacks" if now is None else "adds"
            difference = f"{having} the input `{input_id}`"
        elif was.source != now.source:
            difference = (
                f"has `{now.source.text}` for the input `{input_id}`, not `{was.source.text}`"
            )
        elif was.queue_size != now.queue_size:
            difference = (
                f"has `queue_size: {now.queue_size}` for the input `{input_id}`,"
                f" not {was.queue_size}"
            )
        elif was.queue_policy is not now.queue_policy:
            difference = (
                f"has `queue_policy: {now.queue_policy}` for the input `{input_id}`,"
                f" not `{was.queue_policy}`"
            )
        elif was.latched is not now.latched:
            difference = (
                f"has `latched: {str(now.latched).lower()}` for the input `{input_id}`,"
                f" not {str(was.latched).lower()}"
            )
        else:
            continue
        raise TopologyError(
            "refused",
            f"the new definition {difference}",
            "keep the inputs as they are; `dora node connect` and `disconnect` change them",
        )


def _bodies(descriptor: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all mappings that may have `inputs`."""
    for node in descriptor["nodes"]:
        yield node
        if node.get("operator"):
            yield node["operator"]
        yield from node.get("operators") or ()


def _body(descriptor: dict[str, Any], node: NodeSpec, input_id: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that has the `inputs` with this one, and its name there."""
    body: dict[str, Any] = next(body for body in descriptor["nodes"] if body["id"] == node.id)
    operator = _operator_of(node, input_id)
    if operator is None:
        return body, input_id
    name = input_id.partition("/")[2]
    if node.single_operator:
        return body["operator"], name
    return next(each for each in body["operators"] if each["id"] == operator.id), name


def _replaced(was: NodeSpec, now: NodeSpec) -> bool:
    """Return True if two definitions differ in anything but their edges."""
    options = {entry.id: replace(entry, long_form=False) for entry in was.all_inputs}
    return _without_inputs(was) != _without_inputs(now) or any(
        entry.source == options[entry.id].source
        and replace(entry, long_form=False) != options[entry.id]
        for entry in now.all_inputs
        if entry.id in options
    )


def _without_inputs(node: NodeSpec) -> NodeSpec:
    operators = tuple(replace(operator, inputs=()) for operator in node.operators)
    return replace(node, inputs=(), operators=operators)


def _edges(node: NodeSpec) -> dict[str, Source]:
    return {f"{i.source} -> {node.id}/{i.id}": i.source for i in node.all_inputs}


def _source_is_missing(source: Source, nodes: Mapping[str, NodeSpec]) -> bool:
    """Return True if the source is a node that is not in `nodes`."""
    name = source.node if isinstance(source, NodeOutput | LogSource) else None
    return name is not None and name not in nodes
