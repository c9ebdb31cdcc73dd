"""Machines that switch as one, with everything that may happen to them: a model."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from msgspec.structs import replace

from dorafleet.rollout.gates import Passing
from dorafleet.rollout.instances import ARM_S, UNARMED, YIELD_S, arm
from dorafleet.rollout.model import Seen
from tests.agent.assignments.simrobot import ALIVE, TICK_S

from . import system as system_module
from .system import STRATEGY, PureSystem
from .verbs import Verbs, robots

FIRST, SECOND, LATE, SOON = "a" * 64, "b" * 64, "d" * 64, "f" * 64


def cell(release: str = FIRST, **keys) -> PureSystem:
    """Return three machines that run a release as one instance."""
    system = PureSystem(3, scope="one")
    system.strategy = replace(STRATEGY, **keys)
    system.start(release, retry=False, allow_lower=False)
    system.pass_time(600)
    return system


def releases_of(system: PureSystem) -> set[str]:
    return {robot.release for robot in system.observe().robots.values()}


def committed(system: PureSystem) -> set[bool]:
    number = max(system.heads)
    return {member.committed for member in system.members[number].values()}


def until(system: PureSystem, holds, seconds: float = 600) -> None:
    for _ in range(int(seconds / TICK_S)):
        if holds(system.observe()):
            return
        system.pass_time(TICK_S)
    raise AssertionError(system.observe())


def test_all_machines_confirm_together():
    system = cell()
    found = system.observe()
    assert releases_of(system) == {FIRST}
    assert set(found.verdicts.values()) == {"confirmed"}
    assert committed(system) == {True}
    system.start(SECOND, retry=False, allow_lower=False)
    system.pass_time(600)
    assert releases_of(system) == {SECOND}
    assert system.observe().phase == "succeeded"


def test_no_machine_switches_while_one_is_off():
    system = cell()
    system.cut("r2")
    system.start(SECOND, retry=False, allow_lower=False)
    system.pass_time(300)
    assert releases_of(system) == {FIRST}
    assert not system.observe().ordered
    system.heal("r2")
    system.pass_time(300)
    assert releases_of(system) == {SECOND}


@pytest.mark.parametrize("robot", ["r1", "r3"])
def test_one_that_fails_on_probation_takes_all_back(robot):
    system = cell()
    system.start(SECOND, retry=False, allow_lower=False)
    until(system, lambda found: found.robots[robot].phase == "probation")
    sim = system.robots[robot]
    sim._end(sim.nodes["con"], "failed", None, "exited with code 1")
    system.pass_time(300)
    found = system.observe()
    assert releases_of(system) == {FIRST}
    assert all(set(each.nodes) == set(ALIVE) for each in found.robots.values())
    assert found.phase == "reverted"
    assert committed(system) == {False}


def test_one_that_fails_after_the_commit_takes_all_back():
    system = cell()
    system.start(LATE, retry=False, allow_lower=False)
    system.pass_time(900)
    assert releases_of(system) == {FIRST}
    assert system.observe().phase == "reverted"


@pytest.mark.parametrize("meanwhile", ["cut", "power", "cut and power"])
def test_one_that_is_away_at_the_commit_follows_it_later(meanwhile):
    system = cell(progress_deadline=2000.0)
    system.start(SECOND, retry=False, allow_lower=False)
    until(system, lambda _found: committed(system) == {True})
    # It was stored, and the order has not arrived yet.
    if "cut" in meanwhile:
        system.cut("r2")
    if "power" in meanwhile:
        system.cut_power("r2")
    system.pass_time(400)
    found = system.observe()
    if "cut" in meanwhile:
        assert found.robots["r2"].release == FIRST  # it has heard nothing, and went back by itself
        assert {found.robots[each].release for each in ("r1", "r3")} == {SECOND}
    system.heal("r2")
    system.pass_time(600)
    assert releases_of(system) == {SECOND}
    assert set(system.observe().verdicts.values()) == {"confirmed"}


def pids(system: PureSystem) -> list[int]:
    return [node.pid for robot in system.robots.values() for node in robot.nodes.values()]


def orders_of(system: PureSystem) -> set[str]:
    return {member.order for member in system.members[max(system.heads)].values()}


@pytest.mark.parametrize("robot", ["r1", "r2", "r3"])
def test_a_lease_that_wants_to_begin_between_two_orders_waits_and_all_switch(robot):
    """Nothing is taken back: each machine had reserved its switch before any of them began."""
    system = cell()
    system.start(SECOND, retry=False, allow_lower=False)
    orders = set()
    for _ in range(120):
        if "switch" in orders or system.states[robot].armed:
            system.lease(robot)
        system.pass_time(TICK_S)
        orders |= orders_of(system)
        assert system.robots[robot].state.waiting != "busy"
        if releases_of(system) == {SECOND}:
            break
    assert (releases_of(system), "back" in orders) == ({SECOND}, False)
    system.unlease(robot)
    system.pass_time(600)
    assert system.observe().phase == "succeeded"


def test_reservations_that_expire_cost_nothing():
    """One machine gets busy before it can reserve: no node of any machine is touched."""
    system = cell()
    before = pids(system)
    system.start(SECOND, retry=False, allow_lower=False)
    members = system.members[max(system.heads)]
    # It is busy, and the coordinator does not know it yet.
    until(system, lambda _found: {each.order for each in members.values()} == {"stage"})
    system.lease("r2")
    reserved = 0
    for _ in range(60):
        system.pass_time(TICK_S)
        reserved += any(each.armed for each in members.values())
        assert orders_of(system) == {"stage"}
    assert pids(system) == before
    assert releases_of(system) == {FIRST}
    # No lease waits longer than one reservation, and there is not one after the other.
    assert reserved <= 2 * ARM_S / TICK_S
    system.unlease("r2")
    system.pass_time(600)
    assert releases_of(system) == {SECOND}


@pytest.mark.parametrize(("waited", "asks"), [(0.0, False), (YIELD_S - 1, False), (YIELD_S, True)])
def test_after_reservations_that_expired_machines_are_asked_again_only_after_a_while(waited, asks):
    system = cell()
    system.start(SECOND, retry=False, allow_lower=False)
    number = max(system.heads)
    members = system.members[number]
    until(system, lambda _found: {each.order for each in members.values()} == {"stage"})
    until(system, lambda found: {each.phase for each in found.robots.values()} == {"staged"})
    for id_, member in members.items():
        members[id_] = replace(member, armed=False, reason=UNARMED, at=system.now - waited)
    order = arm(system._view(number), Passing(list(members), {}, None))
    assert (order is not None and order.kind == "arm") is asks


def test_a_pause_while_machines_reserve_their_switch_keeps_all_where_they_are():
    system = cell()
    before = pids(system)
    system.start(SECOND, retry=False, allow_lower=False)
    members = system.members[max(system.heads)]
    until(system, lambda _found: any(each.armed for each in members.values()))
    system.pause()
    system.pass_time(ARM_S + 2 * TICK_S)
    # A reservation holds up no lease once it is over.
    system.lease("r1")
    assert system.robots["r1"].leased
    system.unlease("r1")
    system.pass_time(600)
    assert (releases_of(system), pids(system)) == ({FIRST}, before)
    system.resume()
    system.pass_time(600)
    assert releases_of(system) == {SECOND}
    assert system.observe().phase == "succeeded"


def test_machines_that_have_the_release_already_keep_no_other_one_waiting():
    system = cell()
    system.stop("r2")
    system.pass_time(60)
    assert system.robots["r2"].running == []
    system.start(FIRST, retry=False, allow_lower=False)
    system.pass_time(300)
    assert system.robots["r2"].running == list(ALIVE)
    assert system.observe().phase == "succeeded"


def test_a_machine_whose_software_reserves_nothing_switches_as_before(monkeypatch):
    monkeypatch.setattr(system_module, "Seen", partial(Seen, arms=False))
    system = cell()
    system.start(SECOND, retry=False, allow_lower=False)
    system.pass_time(300)
    assert releases_of(system) == {SECOND}


def test_an_undo_brings_all_machines_back():
    system = cell()
    system.start(SECOND, retry=False, allow_lower=False)
    system.pass_time(300)
    assert releases_of(system) == {SECOND}
    system.undo(at_once=False)
    system.pass_time(400)
    assert releases_of(system) == {FIRST}
    assert system.observe().phase == "reverted"


class AnInstanceChangesAsOne(Verbs):
    """Three machines, and all verbs in any order."""

    @initialize(release=st.sampled_from([FIRST, SECOND]))
    def begin(self, release):
        self.system = PureSystem(3, scope="one")
        self.system.start(release, retry=False, allow_lower=False)
        self.system.pass_time(600)

    @rule(seconds=st.sampled_from([5, 10, 20, 40, 200]))
    def time_passes(self, seconds):
        for _ in range(int(seconds // TICK_S)):
            self.system.pass_time(TICK_S)
            self.check()

    @rule(robot=robots)
    def lease(self, robot):
        self.system.lease(robot)

    @rule(robot=robots)
    def unlease(self, robot):
        self.system.unlease(robot)

    @invariant()
    def holds(self):
        if hasattr(self, "system"):
            self.check()

    def check(self):
        found = self.system.observe()
        for id_, robot in found.robots.items():
            for event in robot.events:
                if event.what == "confirmed":
                    assert (id_, event.release) in self.system.committed
                if event.what == "goes back":
                    assert event.release not in robot.rejected

    def teardown(self):
        """Once the network is whole, one release runs on all machines."""
        system = getattr(self, "system", None)
        if system is None:
            return
        for robot in ("r1", "r2", "r3"):
            system.heal(robot)
            system.unlease(robot)
        for _ in range(200):
            system.pass_time(4 * TICK_S)
            self.check()
        found = system.observe()
        phases = {id_: robot.phase for id_, robot in found.robots.items()}
        assert not {"switching", "probation", "reverting"} & set(phases.values()), phases
        if "stuck" not in phases.values():
            running = {robot.release for robot in found.robots.values()}
            assert len(running) == 1, (running, phases, found.phase, found.verdicts)


AnInstanceChangesAsOne.TestCase.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=20, deadline=None
)
TestAnInstanceChangesAsOne = pytest.mark.long(AnInstanceChangesAsOne.TestCase)


def leaving(robot: str = "r3", *, lost: bool = False, **keys) -> PureSystem:
    """Return a cell whose next rollout leaves no node on a robot."""
    system = cell(**keys)
    system.leaving = {robot}
    system.lost = [robot] * lost
    return system


def runs(system: PureSystem) -> dict[str, str]:
    """Return the release of each robot with running nodes."""
    return {id_: each.release for id_, each in system.observe().robots.items() if each.nodes}


def test_a_machine_without_a_node_stops_forgets_and_is_not_waited_for_afterwards():
    system = leaving()
    system.start(SECOND, retry=False, allow_lower=False)
    # Until the others switch it runs on.
    until(system, lambda _found: "switch" in orders_of(system))
    until(system, lambda found: not found.robots["r3"].nodes)
    assert system.robots["r3"].record.kept == {FIRST}
    until(system, lambda found: found.phase == "succeeded")
    assert runs(system) == {"r1": SECOND, "r2": SECOND}
    assert system.robots["r3"].record is None
    assert system.members[2]["r3"].verdict == "confirmed"
    # Nobody waits for it any more: the next one is for the others alone.
    system.cut("r3")
    system.start("c" * 64, retry=False, allow_lower=False)
    until(system, lambda found: found.phase == "succeeded")
    assert runs(system) == {"r1": "c" * 64, "r2": "c" * 64}
    assert set(system.members[3]) == {"r1", "r2"}


@pytest.mark.parametrize("release", [SOON, LATE])
def test_a_machine_that_leaves_runs_again_if_the_others_go_back(release):
    """Before their commit, and in their soak."""
    system = leaving()
    system.start(release, retry=False, allow_lower=False)
    system.pass_time(1500)
    assert system.observe().phase == "reverted"
    assert runs(system) == dict.fromkeys(("r1", "r2", "r3"), FIRST)


def test_an_undo_gives_a_machine_that_has_left_its_part_back():
    system = leaving()
    system.start(SECOND, retry=False, allow_lower=False)
    until(system, lambda found: found.phase == "succeeded")
    system.undo(at_once=False)
    until(system, lambda found: found.phase == "reverted")
    assert runs(system) == dict.fromkeys(("r1", "r2", "r3"), FIRST)


def test_nothing_switches_while_a_machine_that_would_leave_is_away_unless_it_is_given_up():
    system = leaving()
    system.cut("r3")
    system.start(SECOND, retry=False, allow_lower=False)
    system.pass_time(600)
    assert runs(system) == dict.fromkeys(("r1", "r2", "r3"), FIRST)
    system.abort()
    system.lost = ["r3"]
    system.start(SECOND, retry=False, allow_lower=False)
    until(system, lambda found: found.phase == "succeeded", 1500)
    assert system.observe().verdicts["r3"] == "removed"
    # It knows nothing of it, and follows when it is back.
    assert runs(system)["r3"] == FIRST
    system.heal("r3")
    system.pass_time(60)
    assert runs(system) == {"r1": SECOND, "r2": SECOND}
    assert system.robots["r3"].record is None


@pytest.mark.parametrize("away", [("r1", "r2", "r3"), ("r3",)])
def test_a_machine_that_has_stopped_runs_again_if_it_hears_nothing(away):
    system = leaving()
    system.start(SECOND, retry=False, allow_lower=False)
    until(system, lambda found: not found.robots["r3"].nodes)
    assert committed(system) == {False}
    for robot in away:
        system.cut(robot)
    system.pass_time(200)
    found = system.observe().robots
    assert (bool(found["r3"].nodes), found["r3"].release) == (True, FIRST)
    for robot in away:
        system.heal(robot)
    system.pass_time(900)
    # Whatever was decided meanwhile: one revision everywhere.
    assert runs(system) in (
        {"r1": SECOND, "r2": SECOND},
        dict.fromkeys(("r1", "r2", "r3"), FIRST),
    )


class CellsThatShrink(Verbs):
    """Machines leave and come back in any order, with faults: it ends as one revision."""

    @initialize()
    def begin(self):
        self.system = cell()

    @rule(robot=robots, lost=st.booleans())
    def leave(self, robot, lost):
        self.system.leaving = {robot}
        self.system.lost = [robot] if lost and not self.system.robots[robot].up else []

    @rule()
    def stay(self):
        self.system.leaving, self.system.lost = set(), []

    def teardown(self):
        for robot in self.system.robots:
            self.system.heal(robot)
            self.system.unlease(robot)
            self.system.fill_disk(robot, full=False)
        self.system.strategy = STRATEGY
        self.system.pass_time(3000)
        number = max(self.system.heads)
        head, members = self.system.heads[number], self.system.members[number]
        if head.phase != "succeeded" or head.paused:
            return
        for id_, member in members.items():
            sim = self.system.robots[id_]
            if member.leaves:
                # It has let go, and pins nothing.
                assert (sim.running, sim.record) == ([], None)
            elif member.verdict == "confirmed" and sim.status == "running":
                assert sim.record.applied.revision.release == head.release


TestCellsThatShrink = pytest.mark.long(CellsThatShrink.TestCase)
TestCellsThatShrink.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
