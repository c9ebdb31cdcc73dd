"""Plan where the nodes of a dataflow go, from the current state of fleet and robots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from dorafleet.coordinator.placement import Candidate, Requirements, Rule, place
from dorafleet.coordinator.records import labels_of
from dorafleet.coordinator.requirements import requirements_of
from dorafleet.coordinator.shares import check_reachable, ports_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from dorad.dataflow.model import Dataflow
    from dorad.dataflow.settings import Amounts
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.placement import Decision
    from dorafleet.coordinator.records import Record
    from dorafleet.coordinator.robot import Robot
    from dorafleet.coordinator.robots import Robots


class Plan(Struct, frozen=True):
    """Where the nodes of a dataflow go."""

    placement: dict[str, str]
    pending: dict[str, str]
    """Nodes that no machine takes, with the reason."""
    away: dict[str, str]
    """Machines that would take one of these nodes, but cannot be used now, with the reason."""
    ports: dict[str, int]
    """The port of the link process on each machine that takes part."""


class Planner:
    """Plans with the current state of fleet and robots."""

    def __init__(self, fleet: Fleet, robots: Robots, peer: str | None) -> None:
        """`peer` is the endpoint that all links connect to, if there is one."""
        self._fleet = fleet
        self._robots = robots
        self.peer = peer

    def labels(self, robot: Robot) -> dict[str, str]:
        """Return the labels that a robot has now."""
        return labels_of(robot.machine.labels, self._fleet.labels(robot.id))

    def candidates(self) -> list[Candidate]:
        """Return all machines, in the order of the cluster file."""
        return [
            Candidate(robot.id, self.labels(robot), _capacity(robot), robot.trouble)
            for robot in self._robots.all
        ]

    def decide(
        self,
        dataflow: Dataflow,
        key: str,
        stay: Mapping[str, str],
        *,
        leave: AbstractSet[str] = frozenset(),
    ) -> dict[str, Decision]:
        """Return a decision for each node of a dataflow; see `plan`."""
        nodes = requirements_of(dataflow)
        placed = [(node, stay[node.id]) for node in nodes if node.id in stay]
        machines = [each for each in self.candidates() if each.id not in leave]
        return place(nodes, machines, [*placed, *self.others(key)])

    def plan(
        self,
        dataflow: Dataflow,
        key: str,
        stay: Mapping[str, str],
        ports: Mapping[str, int],
        *,
        leave: AbstractSet[str] = frozenset(),
    ) -> Plan:
        """Return where the nodes of a dataflow go; those in `stay` keep their machine.

        `key` is that of the dataflow, `ports` those that its links have. No node goes to a machine
        in `leave`.

        Raises:
            ControlError: two of its machines cannot be linked, or one has no port left.
        """
        decisions = self.decide(dataflow, key, stay, leave=leave)
        placement = {id_: each.machine for id_, each in decisions.items() if each.machine}
        # Machines stay once they take part: their share ends with the dataflow.
        new = [id_ for id_ in self._robots.machines if id_ in set(placement.values()) - {*ports}]
        used = self._fleet.ports_used(key)
        every = {**ports, **ports_for(new, self._robots.machines, used)}
        check_reachable(tuple(every), self._robots.machines, self.peer)
        refused = [each for each in decisions.values() if each.machine is None]
        return Plan(
            placement,
            {each.node: _why(each) for each in refused},
            {
                verdict.machine: verdict.reason
                for each in refused
                for verdict in each.verdicts
                if verdict.rule is Rule.AWAY
            },
            every,
        )

    def replan(self, record: Record, lost: AbstractSet[str]) -> Plan | None:
        """Return where the nodes of a running dataflow go now; None if nothing changes.

        Pending nodes go where a machine takes them meanwhile. Those with `failover` leave machines
        in `lost`. All others stay.
        """
        if not record.pending and not lost & record.ports.keys():
            return None
        dataflow = self._fleet.dataflow(record)
        moving = {
            node.id
            for node in dataflow.nodes
            if (deploy := node.deploy or dataflow.deploy) is not None
            and deploy.failover
            and record.placement.get(node.id) in lost
        }
        if not record.pending and not moving:
            return None
        stay = {node: robot for node, robot in record.placement.items() if node not in moving}
        plan = self.plan(dataflow, record.key, stay, record.ports, leave=lost)
        # A node that no other machine takes stays: its machine may come back.
        placement = {**{node: record.placement[node] for node in moving}, **plan.placement}
        if placement == record.placement:
            return None
        pending = {node: why for node, why in plan.pending.items() if node not in moving}
        return replace(plan, placement=placement, pending=pending)

    def others(self, key: str) -> Iterator[tuple[Requirements, str]]:
        """Yield the nodes of other dataflows that run, under their own ids."""
        for record in self._fleet.running:
            if record.key == key:
                continue
            for node in requirements_of(self._fleet.dataflow(record)):
                machine = record.placement.get(node.id)
                if machine is not None:
                    id_ = f"{record.key}:{node.id}"
                    yield replace(node, id=id_, avoids_nodes=frozenset()), machine


def _capacity(robot: Robot) -> Amounts:
    """Return the capacity of a machine: that of the cluster file, or else the reported one."""
    given, attached = robot.machine.capacity, robot.attached
    if attached is None:
        return given
    return replace(
        given,
        cpu=attached.cores if given.cpu is None else given.cpu,
        memory=attached.memory if given.memory is None else given.memory,
    )


def _why(decision: Decision) -> str:
    return "; ".join(f"{each.machine}: {each.reason}" for each in decision.verdicts)
