"""What an action would change, in words: shown before it is confirmed."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from dorad.control import messages as m
from dorad.natural import natural
from dorad.phrases import count_text, first_of
from dorafleet.console.model.commands import Action
from dorafleet.console.model.targets import Target

Detail: TypeAlias = "m.NodeDetail | m.DataflowDetail"

MAX_TARGETS = 50
"""Targets that are looked at; of more only the number is said."""
MAX_NAMED = 6
"""Nodes, inputs and robots that a plan names."""

_VERBS = {
    "stop-dataflow": "Stops",
    "restart-dataflow": "Stops and starts",
    "start-dataflow": "Starts",
}
_INPUTS = {
    "stop-node": "Get nothing any more",
    "restart-node": "Get nothing meanwhile",
}


def method_of(action: Action) -> m.CallMethod[Any, Any] | None:
    """Return the method that tells what an action is about; None if the target says all."""
    if action.name in _VERBS:
        return m.DATAFLOW_INFO
    return m.NODE_INFO if action.name in _INPUTS else None


def params_of(action: Action, target: Target) -> m.Struct:
    """Return the parameters of that method."""
    dataflow = target.dataflow or None
    if action.name in _VERBS:
        return m.Ref(dataflow=dataflow)
    return m.NodeRef(node=target.node, dataflow=dataflow)


def text(
    action: Action, details: Sequence[Detail], unknown: Mapping[str, str], more: int = 0
) -> str:
    """Return what an action would change.

    `unknown` has the targets of which the server told nothing, with the reasons; `more` is the
    number of targets that were not looked at.
    """
    parts = []
    flows = [each for each in details if isinstance(each, m.DataflowDetail)]
    if flows:
        names = [name for flow in flows for name in node_ids(flow)]
        robots = sorted({each for flow in flows for each in flow.info.machines}, key=natural)
        where = f" on {first_of(robots, MAX_NAMED)}" if robots else ""
        listed = f": {first_of(names, MAX_NAMED)}" if names else ""
        parts.append(f"{_VERBS[action.name]} {count_text(len(names), 'node')}{where}{listed}.")
    nodes = [each for each in details if isinstance(each, m.NodeDetail)]
    if nodes:
        own = {(each.info.dataflow, each.info.machine, each.info.node) for each in nodes}
        inputs = [
            f"{reader.node}/{reader.input}"
            for each in nodes
            for readers in each.outputs.values()
            for reader in readers
            if (each.info.dataflow, each.info.machine, reader.node) not in own
        ]
        names = list(dict.fromkeys(inputs))
        listed = first_of(names, MAX_NAMED) if names else "no input of another node"
        parts.append(f"{_INPUTS[action.name]}: {listed}.")
    if unknown:
        whom, why = next(iter(unknown.items()))
        others = f", and of {len(unknown) - 1} more" if len(unknown) > 1 else ""
        parts.append(f"What it changes is not known of {whom}{others}: {why}.")
    if more:
        parts.append(f"{count_text(more, 'more target')} not looked at.")
    return " ".join(parts)


def node_ids(flow: m.DataflowDetail) -> list[str]:
    """Return the ids of the nodes of a descriptor, which a robot may have made."""
    nodes = flow.descriptor.get("nodes")
    entries = nodes if isinstance(nodes, list) else []
    return [str(each["id"]) for each in entries if isinstance(each, dict) and "id" in each]
