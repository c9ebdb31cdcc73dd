"""Machines that run releases together: the agent's pure functions over a simulated dorad and clock.

`Coordinator` is what a test needs of the real one: orders by generation, and one decision about
each. It is written before anybody is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from dorad.agent.assignments.decide import decide, forgettable, state_of
from dorad.agent.assignments.model import Health, Plan, ReleaseRecord
from dorad.agent.assignments.orders import take_order
from dorad.agent.assignments.runs import BARRIER_S
from dorad.control.errors import ControlError
from dorad.control.messages.releases import Evidence, Rejection, ReleaseOrder
from tests.agent.assignments.orders import RULES, UUID, group, order, seen, share

KINDS = {
    "a" * 64: "good",
    "b" * 64: "good",
    "c" * 64: "dies",  # its node on r2, soon after its start
    "d" * 64: "limps",  # the same node never gets healthy
    "e" * 64: "dies late",  # after it was healthy
}
SEQUENCES = {release: number for number, release in enumerate(KINDS, start=1)}
NAMES = ("r1", "r2", "r3")
PLACEMENT = {f"node-{name}": name for name in NAMES}
TICK_S = 10.0
DIES_S, DIES_LATE_S = 10.0, 50.0
WEAK = "r2"


def group_of(name):
    return group(machine=name, placement=PLACEMENT)


@dataclass
class SimMember:
    """One machine of the group."""

    name: str
    cell: SimCell
    now: float = 1.0
    boots: int = 1
    up: bool = True
    """Whether the coordinator can reach it; the machines reach each other."""
    record: ReleaseRecord | None = None
    disk: bytes = b"null"
    step: int = 0
    status: str = "none"
    runs: str = ""
    since: float = 0.0
    started: float = 0.0
    """When the present node began: it is replaced if the release differs."""
    confirmed: list[str] = field(default_factory=list)

    @property
    def boot(self):
        return f"boot-{self.boots}"

    @property
    def kind(self):
        return KINDS[self.runs] if self.name == WEAK and self.runs else "good"

    @property
    def linked(self):
        """The machines that it has links to."""
        return {
            each.name
            for each in self.cell.members.values()
            if each is not self and each.status in ("starting", "running")
        }

    def take(self, asked):
        new = ReleaseRecord(asked, UUID, self.boot, since=0.0)
        self.store(take_order(self.record, asked, new))

    def store(self, record):
        self.record, self.disk = record, msgspec.json.encode(record)

    def cut_power(self):
        self.record = msgspec.json.decode(self.disk, type=ReleaseRecord | None)
        self.boots += 1
        self.now = 1.0
        if self.status in ("starting", "running"):
            self.status, self.since = "starting", self.now

    def tick(self, seconds):
        self.now += seconds
        for _ in range(4):
            self.live()
            self.act()

    def live(self):
        """Let the daemon carry out the last order of the record, and nodes do what they do."""
        record = self.record
        if record is not None and record.step > self.step:
            self.step = record.step
            wanted = record.applied
            if wanted is None or record.halting:
                self.status, self.runs = "stopped", ""
            else:
                before, self.runs = self.runs, wanted.revision.release
                if self.status != "running" or KINDS[before] != KINDS[self.runs]:
                    self.started = self.now
                if self.status != "running":
                    self.status, self.since = "starting", self.now
        if self.status == "starting":
            others = self.linked == {*NAMES} - {self.name}
            if others or self.now - self.since >= BARRIER_S:
                self.status, self.started = "running", self.now

    def health(self):
        age = self.now - self.started
        missing = {*NAMES} - {self.name} - self.linked
        limit = {"dies": DIES_S, "dies late": DIES_LATE_S}.get(self.kind, float("inf"))
        fatal = f"node-{self.name} has failed: exited with code 1" if age >= limit else ""
        checks = {f"node node-{self.name}": not fatal and self.kind != "limps", "steady": age >= 30}
        checks |= dict.fromkeys((f"link to {each}" for each in sorted(missing)), False)
        evidence = [Evidence(check=name, ok=ok, text="") for name, ok in checks.items()]
        return Health(evidence, all(checks.values()), fatal, {}, [f"node-{self.name}"])

    def observation(self):
        record = self.record
        release = record.order.release
        running = self.status == "running"
        health = self.health() if running and record.phase == "probation" else None
        nodes = {f"node-{self.name}": release}
        return seen(
            self.now,
            boot=self.boot,
            plan=None if release is None else Plan(nodes, [*nodes], SEQUENCES[release]),
            share=share(self.step, self.status) if self.step else None,
            contact=self.now if self.up else None,
            busy="",
            health=health,
        )

    def act(self):
        if self.record is None:
            return
        before, view = self.record, self.observation()
        after = decide(before, view)
        if after != before:
            if after.phase == "confirmed" and before.phase == "probation":
                assert after.order.committed
                assert self.cell.coordinator.decided(after.order.generation) == "commit"
                self.confirmed.append(after.confirmed.revision.release)
            begins = after.phase == "reverting" and before.phase != "reverting"
            if begins and after.applied is not None:
                assert not after.is_rejected(after.applied.revision)
            self.store(after)
        if forgettable(after, view):
            self.record, self.disk = None, b"null"
            self.step, self.status, self.runs = 0, "none", ""

    def state(self):
        if self.record is None:
            return None
        return state_of(self.record, self.observation(), {})


@dataclass
class Coordinator:
    """Orders releases, and decides; what it has decided it never takes back."""

    cell: SimCell
    epoch: int = 1
    generation: int = 0
    release: str | None = None
    rejects: list[str] = field(default_factory=list)
    decisions: dict[int, str] = field(default_factory=dict)
    """By generation: `commit`, or `abort` (another generation followed)."""
    committed: list[str] = field(default_factory=list)
    """The releases that were committed, the present one last."""
    late: list[tuple[str, ReleaseOrder]] = field(default_factory=list)
    """Orders that are still on their way."""

    def decided(self, generation):
        return self.decisions.get(generation, "")

    @property
    def open(self):
        """Whether a decision is missing."""
        return bool(self.generation) and not self.decided(self.generation)

    def roll_out(self, release):
        """Begin a generation; one that is not decided is over."""
        if self.open:
            self.decisions[self.generation] = "abort"
        self.generation += 1
        self.release = release
        self.rejects = [each for each in self.rejects if each != release]

    def votes(self):
        """Return True if each machine reports now that it is healthy with this generation."""
        states = [each.state() if each.up else None for each in self.cell.members.values()]
        return all(
            state is not None
            and state.generation == self.generation
            and (state.healthy or (state.phase == "confirmed" and state.running == self.release))
            for state in states
        )

    def commit(self):
        assert self.open
        self.decisions[self.generation] = "commit"
        if not self.committed or self.committed[-1] != self.release:
            self.committed.append(self.release)

    def abort(self):
        """Send all back to the revision before this generation; it was committed."""
        self.roll_out(self.committed[-1] if self.committed else None)
        self.decisions[self.generation] = "commit"

    def undo(self):
        """Send all back from a revision that was committed."""
        assert not self.open
        assert len(self.committed) > 1
        self.rejects.append(self.committed.pop())
        self.abort()

    def order_for(self, name):
        return order(
            self.release,
            self.generation,
            epoch=self.epoch,
            group=None if self.release is None else group_of(name),
            committed=self.decided(self.generation) == "commit",
            rejects=[Rejection(release=each) for each in self.rejects],
            allow_lower=True,
            rules=RULES,
        )

    def send(self, name, *, lost=False):
        asked = self.order_for(name)
        self.late.append((name, asked))
        del self.late[:-20]
        if not lost:
            self.deliver(name, asked)

    def deliver(self, name, asked):
        member = self.cell.members[name]
        if not member.up:
            return
        if asked.release is None and member.record is None:
            return
        try:
            member.take(asked)
        except ControlError as error:
            assert error.code == "conflict"
            assert "is older" in error.message


class SimCell:
    def __init__(self):
        self.members = {name: SimMember(name, self) for name in NAMES}
        self.coordinator = Coordinator(self)

    def tick(self, seconds=TICK_S):
        for member in self.members.values():
            member.tick(seconds)

    def wait(self, seconds):
        """Let a long time pass, in fewer steps."""
        for _ in range(6):
            self.tick(seconds / 6)

    @property
    def settled(self):
        """Whether all machines have followed the last order."""
        coordinator = self.coordinator
        wanted = ("confirmed", coordinator.generation, coordinator.release)
        states = [each.state() for each in self.members.values()]
        if coordinator.open or not coordinator.release:
            return not coordinator.open and states == [None] * len(states)
        return all(
            each is not None and (each.phase, each.generation, each.running) == wanted
            for each in states
        )

    def settle(self):
        """Let a coordinator that reaches all machines decide, until all have followed it."""
        coordinator = self.coordinator
        for member in self.members.values():
            member.up = True
        for _ in range(200):
            if self.settled:
                return
            for name in NAMES:
                coordinator.send(name)
            self.tick()
            states = [each.state() for each in self.members.values()]
            left = any(
                state is not None
                and state.generation == coordinator.generation
                and (state.refused or state.phase in ("reverted", "stuck"))
                for state in states
            )
            if coordinator.open and coordinator.votes():
                coordinator.commit()
            elif coordinator.open and left:
                coordinator.abort()
            elif any(state is not None and state.refused for state in states):
                # It failed after the decision.
                coordinator.undo() if len(coordinator.committed) > 1 else coordinator.roll_out(None)
                coordinator.decisions[coordinator.generation] = "commit"
