"""A robot with nodes: the agent's pure functions over a simulated dorad and a simulated clock.

The dataflow is `pub` → `con` → `idle`, and `once`, which ends by itself. What a release does is
known by its kind, see `KINDS`.
"""

from dataclasses import dataclass, field

import msgspec

from dorad.agent.assignments import health
from dorad.agent.assignments.decide import decide, forgettable, state_of
from dorad.agent.assignments.model import Observation, Plan, ReleaseRecord
from dorad.agent.assignments.orders import take_order
from dorad.control.messages import NodeInfo, NodeMetrics
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import HealthRules, Lease, ReleaseOrder, ReleaseState

KINDS = {
    "a" * 64: "good",
    "b" * 64: "good",
    "c" * 64: "new idle",  # good, and `idle` differs
    "d" * 64: "dies late",
    "e" * 64: "dies late",
    "f" * 64: "dies soon",
    "9" * 64: "restless",  # `con` restarts again and again
}
SEQUENCES = {release: number for number, release in enumerate(KINDS, start=1)}
SOURCES = {"pub": set(), "con": {"pub"}, "idle": {"con"}, "once": {"pub"}}
ALIVE = ("pub", "con", "idle")
"""The nodes that run as long as nothing fails."""
RULES = HealthRules(min_healthy_time=30, healthy_deadline=120, confirm_deadline=180)
TICK_S = 5.0
SOON_S, LATE_S = 10.0, 45.0
"""Seconds until `con` dies: before, and after, a robot may have confirmed it."""
UUID = "00000000-0000-4000-8000-000000000009"


def code_of(node: str, release: str) -> str:
    """Return what differs in a node between releases."""
    new = node == "con" or (node == "idle" and KINDS[release] == "new idle")
    return release if new else "base"


@dataclass
class SimNode:
    code: str
    since: float
    pid: int = 1
    restarts: int = 0
    status: str = "running"
    ended_by: str | None = None
    last_exit: str | None = None


@dataclass
class Event:
    """A change of what a robot runs, or a confirmation."""

    what: str
    """`confirmed`, `goes back`, `blamed`."""
    release: str
    cut_for: float = 0.0
    """Seconds without a network when it happened."""
    needs_contact: bool = False


