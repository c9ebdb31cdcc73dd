"""Machines that switch as one, with everything that may happen to them: a model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from msgspec.structs import replace

from tests.agent.releases.simrobot import ALIVE, TICK_S

from .system import STRATEGY, PureSystem
from .verbs import Verbs

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
    max_examples=60, stateful_step_count=20, deadline=None
)
TestAnInstanceChangesAsOne = AnInstanceChangesAsOne.TestCase
