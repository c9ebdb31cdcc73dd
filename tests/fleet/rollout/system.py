"""Robots with nodes under one coordinator: what rollouts are judged by, whatever is behind it.

`System` is the interface: verbs of operators and of the world, and what can be observed.
`PureSystem` is the present implementation: the pure functions of the agent and of the coordinator
over simulated nodes, networks, disks and clocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.releases import Group
from dorafleet.coordinator.drift import Compared, drift_of
from dorafleet.coordinator.orders import order_of
from dorafleet.coordinator.rollouts import before_of, rejected_of, wanted_of
from dorafleet.rollout.decide import decide, is_over
from dorafleet.rollout.messages import RolloutNew
from dorafleet.rollout.model import Member, Rollout, Seen, View
from dorafleet.rollout.operate import Pace, operate
from dorafleet.rollout.plan import Candidate, select
from dorafleet.rollout.steps import Orders, apply
from dorafleet.rollout.strategy import Strategy
from tests.agent.releases.simrobot import RULES, SEQUENCES, TICK_S, UUID, Event, SimRobot

if TYPE_CHECKING:
    from dorad.control.messages.releases import ReleaseState
    from dorafleet.coordinator.records import Wanted

SOAK_S = 120.0
STRATEGY = Strategy(canary=1, max_parallel=1, rules=RULES, progress_deadline=300, soak_time=SOAK_S)
MAX_STEPS = 50


def group_of(robot: str) -> Group:
    """Return the group of a robot: each runs a copy of all nodes, and only the switch is common."""
    placement = dict.fromkeys(("pub", "con", "idle", "once"), robot)
    return Group(instance="cell", uuid=UUID, share=Share(machine=robot, placement=placement))


@dataclass
class RobotSeen:
    """One robot, as one who stands beside it and has the fleet's commands sees it."""

    connected: bool
    phase: str
    release: str
    """That runs."""
    nodes: list[str]
    """That run."""
    rejected: set[str]
    """Releases that have failed there, or were undone while it was told of it."""
    events: list[Event]
    """What has happened since the last observation."""
    drift: list[str]


@dataclass
class SystemSeen:
    robots: dict[str, RobotSeen]
    phase: str
    """Of the newest rollout."""
    verdicts: dict[str, str]
    """Of the newest rollout."""
    undone: frozenset[str]
    canary: str = ""
    ordered: list[str] = field(default_factory=list)
    """Robots with an order to switch that was given since the last observation."""


class System(Protocol):
    """Verbs raise ControlError if they are refused."""

    def start(self, release: str, *, retry: bool, allow_lower: bool) -> None: ...
    def undo(self, *, at_once: bool) -> None: ...
    def abort(self) -> None: ...
    def stop(self, robot: str) -> None: ...
    def restart(self, robot: str) -> None: ...
    def cut(self, robot: str) -> None: ...
    def heal(self, robot: str) -> None: ...
    def cut_power(self, robot: str) -> None: ...
    def fill_disk(self, robot: str, *, full: bool) -> None: ...
    def pass_time(self, seconds: float) -> None: ...
    def observe(self) -> SystemSeen: ...


