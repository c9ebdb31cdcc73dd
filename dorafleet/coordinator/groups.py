"""Make the groups of a release that runs over several machines: which, and which node is where."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.messages.releases import Group
from dorad.phrases import first_of
from dorafleet.coordinator.placement import Candidate as Machine
from dorafleet.coordinator.placement import is_allowed, place
from dorafleet.coordinator.requirements import requirements_in
from dorafleet.coordinator.shares import check_reachable, port_of, ports_for, share_of
from dorafleet.rollout.plan import EACH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.release.manifest import Manifest
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.placement import Requirements
    from dorafleet.coordinator.planning import Planner
    from dorafleet.coordinator.robots import Robots
    from dorafleet.rollout.plan import Candidate

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
    found: dict[str, list[Candidate]] = {}
    for each in chosen:
        name = each.labels.get(label) if label else dataflow
        if name:
            found.setdefault(name, []).append(each)
    if not found:
        raise ControlError(
            "refused",
            f"no robot has a label `{label}`",
            "`dorafleet labels ROBOT` shows and changes labels",
        )
    for name, unit in found.items():
        if len(unit) > MAX_MACHINES:
            raise ControlError(
                "refused", f"instance `{name}` has {len(unit)} machines, more than {MAX_MACHINES}"
            )
    return found


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
    ) -> dict[str, Group]:
        """Return the group of each robot that gets a node; none with the scope `each`.

        `chosen` are robots of the `fleet`.

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
        found: dict[str, Group] = {}
        for name, unit in units_for(scope, manifest.name, chosen).items():
            found |= self._place(name, unit, manifest)
        lost = [
            each.id for each in chosen if each.before_group is not None and each.id not in found
        ]
        if lost and scope != EACH:
            raise ControlError(
                "refused",
                f"no node would be left on `{lost[0]}`, which runs some now",
                "let a node stay there, or give its nodes to it with `deploy`",
            )
        return found

    def _place(self, name: str, unit: Sequence[Candidate], manifest: Manifest) -> dict[str, Group]:
        nodes = requirements_in(manifest)
        ids = [each.id for each in unit]
        # Robots that are off take part: they follow when they are back.
        machines = [
            Machine(each.id, each.labels, each.capacity)
            for each in self._planner.candidates()
            if each.id in ids
        ]
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
                raise ControlError(
                    "refused", f"no machine of `{name}` takes the node `{decision.node}`: {why}"
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
