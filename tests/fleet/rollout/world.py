"""Simulated robots that obey orders about releases, and a rollout that is driven by hand."""

from dataclasses import dataclass, field

import msgspec

from dorad.control.messages.releases import Evidence, Lease, ReleaseState
from dorafleet.rollout.decide import decide, is_over
from dorafleet.rollout.model import MOVING, FleetRobot, Member, Rollout, Seen, View
from dorafleet.rollout.operate import operate, undo_instances
from dorafleet.rollout.steps import Orders, apply

OLD, NEW = "a" * 64, "b" * 64
START = 1_800_000_000.0


@dataclass
class Order:
    """What a robot shall do, as the store has it."""

    generation: int
    release: str
    switch: bool
    withdraw: bool = False


@dataclass
class SimRobot:
    """A robot. `fate` is what becomes of a switch to the new release."""

    id: str
    fate: str = "confirmed"
    connected: bool = True
    changed_at: float = START
    away_at: float = START
    leased_at: float | None = None
    unsafe: bool = False
    """Whether its own probe says that it must not switch; it is asked with the order only."""
    running: str = OLD
    wanted: Order | None = None
    state: ReleaseState | None = None
    switches: list[str] = field(default_factory=list)
    """The releases to which it has switched, in order."""

    def deliver(self, now: float) -> None:
        """Get the order that the store has."""
        wanted = self.wanted
        if not self.connected or wanted is None:
            return
        if self.state is not None and self.state.generation >= wanted.generation:
            return
        if self.state is not None and self.state.phase in MOVING:
            if self.state.phase != "reverting" and wanted.release == OLD:
                self._become("reverting", now, release=OLD, generation=wanted.generation)
                return
            self.state = msgspec.structs.replace(self.state, generation=wanted.generation)
            return
        if wanted.withdraw:
            if self.state.phase == "confirmed" and self.running == wanted.release:
                self.go_back(now, generation=wanted.generation)
            else:
                self.state = msgspec.structs.replace(self.state, generation=wanted.generation)
            return
        if wanted.release == self.running:
            phase = "confirmed"
        elif self.state is not None and self.state.release == wanted.release:
            phase = self.state.phase
        else:
            phase = "pending"
        self._become(phase, now, release=wanted.release, generation=wanted.generation)

    def go_back(self, now: float, **fields: object) -> None:
        """Go back from the release that it has confirmed: nodes of it have failed."""
        self._become("reverting", now, **fields)

    def progress(self, now: float) -> None:
        """Take the next step by itself."""
        if self.state is None or self.wanted is None:
            return
        match self.state.phase:
            case "pending":
                if self.fate == "refused" and self.state.release == NEW:
                    self._become("pending", now, refused=True, reason="another architecture")
                else:
                    self._become("staged", now)
            case "staged":
                if self._has_switch_order() and self.unsafe:
                    if self.state.waiting != "busy":
                        self.leased_at = now
                        self._become("staged", now, waiting="busy")
                elif self._has_switch_order() and not self.leased:
                    self.switches.append(self.state.release)
                    self._become("switching", now)
            case "switching":
                self.running = self.state.release
                self._become("probation", now)
            case "probation":
                if self.state.release == NEW and self.fate in ("reverted", "stuck"):
                    self._become("reverting", now)
                else:
                    self._become("confirmed", now)
            case "reverting":
                if self.fate == "stuck":
                    self.running = ""
                    self._become("stuck", now, reason="the old one failed, too")
                elif self.state.release == OLD:
                    self.running = OLD
                    self._become("confirmed", now)
                else:
                    self.running = OLD
                    evidence = [Evidence(check="node cam", ok=False, text="3 restarts")]
                    self._become("reverted", now, evidence=evidence)

    @property
    def leased(self) -> bool:
        return self.leased_at is not None

    @property
    def generation(self) -> int:
        return 0 if self.state is None else self.state.generation

    @property
    def moving(self) -> bool:
        return self.state is not None and self.state.phase in MOVING

    def _has_switch_order(self) -> bool:
        assert self.state is not None and self.wanted is not None
        return self.wanted.switch and self.state.generation == self.wanted.generation

    def _become(self, phase: str, now: float, **fields: object) -> None:
        base = {
            "dataflow": "pick",
            "epoch": 1,
            "generation": self.state.generation if self.state else 0,
            "release": self.state.release if self.state else "",
        }
        self.state = ReleaseState(
            phase=phase, since=now, running=self.running, **{**base, **fields}
        )
        self.changed_at = now


class World:
    """A rollout with its robots. `seen` is what its coordinator sees of them."""

    def __init__(self, rollout: Rollout, members: list[Member], groups: dict[str, str]) -> None:
        self.now = START
        self.rollout = rollout
        self.members = {member.robot: member for member in members}
        self.robots = {member.robot: SimRobot(member.robot) for member in members}
        self.groups = groups
        self.generation = 1
        self.steps: list[object] = []
        self.has_begun = False

    def view(self) -> View:
        seen = {}
        for robot in self.robots.values():
            state = robot.state
            if state is not None and robot.leased and not robot.unsafe:
                lease = Lease(id="1", reason="picks", owner="arm", since=0)
                state = msgspec.structs.replace(state, leases=[lease])
            seen[robot.id] = Seen(
                reachable=robot.connected,
                away_for=0.0 if robot.connected else self.now - robot.away_at,
                state=state,
                leased_for=0.0 if robot.leased_at is None else self.now - robot.leased_at,
                phase_for=self.now - robot.changed_at,
            )
        fleet = {
            robot.id: FleetRobot(
                self.groups.get(robot.id, ""), robot.connected and not robot.moving
            )
            for robot in self.robots.values()
        }
        return View(self.rollout, self.members, seen, fleet, self.now)

    def step(self) -> object | None:
        """Do the next step of the rollout; return it."""
        step = decide(self.view()).step
        if step is None:
            return None
        self.generation += 1
        self.rollout, changed = apply(self.rollout, self.members, step, self.generation, self.now)
        self.members |= changed
        if isinstance(step, Orders):
            for id_ in step.robots:
                release = NEW if step.kind in ("stage", "switch", "withdraw") else OLD
                self.robots[id_].wanted = Order(
                    self.generation, release, step.kind != "stage", step.kind == "withdraw"
                )
                self.robots[id_].changed_at = self.now
        self.steps.append(step)
        return step

    def operate(self, act: str) -> None:
        self.rollout = operate(self.rollout, self.members.values(), act, "ann", self.now)

    def undo_instance(self, instance: str) -> None:
        members = self.members.values()
        self.rollout, changed = undo_instances(self.rollout, members, [instance], "ann")
        self.members |= changed

    def settle(self, rounds: int = 400) -> None:
        """Run until nothing happens."""
        for _ in range(rounds):
            before = [robot.state for robot in self.robots.values()]
            stepped = self.step()
            for robot in self.robots.values():
                robot.deliver(self.now)
                robot.progress(self.now)
            if stepped is None and before == [robot.state for robot in self.robots.values()]:
                return
        raise AssertionError(f"it never ends: {self.steps[-5:]}")

    @property
    def is_over(self) -> bool:
        return is_over(self.view())

    def orders(self, kind: str) -> list[str]:
        return [
            robot
            for step in self.steps
            if isinstance(step, Orders) and step.kind == kind
            for robot in step.robots
        ]
