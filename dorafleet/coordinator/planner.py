"""Plan where the nodes of a dataflow go, from the current state of fleet and robots."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from msgspec import Struct
from msgspec.structs import replace

from dorad.control.agentsettings import refusal, refusals
from dorad.control.errors import ControlError
from dorad.control.messages.releases import Group
from dorad.dataflow.model import Dataflow
from dorad.dataflow.settings import Amounts
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.placement import Candidate, Decision, Requirements, Rule, place
from dorafleet.coordinator.records import DataflowRecord, labels_of
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.requirements import requirements_of
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.shares import check_reachable, ports_for, share_of


class PlacementPlan(Struct, frozen=True):
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

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        releases: Releases,
        rollouts: Rollouts,
        peer: str | None,
    ) -> None:
        """`peer` is the endpoint that all links connect to, if there is one."""
        self._fleet = fleet
        self._robots = robots
        self._releases = releases
        self._rollouts = rollouts
        self.peer = peer

    def labels(self, robot: Robot) -> dict[str, str]:
        """Return the labels that a robot has now."""
        return labels_of(robot.machine.labels, self._fleet.labels(robot.id))

    def candidates(
        self, dataflow: str = "", nodes: Collection[str] = (), *, inline: bool = False
    ) -> list[Candidate]:
        """Return all machines, in their order, with what they refuse of these nodes."""
        return [
            Candidate(
                robot.id,
                self.labels(robot),
                _capacity(robot),
                robot.trouble,
                refusals(robot.accepts, dataflow, nodes, inline=inline),
            )
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
        ids = [node.id for node in nodes]
        machines = [each for each in self.candidates(key, ids, inline=True) if each.id not in leave]
        return place(nodes, machines, [*placed, *self.others(key)])

    def plan(
        self,
        dataflow: Dataflow,
        key: str,
        stay: Mapping[str, str],
        ports: Mapping[str, int],
        *,
        leave: AbstractSet[str] = frozenset(),
    ) -> PlacementPlan:
        """Return where the nodes of a dataflow go; those in `stay` keep their machine.

        `key` is that of the dataflow, `ports` those that its links have. No node goes to a machine
        in `leave`.

        Raises:
            ControlError: two of its machines cannot be linked, or one has no port left or refuses
                links to the others.
        """
        decisions = self.decide(dataflow, key, stay, leave=leave)
        placement = {id_: each.machine for id_, each in decisions.items() if each.machine}
        # Machines stay once they take part: their share ends with the dataflow.
        new = [id_ for id_ in self._robots.machines if id_ in set(placement.values()) - {*ports}]
        used = self._fleet.ports_used(key)
        every = {**ports, **ports_for(new, self._robots.machines, used)}
        check_reachable(tuple(every), self._robots.machines, self.peer)
        if new:
            self._check_peers(key, placement, every)
        refused = [each for each in decisions.values() if each.machine is None]
        return PlacementPlan(
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

    def _check_peers(self, key: str, placement: dict[str, str], ports: Mapping[str, int]) -> None:
        """Check that each machine takes the links to the others. Raises ControlError."""
        for id_ in ports:
            robot = self._robots.find(id_)
            if robot is None:
                continue
            share = share_of(placement, ports, id_, self._robots.machines, self.peer)
            if why := refusal(robot.accepts, key, (), {}, share):
                raise refused_by(id_, why)

    def replan(self, record: DataflowRecord, lost: AbstractSet[str]) -> PlacementPlan | None:
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
        """Yield the nodes of other dataflows that run, or may run without a new plan, under ids of
        the form `dataflow:node`.
        """
        for record in self._fleet.running:
            if record.key != key:
                for node in requirements_of(self._fleet.dataflow(record)):
                    if (machine := record.placement.get(node.id)) is not None:
                        yield Requirements(f"{record.key}:{node.id}", needs=node.needs), machine
        for robot in self._robots.all:
            for each in self._of_releases(robot, key):
                yield each, robot.id

    def _of_releases(self, robot: Robot, but: str) -> list[Requirements]:
        """Return the nodes of released dataflows on one robot; all but those of one dataflow.

        Of a node that several releases have, one runs at a time: it counts with the most of each.
        """
        nodes: dict[str, Requirements] = {}
        for name, id_, group in (*self._present(robot), *self._rollouts.planned(robot.id)):
            for node in self._releases.needs(id_) if name != but else ():
                here = group is None or group.share.placement.get(node.id) == robot.id
                if here:
                    own = f"{name}:{node.id}"
                    known = nodes.get(own)
                    needs = node.needs if known is None else most(known.needs, node.needs)
                    nodes[own] = Requirements(own, needs=needs)
        return list(nodes.values())

    def _present(self, robot: Robot) -> Iterator[tuple[str, str, Group | None]]:
        """Yield what a robot runs, is to run, or goes back to by itself: the dataflow, its
        release, and the machines that run it together.
        """
        for name, order in self._fleet.orders(robot.id).items():
            if (state := robot.releases.get(name)) is not None:
                yield name, state.running, order.group
                if order.enabled and state.running != state.confirmed:
                    yield name, state.confirmed, state.group
            if order.switch and order.enabled:
                yield name, order.release, order.group

    def check_devices(
        self, key: str, nodes: Iterable[Requirements], robots: Collection[str]
    ) -> None:
        """Check that no other dataflow uses a device of these nodes on one of the robots.

        Raises:
            ControlError: names both nodes, the device and the robot.
        """
        wanted = {device: node.id for node in nodes for device in node.needs.devices or ()}
        if not wanted:
            return
        for other, robot in self.others(key):
            for device in other.needs.devices or ():
                if robot in robots and device in wanted:
                    name, _, node = other.id.partition(":")
                    raise ControlError(
                        "refused",
                        f"node `{wanted[device]}` needs `{device}` of `{robot}`, which node "
                        f"`{node}` of `{name}` uses",
                        f"stop `{name}` there first, or leave out `{robot}`",
                    )


def refused_by(robot: str, why: str, more: str = "") -> ControlError:
    """Return the error for a robot whose own file refuses something; `more` counts others."""
    hint = f"change the file on `{robot}`, or leave it out"
    return ControlError("refused", f"robot `{robot}`{more} refuses: {why}", hint)


def most(one: Amounts, other: Amounts) -> Amounts:
    """Return what covers each of two needs."""
    return Amounts(
        cpu=max(one.cpu or 0.0, other.cpu or 0.0) or None,
        memory=max(one.memory or 0, other.memory or 0) or None,
        gpu=max(one.gpu or 0, other.gpu or 0) or None,
        devices=tuple(dict.fromkeys((*(one.devices or ()), *(other.devices or ())))) or None,
    )


def _capacity(robot: Robot) -> Amounts:
    """Return the capacity of a machine: the one that is given, or else the reported one."""
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