class PureSystem:
    """See the module."""

    def __init__(self, robots: int, scope: str = "each") -> None:
        """With the scope `one` all robots change as one instance."""
        self.scope = scope
        self.robots = {f"r{n}": SimRobot(f"r{n}") for n in range(1, robots + 1)}
        self.now = 1_800_000_000.0
        self.generation = 0
        self.heads: dict[int, Rollout] = {}
        self.members: dict[int, dict[str, Member]] = {}
        self.wanted: dict[str, Wanted] = {}
        self.states: dict[str, ReleaseState] = {}
        """The last reports."""
        self.away: dict[str, float] = {}
        self.entered: dict[str, tuple[object, float]] = {}
        self.failed: dict[str, set[str]] = {robot: set() for robot in self.robots}
        self.told: dict[str, set[str]] = {robot: set() for robot in self.robots}
        self.switched: list[str] = []
        self.committed: set[tuple[str, str]] = set()
        """Robots and releases that were committed for their instance, or that they go back to."""
        self.strategy = STRATEGY

    # -- operators

    def start(self, release: str, *, retry: bool, allow_lower: bool) -> None:
        new = RolloutNew(
            release=release, retry=retry, allow_lower=allow_lower, strategy=self.strategy,
            scope=self.scope,
        )  # fmt: skip
        fleet = [self._candidate(robot, release) for robot in self.robots]
        groups = {}
        if self.scope == "one":
            groups = {id_: group_of(id_) for id_ in self.robots}
        found = select(new, fleet, SEQUENCES[release], ["pub", "con", "idle", "once"], groups)
        for head in self.heads.values():
            if not head.over and not head.is_final:
                self.heads[head.number] = operate(head, (), "supersede", "a newer one", self.now)
        number = len(self.heads) + 1
        self.heads[number] = Rollout(
            number=number, dataflow="flow", release=release, name=f"flow@{SEQUENCES[release]}",
            strategy=self.strategy, size=len(found.members), by="ann", created=self.now,
            since=self.now, retry=retry, allow_lower=allow_lower,
        )  # fmt: skip
        self.members[number] = {member.robot: member for member in found.members}

    def undo(self, *, at_once: bool) -> None:
        self._operate("undo", Pace(at_once=True) if at_once else None)

    def abort(self) -> None:
        self._operate("abort", None)

    def _operate(self, act, pace) -> None:
        if not self.heads:
            raise ControlError("not-found", "there is no rollout yet")
        number = max(self.heads)
        members = self.members[number].values()
        self.heads[number] = operate(self.heads[number], members, act, "ann", self.now, pace)

    def stop(self, robot: str) -> None:
        self.robots[robot].stop()

    def restart(self, robot: str) -> None:
        self.robots[robot].restart_dead()

    # -- the world

    def cut(self, robot: str) -> None:
        self.robots[robot].cut()

    def heal(self, robot: str) -> None:
        self.robots[robot].heal()

    def cut_power(self, robot: str) -> None:
        self.robots[robot].cut_power()

    def fill_disk(self, robot: str, *, full: bool) -> None:
        self.robots[robot].disk_full = full

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / TICK_S)):
            self.now += TICK_S
            for robot in self.robots.values():
                robot.tick()
                self._report(robot)
            self._drive()

    def observe(self) -> SystemSeen:
        number = max(self.heads, default=0)
        undone = rejected_of(self.heads.values())
        found = {}
        for id_, robot in self.robots.items():
            for event in robot.events:
                if event.what == "blamed":
                    self.failed[id_].add(event.release)
            state = robot.state
            compared = Compared(
                robot=id_,
                reachable=robot.up,
                orders={} if id_ not in self.wanted else {"flow": self.wanted[id_]},
                releases={} if id_ not in self.states else {"flow": self.states[id_]},
            )
            found[id_] = RobotSeen(
                connected=robot.up,
                phase="" if state is None else state.phase,
                release="" if state is None else state.running,
                nodes=robot.running,
                rejected=self.failed[id_] | (self.told[id_] & undone),
                events=robot.events,
                drift=[f"{row.what}: {row.found}" for row in drift_of(compared, lambda id_: id_)],
            )
            robot.events = []
        switched, self.switched = self.switched, []
        members = self.members.get(number, {})
        return SystemSeen(
            found,
            self.heads[number].phase if number else "",
            {id_: member.verdict for id_, member in members.items()},
            undone,
            next((id_ for id_, member in members.items() if member.batch == 0), ""),
            switched,
        )

    # -- the coordinator

    def _candidate(self, robot: str, release: str) -> Candidate:
        state, wanted = self.states.get(robot), self.wanted.get(robot)
        on_it = (
            wanted is not None and wanted.release == release and wanted.switch
            and state is not None and state.phase == "confirmed" and state.running == release
            and not state.failed and not state.ended
        )  # fmt: skip
        before, group = "", None
        if state is not None:
            before, group = before_of(state, rejected_of(self.heads.values()))
        return Candidate(
            id=robot, labels={}, before=before, before_group=group, is_on_it=on_it,
            sequence=0 if state is None else state.sequence,
            reachable=self.robots[robot].up,
        )  # fmt: skip

    def _report(self, robot: SimRobot) -> None:
        state = robot.state
        if not robot.up:
            self.away.setdefault(robot.id, self.now)
            return
        self.away.pop(robot.id, None)
        if state is not None:
            self.states[robot.id] = state
        wanted = self.wanted.get(robot.id)
        if wanted is None:
            return
        known = 0 if robot.record is None else robot.record.version[1]
        if known < wanted.generation:
            order = order_of("flow", wanted, self.heads.get(wanted.rollout), 1)
            if robot.deliver(order):
                if order.retry and order.release:
                    self.failed[robot.id].discard(order.release)
                if order.release and not order.stay:
                    self.told[robot.id].discard(order.release)
                self.told[robot.id] |= {each.release for each in order.rejects} - {order.release}
                self.states[robot.id] = robot.state

    def _view(self, number: int) -> View:
        members = self.members[number]
        seen = {}
        for id_, member in members.items():
            robot, state, wanted = self.robots[id_], self.states.get(id_), self.wanted.get(id_)
            key = (member.order, member.generation, None if state is None else state.phase)
            if self.entered.get(id_, (None, 0.0))[0] != key:
                self.entered[id_] = (key, self.now)
            seen[id_] = Seen(
                reachable=robot.up,
                trouble="" if robot.up else "it is off",
                away_for=self.now - self.away.get(id_, self.now),
                state=state,
                phase_for=self.now - self.entered[id_][1] if robot.up else 0.0,
                owned=not member.order
                or (wanted is not None and wanted.generation == member.generation),
            )
        head = self.heads[number]
        rejected = rejected_of(self.heads.values()) - {head.release}
        return View(head, members, seen, {}, self.now, rejected)

    def _drive(self) -> None:
        for number in sorted(self.heads):
            for _ in range(MAX_STEPS):
                if self.heads[number].over:
                    break
                view = self._view(number)
                step = decide(view).step
                if step is None:
                    if is_over(view):
                        self.heads[number] = msgspec.structs.replace(self.heads[number], over=True)
                    break
                self._make(number, step)
            else:
                raise AssertionError(f"rollout {number} never rests: {step}")

    def _make(self, number: int, step: object) -> None:
        self.generation += 1
        before = self.members[number]
        head, changed = apply(self.heads[number], before, step, self.generation, self.now)
        self.heads[number] = head
        for id_, member in changed.items():
            if not before[id_].order and id_ in self.states:
                undone = rejected_of(self.heads.values())
                way_back, group = before_of(self.states[id_], undone)
                member = msgspec.structs.replace(member, before=way_back, before_group=group)
            before[id_] = member
            if isinstance(step, Orders):
                undone = rejected_of(self.heads.values())
                wanted = self.wanted[id_] = wanted_of(head, member, undone)
                if wanted.committed:
                    self.committed.add((id_, wanted.release))
                if member.order == "switch":
                    self.switched.append(id_)
