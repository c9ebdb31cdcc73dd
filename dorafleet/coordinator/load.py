"""The method `fleet.load`: what robots, instances and cells use and carry, in sums.

A robot that does not answer is named, and none of its figures is shown as if it were measured.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from dorad.control.messages import EdgeStats, NodeInfo, Top
from dorad.control.session import Call, handles
from dorad.int64 import clamped
from dorad.natural import natural
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.instances import Instances
from dorafleet.coordinator.loadmessages import FLEET_LOAD, FleetLoad, FleetLoadQuery, FleetLoads
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.robots import Robots

AT_ONCE = 100
"""Robots that are measured at the same time."""
FRESH_S = 1.0
"""Seconds for which a measurement is used: clients that ask at a time share it."""
LARGEST = 1e15
"""A robot may say anything; sums of larger figures would be no numbers any more."""


class RobotState(NamedTuple):
    """What the coordinator knows of a robot."""

    labels: Mapping[str, str]
    offset: float
    """Seconds by which its clock is ahead."""
    away: str
    """Why it cannot be reached; empty if it can."""


class FleetLoadMethods:
    """Answers the method `fleet.load`."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        instances: Instances,
        planner: Planner,
        measure: Callable[[list[str]], Awaitable[Top]],
    ) -> None:
        """`measure` asks robots for their nodes and edges."""
        self._fleet = fleet
        self._robots = robots
        self._instances = instances
        self._planner = planner
        self._measure = measure
        self._measuring = asyncio.Lock()
        self._last: tuple[float, Top] | None = None

    @handles(FLEET_LOAD)
    async def load(self, _call: Call, params: FleetLoadQuery) -> FleetLoads:
        """Measure all robots, and return the sums."""
        top = await self._measured()
        return FleetLoads(at=top.at, rows=loads(top, self._states(), self._placed(top), params.by))

    async def _measured(self) -> Top:
        async with self._measuring:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
                top = await self._measure_all()
                self._last = (time.monotonic(), top)  # only now: it may take longer than that
            return self._last[1]

    async def _measure_all(self) -> Top:
        """Measure all connected robots, some at a time: each of them has seconds to answer."""
        ids = [robot.id for robot in self._robots.all if robot.client]
        whole = Top(at=time.time(), window=0.0, nodes=[], edges=[])
        for start in range(0, len(ids), AT_ONCE):
            top = await self._measure(ids[start : start + AT_ONCE])
            whole.nodes += top.nodes
            for edge in top.edges:
                edge.latencies = []  # most of the memory, and in no sum
            whole.edges += top.edges
            whole.missing |= top.missing
        return whole

    def _states(self) -> dict[str, RobotState]:
        return {
            robot.id: RobotState(
                self._planner.labels(robot),
                robot.skew.seconds,
                "" if robot.client else "it is not connected",
            )
            for robot in self._robots.all
        }

    def _placed(self, top: Top) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the name and the robots of each dataflow over machines, by UUID."""
        placed = {each.uuid: (each.key, tuple(each.robots)) for each in self._fleet.running}
        for uuid in {node.dataflow for node in top.nodes} - placed.keys():
            if (instance := self._instances.find(uuid)) is not None:
                placed[uuid] = (str(instance.name), tuple(instance.robots))
        return placed


def loads(
    top: Top,
    states: Mapping[str, RobotState],
    placed: Mapping[str, tuple[str, tuple[str, ...]]],
    by: str,
) -> list[FleetLoad]:
    """Return the sums by robot, instance or label. A pure function.

    `placed` has the name and the robots of dataflows over machines, by UUID.
    """
    nodes: dict[str, list[NodeInfo]] = defaultdict(list)
    edges: dict[str, list[EdgeStats]] = defaultdict(list)
    members: dict[str, set[str]] = defaultdict(set)

    def name(robot: str, uuid: str, own: str | None) -> str:
        if by == "robot":
            return robot
        if by == "instance":
            return placed[uuid][0] if uuid in placed else f"{robot}/{own or uuid}"
        return states[robot].labels.get(by, "")

    for node in top.nodes:
        if (robot := node.machine or "") in states:
            title = name(robot, node.dataflow, node.dataflow_name)
            nodes[title].append(node)
            members[title].add(robot)
    for edge in top.edges:
        if (robot := edge.machine or "") in states:
            edges[name(robot, edge.dataflow, edge.dataflow_name)].append(edge)
    if by == "instance":
        for title, robots in placed.values():
            members[title].update(each for each in robots if each in states)
    else:
        for robot in states:
            members[name(robot, "", None)].add(robot)
    return [
        _load(title, members[title], states, top.missing, nodes[title], edges[title])
        for title in sorted(members, key=natural)
    ]


def _load(
    title: str,
    robots: set[str],
    states: Mapping[str, RobotState],
    silent: Mapping[str, str],
    nodes: list[NodeInfo],
    edges: list[EdgeStats],
) -> FleetLoad:
    missing = {
        robot: why
        for robot in sorted(robots, key=natural)
        if (why := states[robot].away or silent.get(robot, ""))
    }
    load = FleetLoad(name=title, robots=len(robots), missing=missing)
    measured = robots - missing.keys()
    if not measured:
        return load
    load.nodes = len(nodes)
    load.failed = sum(node.status == "failed" for node in nodes)
    load.restarts = clamped(sum(node.restarts for node in nodes))
    load.cpu = _sum(node.metrics.cpu for node in nodes)
    load.memory = clamped(sum(node.metrics.memory for node in nodes))
    load.rate = _sum(edge.rate for edge in edges)
    load.bandwidth = _sum(edge.bandwidth for edge in edges)
    load.drop_rate = _sum(edge.drop_rate for edge in edges)
    load.sent = clamped(sum(edge.sent for edge in edges))
    load.payload = clamped(sum(edge.payload for edge in edges))
    load.dropped = clamped(sum(edge.dropped for edge in edges))
    load.lost = clamped(sum(edge.lost for edge in edges))
    slow = [edge for edge in edges if edge.latency_p99 is not None]
    if slow:
        worst = max(slow, key=lambda edge: edge.latency_p99 or 0.0)
        load.latency_p99 = _bounded(worst.latency_p99 or 0.0)
        load.slowest = f"{worst.machine}: {worst.source} -> {worst.target}"
    offsets = [states[robot].offset for robot in measured]
    load.offset = offsets[0] if len(robots) == 1 else max(offsets) - min(offsets)
    return load


def _sum(values: Iterable[float]) -> float:
    return _bounded(sum(map(_bounded, values)))


def _bounded(value: float) -> float:
    return min(max(value, 0.0), LARGEST)