@dataclass
class SimRobot:
    """One robot. `deliver` and the verbs change it, `tick` lets time pass."""

    id: str
    now: float = 1.0
    boots: int = 1
    up: bool = True
    cut_at: float = 0.0
    contact: float | None = None
    disk_full: bool = False
    clock_s: float = 0.0
    """By how much its wall clock is wrong."""
    record: ReleaseRecord | None = None
    stored: bytes = b"null"
    """The record on the disk."""
    step: int = 0
    """Of the daemon's last order."""
    status: str = "stopped"
    nodes: dict[str, SimNode] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    leased: bool = False
    reserved: tuple[int, float] = (0, 0.0)
    """The generation of the last reservation, and until when no lease begins."""
    pids: int = 1
    watch: health.Watch | None = None

    # -- verbs

    def deliver(self, order: ReleaseOrder) -> bool:
        """Get an order; return False if it cannot be stored."""
        if self.disk_full:
            return False
        new = ReleaseRecord(order, UUID, self._boot, since=0.0)
        self._store(take_order(self.record, order, new))
        self.contact = self.now
        return True

    def cut(self) -> None:
        if self.up:
            self.up, self.cut_at = False, self.now

    def heal(self) -> None:
        self.up = True

    def cut_power(self) -> None:
        """Lose what was not stored; all nodes start again."""
        self.record = msgspec.json.decode(self.stored, type=ReleaseRecord | None)
        self.boots += 1
        self.cut_at -= self.now - 1.0
        self.now, self.contact, self.watch = 1.0, None, None
        ran = self.status in ("running", "starting")
        self.nodes, self.step, self.status = {}, 0, "stopped"
        if ran or (self.record is not None and not self.record.halting):
            self._sync(boot=True)

    def lease(self) -> None:
        """A node wants to be busy: it is when nothing is reserved."""
        self.leased = self.leased or self.now >= self.reserved[1]

    def unlease(self) -> None:
        self.leased = False

    def stop(self) -> None:
        """`dora stop`"""
        if self.status == "running":
            self.status = "stopped"
            for node in self.nodes.values():
                self._end(node, "stopped", "command")

    def restart_dead(self) -> None:
        """`dora node restart` of what has ended, the sources first."""
        if self.status == "running":
            for name in SOURCES:
                if self._is_dead(name) and self._is_fed(name):
                    self._start(name, self.nodes[name].code, restarts=1)

    # -- what is seen

    @property
    def state(self) -> ReleaseState | None:
        return None if self.record is None else state_of(self.record, self._observation(), {})

    @property
    def running(self) -> list[str]:
        """The nodes that run."""
        if self.status != "running":
            return []
        return [name for name, node in self.nodes.items() if node.status == "running"]

    # -- time

    def tick(self) -> None:
        self.now += TICK_S
        if self.up:
            self.contact = self.now
        self._live()
        for _ in range(4):
            self._act()

    @property
    def _boot(self) -> str:
        return f"boot-{self.boots}"

    def _live(self) -> None:
        """Let nodes do what their releases do."""
        if self.status != "running":
            return
        con, once = self.nodes["con"], self.nodes["once"]
        age = self.now - con.since
        kind = KINDS[con.code]
        if con.status == "running":
            limits = {"dies soon": SOON_S, "dies late": LATE_S}
            if age >= limits.get(kind, float("inf")):
                self._end(con, "failed", None, "exited with code 1")
            elif kind == "restless":
                self._start("con", con.code, restarts=con.restarts + 1)
        if once.status == "running":
            self._end(once, "stopped", None)
        for name, sources in SOURCES.items():
            node = self.nodes[name]
            if sources and node.status == "running" and not self._is_fed(name):
                self._end(node, "stopped", "inputs")

    def _end(
        self, node: SimNode, status: str, by: str | None, why: str = "exited with code 0"
    ) -> None:
        if node.status == "running":
            node.status, node.ended_by, node.last_exit = status, by, why

    def _start(self, name: str, code: str, restarts: int = 0) -> None:
        self.pids += 1
        self.nodes[name] = SimNode(code, self.now, self.pids, restarts)

    def _is_dead(self, name: str) -> bool:
        node = self.nodes[name]
        return node.status == "failed" or (node.status == "stopped" and node.ended_by is not None)

    def _is_fed(self, name: str) -> bool:
        sources = SOURCES[name]
        return not sources or any(self.nodes[each].status == "running" for each in sources)

    # -- the agent

    def _infos(self) -> list[NodeInfo]:
        return [
            NodeInfo(
                dataflow=UUID, dataflow_name="flow", node=name, status=node.status,
                pid=node.pid if node.status == "running" else None, restarts=node.restarts,
                metrics=NodeMetrics(), ended_by=node.ended_by, last_exit=node.last_exit,
            )
            for name, node in self.nodes.items()
        ]  # fmt: skip

    def _observation(self) -> Observation:
        record = self.record
        assert record is not None
        share = None
        if self.step:
            share = ShareState(
                dataflow="flow", uuid=UUID, epoch=0, generation=self.step, status=self.status,
                since=0.0,
            )  # fmt: skip
        release, found, verdict, down = record.order.release, None, None, None
        if release is not None:
            old = {} if record.applied is None else record.applied.nodes
            nodes = {}
            for name in SOURCES:
                same = name in old and code_of(name, old[name]) == code_of(name, release)
                nodes[name] = old[name] if same else release
            replaced = [name for name in nodes if nodes[name] != old.get(name)]
            found = Plan(nodes, replaced, SEQUENCES[release])
        if self.status == "running" and record.phase == "probation":
            sent = {"pub/number": int(self.now * 10)}
            seen = health.Measurement(self.now, self._infos(), sent, [])
            self.watch = health.watch(self.watch, seen, record.baseline)
            verdict = health.judge(self.watch, record.order.rules, record.baseline, None)
        else:
            self.watch = None
            if self.status == "running" and record.confirmed is not None:
                down = health.down_of(self._infos(), record.baseline, SOURCES)
        order = record.order
        if record.phase == "staged" and order.arm and not order.switch and not self.leased:
            if self.reserved[0] < order.generation:
                self.reserved = (order.generation, self.now + order.arm)
        elif record.phase == "switching":
            self.reserved = (self.reserved[0], 0.0)
        leases = [Lease("1", "moves", "pub", 0.0)] if self.leased else []
        return Observation(
            now=self.now, wall=self.now + self.clock_s, boot=self._boot, files="staged",
            plan=found, share=share, notices=[], contact=self.contact, health=verdict, down=down,
            leases=leases, busy="pub: moves" if leases else "", armed=self.now < self.reserved[1],
        )  # fmt: skip

    def _act(self) -> None:
        before = self.record
        if before is None:
            return
        after = decide(before, self._observation())
        if after != before:
            if self.disk_full and after.phase == "switching":
                return  # a switch that cannot be stored does not begin
            self._note(before, after)
            self._store(after)
        self._sync()
        if after.order.release is None and forgettable(after, self._observation()):
            self.record, self.stored, self.step, self.nodes = None, b"null", 0, {}

    def _note(self, before: ReleaseRecord, after: ReleaseRecord) -> None:
        cut_for = 0.0 if self.up else self.now - self.cut_at
        if before.phase == "probation" and after.phase == "confirmed":
            release = after.applied.revision.release
            self.events.append(Event("confirmed", release, cut_for, before.contact))
        if len(after.failed) > len(before.failed):
            self.events.append(Event("blamed", before.order.release, cut_for))
        begins = before.phase in ("switching", "probation") and after.phase == "reverting"
        if begins and after.applied is not None:
            self.events.append(Event("goes back", after.applied.revision.release, cut_for))

    def _store(self, record: ReleaseRecord) -> None:
        self.record = record
        if not self.disk_full:
            self.stored = msgspec.json.encode(record)

    def _sync(self, *, boot: bool = False) -> None:
        """Carry out the record's order, as the shares and dorad do."""
        record = self.record
        if record is None or record.step == 0 or (record.step <= self.step and not boot):
            return
        self.step = record.step
        if record.applied is None or record.halting:
            self.status = "stopped"
            return
        wanted = {name: code_of(name, rel) for name, rel in record.applied.nodes.items()}
        fresh = self.status != "running"
        self.status = "running"
        for name in SOURCES:
            node = self.nodes.get(name)
            if fresh or node is None or node.code != wanted[name]:
                self._start(name, wanted[name])
            elif name in record.alive and self._is_dead(name) and self._is_fed(name):
                self._start(name, wanted[name], restarts=node.restarts + 1)
