"""Make requirements from `deploy` blocks, and find unknown names in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.problems import hint_for, in_order
from dorad.dataflow.settings import Amounts, Deploy
from dorafleet.coordinator.placement import Candidate, Requirements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dorad.dataflow.errors import Problem
    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.release.manifest import Place

_MAX_VALUES = 5


def requirements_of(dataflow: Dataflow) -> tuple[Requirements, ...]:
    """Return the requirements of each node; a node without `deploy` has that of the dataflow."""
    return tuple(_requirements(node, dataflow) for node in dataflow.nodes)


def problems_of(dataflow: Dataflow, machines: Sequence[Candidate]) -> tuple[Problem, ...]:
    """Return the problems of unknown machines, labels and nodes, in order of the file."""
    blocks = [(node.key, node.deploy, node.id) for node in dataflow.nodes]
    if any(deploy is None for _, deploy, _ in blocks):
        blocks.append(("", dataflow.deploy, ""))
    problems: list[Problem] = []
    for key, deploy, own in blocks:
        if deploy is not None:
            place = f"{key}.deploy" if key else "deploy"
            problems += _of_names(dataflow, deploy, place, own, machines)
            problems += _of_labels(dataflow, deploy, place, machines)
    # Nodes of a module share its block.
    return in_order(dict.fromkeys(problems))


def _requirements(node: NodeSpec, dataflow: Dataflow) -> Requirements:
    deploy = node.deploy or dataflow.deploy or Deploy()
    avoided = (dataflow.ids_of(name) for name in deploy.avoid.nodes)
    return Requirements(
        node.id,
        deploy.machine,
        deploy.labels,
        deploy.needs,
        frozenset(deploy.avoid.machines),
        frozenset(id_ for ids in avoided for id_ in ids) - {node.id},
    )


def requirements_at(places: Mapping[str, Place]) -> tuple[Requirements, ...]:
    """Return the requirements of the nodes of a release, by the places where they may run."""
    return tuple(_placed(node, place) for node, place in places.items())


def _placed(node: str, place: Place) -> Requirements:
    return Requirements(
        node,
        place.machine or None,
        place.labels,
        Amounts(place.cpu, place.memory, place.gpu, tuple(place.devices) or None),
        frozenset(place.avoid_machines),
        frozenset(place.avoid_nodes),
    )


def _of_names(
    dataflow: Dataflow, deploy: Deploy, place: str, own: str, machines: Sequence[Candidate]
) -> Iterator[Problem]:
    ids = [machine.id for machine in machines]
    if deploy.machine is not None and deploy.machine not in ids:
        message = f"there is no machine `{deploy.machine}`"
        yield dataflow.problem(f"{place}.machine", message, hint_for(deploy.machine, ids))
    for index, name in enumerate(deploy.avoid.machines):
        if name not in ids:
            key = f"{place}.avoid.machines[{index}]"
            yield dataflow.problem(key, f"there is no machine `{name}`", hint_for(name, ids))
    for index, name in enumerate(deploy.avoid.nodes):
        key = f"{place}.avoid.nodes[{index}]"
        named = dataflow.ids_of(name)
        if not named:
            nodes = [node.id for node in dataflow.nodes]
            yield dataflow.problem(key, f"there is no node `{name}`", hint_for(name, nodes))
        elif named == [own]:
            yield dataflow.problem(key, "a node cannot avoid itself", "remove it")


def _of_labels(
    dataflow: Dataflow, deploy: Deploy, place: str, machines: Sequence[Candidate]
) -> Iterator[Problem]:
    known = {name for machine in machines for name in machine.labels}
    single = False
    for name, value in deploy.labels.items():
        values = {machine.labels[name] for machine in machines if name in machine.labels}
        if value in values:
            continue
        single = True
        hint: str | None
        if values:
            message = f"no machine has the label `{name}` with `{value}`"
            hint = did_you_mean(value, values) or f"there is {_listed(values)}"
        else:
            message, hint = f"no machine has a label `{name}`", hint_for(name, sorted(known))
        yield dataflow.problem(f"{place}.labels.{name}", message, hint)
    if deploy.labels and not single:
        pairs = deploy.labels.items()
        if not any(pairs <= machine.labels.items() for machine in machines):
            message = "each of these labels is on some machine, but no machine has all of them"
            yield dataflow.problem(f"{place}.labels", message)


def _listed(values: Iterable[str]) -> str:
    ordered = sorted(values)
    shown = ", ".join(f"`{value}`" for value in ordered[:_MAX_VALUES])
    return f"{shown}, …" if len(ordered) > _MAX_VALUES else shown
