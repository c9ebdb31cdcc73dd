"""Make the groups of a release that runs over several machines: which, and which node is where."""

import shlex
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.releases import Group
from dorad.phrases import first_of
from dorad.release.manifest import Manifest
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.placement import Candidate as Machine
from dorafleet.coordinator.placement import Requirements, is_allowed, place
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.requirements import requirements_at
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.shares import check_reachable, port_of, ports_for, share_of
from dorafleet.rollout.plan import EACH, Candidate

MAX_MACHINES = 30
"""Machines of an instance: their orders are one transaction of the store."""
MAX_NAMED = 5


def units_for(scope: str, dataflow: str, chosen: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Return the machines of each instance by its name.

    Raises:
        ControlError: no robot has the label of the scope, or an instance is too large.
    """
    if scope == EACH:
        return {}
    label = scope.partition(":")[2]
    units: dict[str, list[Candidate]] = {}
    for each in chosen:
        name = each.labels.get(label) if label else dataflow
        if name:
            units.setdefault(name, []).append(each)
    if not units:
        raise ControlError(
            "refused",
            f"no robot has a label `{label}`",
            "`dorafleet labels ROBOT` shows and changes labels",
        )
    for name, unit in units.items():
        if len(unit) > MAX_MACHINES:
            raise ControlError(
                "refused", f"instance `{name}` has {len(unit)} machines, more than {MAX_MACHINES}"
            )
    return units


class Groups:
    """Places the nodes of a release on the machines of each instance."""

    def __init__(self, fleet: Fleet, robots: Robots, planner: Planner) -> None:
        self._fleet = fleet
        self._robots = robots
        self._planner = planner

    def make(
        self,
        scope: str,
        manifest: Manifest,
        chosen: Sequence[Candidate],
        fleet: Sequence[Candidate],
        given_up: Collection[str] = (),
    ) -> dict[str, Group]:
        """Return the group of each robot that gets a node; none with the scope `each`.

        And that of each robot which leaves an instance, because no node is left on it: there the
        group has none of it. `chosen` are robots of the `fleet`; those `given_up` get no node.

        Raises:
            ControlError: a node finds no machine, machines cannot be linked, or one that runs the
                dataflow now together with others would be torn from them.
        """
        _check_whole(chosen, fleet)
        if scope != EACH and manifest.format == 1:
            raise ControlError(
                "refused",
                "its manifest does not say where its nodes may run: it was built for dorad before "
                "0.2.0",
                "build it again, without --min-dorad",
            )
        groups: dict[str, Group] = {}
        for name, unit in units_for(scope, manifest.name, chosen).items():
            left = [each for each in unit if each.id not in given_up]
            if not left:
                raise ControlError(
                    "refused",
                    f"instance `{name}` has no machine: all of {_named(unit)} are given up",
                    "leave one out of --lost, or take them out of the fleet with "
                    "`dorafleet robot remove`",
                )
            groups |= self._place(name, left, manifest, scope)
        _check_given_up(given_up, groups, chosen)
        if scope != EACH:
            groups |= {
                each.id: _group_left(each.id, each.before_group, groups)
                for each in chosen
                if each.before_group is not None and each.id not in groups
            }
        return groups

    def _place(
        self, name: str, unit: Sequence[Candidate], manifest: Manifest, scope: str
    ) -> dict[str, Group]:
        nodes = requirements_at(manifest.places)
        ids = [each.id for each in unit]
        # Robots that are off take part: they follow when they are back.
        everywhere = [
            replace(each, trouble="")
            for each in self._planner.candidates(manifest.name, manifest.places)
        ]
        machines = [each for each in everywhere if each.id in ids]
        before = [group for each in unit if (group := each.before_group) is not None]
        before = [group for group in before if group.instance == name]
        stay = _staying(nodes, machines, before)
        others = self._planner.others(manifest.name)
        decisions = place(nodes, machines, [*stay, *others])
        for decision in decisions.values():
            if decision.machine is None:
                why = first_of(
                    (f"`{each.machine}`: {each.reason}" for each in decision.verdicts),
                    MAX_NAMED,
                    "; ",
                )
                node = next(each for each in nodes if each.id == decision.node)
                fitting = [each for each in everywhere if is_allowed(node, each)]
                raise ControlError(
                    "refused",
                    f"no machine of `{name}` takes the node `{decision.node}`: {why}",
                    _hint(name, scope, fitting, ids),
                )
        placement = {node: str(each.machine) for node, each in decisions.items()}
        used = set(placement.values())
        part = [id_ for id_ in self._robots.machines if id_ in used]
        known = self._robots.machines
        ports = {
            each.share.machine: port
            for each in before
            if each.share.machine in used and (port := port_of(each.share)) is not None
        }
        taken = self._fleet.ports_used(manifest.name)
        ports |= ports_for([id_ for id_ in part if id_ not in ports], known, taken)
        ports = {id_: ports[id_] for id_ in part}
        check_reachable(part, known, self._planner.peer)
        runs = {each.uuid for each in before}
        run = runs.pop() if len(runs) == 1 else str(uuid.uuid4())
        return {
            id_: Group(
                instance=name,
                uuid=run,
                share=share_of(placement, ports, id_, known, self._planner.peer),
            )
            for id_ in part
        }


def _group_left(id_: str, before: Group, groups: Mapping[str, Group]) -> Group:
    """Return the group of a machine that leaves its instance. Raises ControlError if none stays."""
    others = [group for group in groups.values() if group.instance == before.instance]
    if not others:
        raise ControlError(
            "refused",
            f"`{before.instance}` would have no machine any more: `{id_}` runs it now",
            "let a node stay there, or choose the scope with which it runs",
        )
    share = Share(machine=id_, placement=others[0].share.placement)
    return replace(others[0], share=share)


def _hint(instance: str, scope: str, fitting: Sequence[Machine], unit: Collection[str]) -> str:
    """Return the next step if no machine of an instance takes a node; `fitting` ones might."""
    if any(each.id in unit for each in fitting):
        return "stop there what uses it, or give the node another machine"
    label = scope.partition(":")[2]
    if not fitting:
        return "change `deploy` of the node, or labels and capacity of a machine"
    first = fitting[0]
    if not label:
        return f"`{first.id}` would: select it, too"
    theirs = first.labels.get(label)
    there = f"its label `{label}` is `{theirs}`" if theirs else f"it has no label `{label}`"
    return (
        f"`{first.id}` would, but {there}: `dorafleet labels {first.id} "
        f"{shlex.quote(f'{label}={instance}')}` if it belongs there"
    )


def _named(unit: Iterable[Candidate]) -> str:
    return first_of((f"`{each.id}`" for each in unit), MAX_NAMED)


def _check_given_up(
    given_up: Collection[str], groups: Mapping[str, Group], chosen: Iterable[Candidate]
) -> None:
    """Check that machines which are given up are away, and leave an instance.

    Raises:
        ControlError: names one that is not, or does not.
    """
    known = {each.id: each for each in chosen}
    for id_ in given_up:
        machine = known.get(id_)
        why = ""
        if machine is None or machine.before_group is None:
            why = "it runs no part of an instance that changes"
        elif machine.reachable:
            why = "it can be reached, and leaves by itself"
        if why:
            raise ControlError("refused", f"`{id_}` cannot be given up: {why}", "without --lost")


def _staying(
    nodes: Iterable[Requirements], machines: Sequence[Machine], before: Iterable[Group]
) -> list[tuple[Requirements, str]]:
    """Return the nodes that stay where they are: rules still allow their machine."""
    by_id = {each.id: each for each in machines}
    # A robot says it of itself, and of no other.
    home = {
        node: machine
        for group in before
        for node, machine in group.share.placement.items()
        if machine == group.share.machine
    }
    return [
        (node, there.id)
        for node in nodes
        if (there := by_id.get(home.get(node.id, ""))) is not None and is_allowed(node, there)
    ]


def _check_whole(chosen: Sequence[Candidate], fleet: Sequence[Candidate]) -> None:
    """Check that no instance that runs now is torn apart. Raises ControlError.

    Two robots are of one instance if both say so.
    """
    ids = {each.id for each in chosen}
    left = {
        each.before_group.uuid: each.id
        for each in fleet
        if each.before_group is not None and each.id not in ids
    }
    for each in chosen:
        group = each.before_group
        if group is not None and (other := left.get(group.uuid)) is not None:
            raise ControlError(
                "refused",
                f"`{each.id}` runs it together with `{other}`, which is not selected",
                f"select all machines of `{group.instance}`",
            )
