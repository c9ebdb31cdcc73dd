"""Robots with nodes under one coordinator: what rollouts are judged by, whatever is behind it.

`System` is the interface: verbs of operators and of the world, and what can be observed.
`PureSystem` is the present implementation: the pure functions of the agent and of the coordinator
over simulated nodes, networks, disks and clocks.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.releases import Group, ReleaseState
from dorafleet.coordinator.drift import Compared, drift_of
from dorafleet.coordinator.records import Restored, RobotAssignment
from dorafleet.coordinator.requests import Term, due_requests, order_of
from dorafleet.coordinator.rolloutdriver import Timers, dated, was_lost
from dorafleet.coordinator.rolloutorders import before_of, rejected_of, wanted_of
from dorafleet.coordinator.rollouts import RESTORED_QUESTION
from dorafleet.rollout.decide import decide, is_over
from dorafleet.rollout.gates import is_leased
from dorafleet.rollout.messages import RolloutNew
from dorafleet.rollout.model import Member, Rollout, Seen, View
from dorafleet.rollout.operate import Pace, operate, undo_instances
from dorafleet.rollout.plan import Candidate, select
from dorafleet.rollout.steps import Orders, apply
from dorafleet.rollout.strategy import Strategy
from dorafleet.rollout.verdicts import goes_forward
from tests.agent.assignments.simrobot import RULES, SEQUENCES, TICK_S, UUID, Event, SimRobot

SOAK_S = 120.0
STRATEGY = Strategy(canary=1, max_parallel=1, rules=RULES, progress_deadline=300, soak_time=SOAK_S)
MAX_STEPS = 50
_GONE = Seen(away_for=float("inf"), owned=False, removed=True)


def group_of(robot: str, runs_on: str = "") -> Group:
    """Return the group of a robot: each runs a copy of all nodes, and only the switch is common.

    With `runs_on` all nodes are there, and none is left on the robot.
    """
    placement = dict.fromkeys(("pub", "con", "idle", "once"), runs_on or robot)
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
    paused: bool = False
    """Whether the newest rollout is."""
    canary: str = ""
    ordered: list[str] = field(default_factory=list)
    """Robots with an order to switch that was given since the last observation."""
    rollout: tuple[int, int] = (0, 0)
    """The term of the coordinator, and the number of the newest rollout."""
    now: float = 0.0
    """In seconds, by a clock that is never set."""


class System(Protocol):
    """Verbs raise ControlError if they are refused."""

    def start(self, release: str, *, retry: bool, allow_lower: bool) -> None: ...
    def undo(self, *, at_once: bool) -> None: ...
    def undo_one(self, robot: str) -> None: ...
    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def replace(self, robot: str) -> None: ...
    def stop(self, robot: str) -> None: ...
    def restart(self, robot: str) -> None: ...
    def lease(self, robot: str) -> None: ...
    def unlease(self, robot: str) -> None: ...
    def back_up(self) -> None: ...
    def restore(self) -> None: ...
    def set_clock(self, seconds: float) -> None: ...
    def set_robot_clock(self, robot: str, seconds: float) -> None: ...
    def cut(self, robot: str) -> None: ...
    def heal(self, robot: str) -> None: ...
    def cut_power(self, robot: str) -> None: ...
    def fill_disk(self, robot: str, *, full: bool) -> None: ...
    def pass_time(self, seconds: float) -> None: ...
    def observe(self) -> SystemSeen: ...


class Kept(NamedTuple):
    """A backup of the coordinator's store."""

    generation: int
    heads: dict[int, Rollout]
    members: dict[int, dict[str, Member]]
    wanted: dict[str, RobotAssignment]


class PureSystem:
    """See the module."""

    def __init__(self, robots: int, scope: str = "each") -> None:
        """With the scope `one` all robots change as one instance."""
        self.scope = scope
        self.robots = {f"r{n}": SimRobot(f"r{n}") for n in range(1, robots + 1)}
        self.now = 1_800_000_000.0
        """By a clock that is never set."""
        self.clock_s = 0.0
        """By how much the wall clock of the coordinator differs from it."""
        self.generation = 0
        self.heads: dict[int, Rollout] = {}
        self.members: dict[int, dict[str, Member]] = {}
        self.wanted: dict[str, RobotAssignment] = {}
        self.states: dict[str, ReleaseState] = {}
        """The last reports."""
        self.away: dict[str, float] = {}
        self.entered: dict[str, tuple[object, float]] = {}
        self.leased: dict[str, float] = {}
        self.failed: dict[str, set[str]] = {robot: set() for robot in self.robots}
        self.told: dict[str, set[str]] = {robot: set() for robot in self.robots}
        self.alone: dict[str, set[str]] = {robot: set() for robot in self.robots}
        """Releases that were undone on the instance of a robot, and it was told."""
        self.switched: list[str] = []
        self.committed: set[tuple[str, str]] = set()
        """Robots and releases that were committed for their instance, or that they go back to."""
        self.since = dict.fromkeys(self.robots, 0)
        """The generation at which each came to the fleet."""
        self.strategy = STRATEGY
        self.leaving: set[str] = set()
        """Robots that the next rollout leaves no node."""
        self.lost: list[str] = []
        """Those that it gives up."""
        self.timers = Timers(lambda: self.now)
        self.term = Term(1)
        self.restored: Restored | None = None
        self.kept: Kept | None = None

    # -- operators

    def start(self, release: str, *, retry: bool, allow_lower: bool) -> None:
        new = RolloutNew(
            release=release, retry=retry, allow_lower=allow_lower, strategy=self.strategy,
            scope=self.scope, lost=self.lost,
        )  # fmt: skip
        fleet = [self._candidate(robot, release) for robot in self.robots]
        groups = {}
        if self.scope == "one":
            stays = next(id_ for id_ in self.robots if id_ not in self.leaving)
            groups = {
                id_: group_of(id_, stays if id_ in self.leaving else "")
                for id_ in self.robots
                # Who runs nothing of it takes no part.
                if id_ not in self.leaving or self._runs(id_)
            }
        found = select(new, fleet, SEQUENCES[release], ["pub", "con", "idle", "once"], groups)
        for head in self.heads.values():
            if not head.over and not head.is_final:
                self.heads[head.number] = operate(head, (), "supersede", "a newer one", self.wall)
        number = len(self.heads) + 1
        self.heads[number] = Rollout(
            number=number, dataflow="flow", release=release, name=f"flow@{SEQUENCES[release]}",
            strategy=self.strategy, size=len(found.members), by="ann", created=self.wall,
            since=self.wall, retry=retry, allow_lower=allow_lower,
            generation_before=self.generation,
        )  # fmt: skip
        self.members[number] = {member.robot: member for member in found.members}

    @property
    def wall(self) -> float:
        """What the clock of the coordinator shows."""
        return self.now + self.clock_s

    def back_up(self) -> None:
        """`dorafleet backup`"""
        members = {number: dict(each) for number, each in self.members.items()}
        self.kept = Kept(self.generation, dict(self.heads), members, dict(self.wanted))

    def restore(self) -> None:
        """`dorafleet restore`, and a new coordinator with that store."""
        if self.kept is None:
            raise ControlError("not-found", "there is no backup")
        backup, self.heads, members, self.wanted = self.kept
        self.members = {number: dict(each) for number, each in members.items()}
        self.heads, self.wanted = dict(self.heads), dict(self.wanted)
        self.generation += 1
        self.restored = Restored(backup, self.generation)
        self.term = Term(self.term.epoch + 1, self.generation)
        self.timers = Timers(lambda: self.now)
        for known in (self.states, self.away, self.entered, self.leased):
            known.clear()
        for number, head in self.heads.items():
            if not (head.over or head.paused or head.is_final):
                paused = operate(head, (), "pause", "", self.wall)
                self.heads[number] = msgspec.structs.replace(paused, question=RESTORED_QUESTION)

    def _runs(self, robot: str) -> bool:
        wanted = self.wanted.get(robot)
        return wanted is not None and bool(wanted.release)

    def undo(self, *, at_once: bool) -> None:
        self._operate("undo", Pace(at_once=True) if at_once else None)

    def undo_one(self, robot: str) -> None:
        """Undo the newest rollout on the instance of a robot alone."""
        if not self.heads:
            raise ControlError("not-found", "there is no rollout yet")
        number = max(self.heads)
        members = self.members[number]
        if robot not in members:
            raise ControlError("not-found", "it is not in the rollout")
        unit = members[robot].unit
        self.heads[number], changed = undo_instances(
            self.heads[number], members.values(), [unit], "ann"
        )
        members |= changed

    def abort(self) -> None:
        self._operate("abort", None)

    def pause(self) -> None:
        self._operate("pause", None)

    def resume(self) -> None:
        self._operate("resume", None)

    def replace(self, robot: str) -> None:
        """`dorafleet robot remove`, and another machine is enrolled under the name."""
        self.generation += 1
        self.robots[robot] = SimRobot(robot)
        self.since[robot] = self.generation
        self.kept = None  # a backup from before has the certificate of another machine
        self.failed[robot], self.told[robot], self.alone[robot] = set(), set(), set()
        for known in (self.wanted, self.states, self.away, self.leased):
            known.pop(robot, None)

    def _operate(self, act, pace) -> None:
        if not self.heads:
            raise ControlError("not-found", "there is no rollout yet")
        number = max(self.heads)
        members = self.members[number].values()
        self.heads[number] = operate(self.heads[number], members, act, "ann", self.wall, pace)

    def stop(self, robot: str) -> None:
        self.robots[robot].stop()

    def restart(self, robot: str) -> None:
        self.robots[robot].restart_dead()

    def lease(self, robot: str) -> None:
        self.robots[robot].lease()

    def unlease(self, robot: str) -> None:
        self.robots[robot].unlease()

    # -- the world

    def cut(self, robot: str) -> None:
        self.robots[robot].cut()

    def heal(self, robot: str) -> None:
        self.robots[robot].heal()

    def cut_power(self, robot: str) -> None:
        self.robots[robot].cut_power()

    def set_clock(self, seconds: float) -> None:
        """Set the coordinator's clock."""
        self.clock_s = seconds

    def set_robot_clock(self, robot: str, seconds: float) -> None:
        self.robots[robot].clock_s = seconds

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
                rejected=self.failed[id_] | (self.told[id_] & undone) | self.alone[id_],
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
            bool(number) and self.heads[number].paused,
            next((id_ for id_, member in members.items() if member.batch == 0), ""),
            switched,
            (self.term.epoch, number),
            self.now,
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
        else:
            self.states.pop(robot.id, None)
        wanted = self.wanted.get(robot.id)
        if wanted is None:
            return
        states = {} if state is None else {"flow": state}
        due = due_requests({"flow": wanted}, (), {}, states, {}, self.restored, self.term)
        if due.requests:
            order = order_of("flow", wanted, self.heads.get(wanted.rollout), self.term.epoch)
            if robot.deliver(order):
                if order.retry and order.release:
                    self.failed[robot.id].discard(order.release)
                if order.release and not order.stay:
                    self.told[robot.id].discard(order.release)
                    self.alone[robot.id].discard(order.release)
                self.alone[robot.id] |= {
                    each.release for each in order.rejects if each.reason == "undone by ann"
                } - {order.release}
                self.told[robot.id] |= {each.release for each in order.rejects} - {order.release}
                self.states[robot.id] = robot.state

    def _view(self, number: int) -> View:
        head, members = dated(self.timers, self.heads[number], self.members[number], self.wall)
        seen = {}
        for id_, member in members.items():
            if self.since[id_] > self.heads[number].generation_before:
                seen[id_] = _GONE
                continue
            robot, state, wanted = self.robots[id_], self.states.get(id_), self.wanted.get(id_)
            is_lost = was_lost(self.restored, head, state)
            ahead = is_lost and state is not None and goes_forward(head, state)
            key = (member.order, member.generation, None if state is None else state.phase)
            if self.entered.get(id_, (None, 0.0))[0] != key:
                self.entered[id_] = (key, self.now)
            if not is_leased(Seen(state=state)):
                self.leased.pop(id_, None)
            seen[id_] = Seen(
                leased_for=self.now - self.leased.setdefault(id_, self.now)
                if is_leased(Seen(state=state))
                else 0.0,
                reachable=robot.up,
                trouble="" if robot.up else "it is off",
                away_for=self.now - self.away.get(id_, self.now),
                state=state,
                phase_for=self.now - self.entered[id_][1] if robot.up else 0.0,
                ahead=ahead,
                owned=(
                    not member.order
                    or (wanted is not None and wanted.generation == member.generation)
                )
                and (ahead or not is_lost),
            )
        rejected = rejected_of(self.heads.values()) - {head.release}
        return View(head, members, seen, {}, self.wall, rejected)

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
        head, changed = apply(self.heads[number], before, step, self.generation, self.wall)
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
