"""Verbs, states and failures in any order: a rollout keeps its word on every robot and node."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from msgspec.structs import replace

from tests.agent.assignments.simrobot import ALIVE, KINDS, TICK_S

from .system import SOAK_S, STRATEGY, PureSystem, System
from .verbs import Verbs, robots

GOOD = {release for release, kind in KINDS.items() if kind in ("good", "new idle")}
SLOW_S = 2 * TICK_S
"""Time in which what has happened on a robot is reported."""


class RolloutsKeepTheirWord(Verbs):
    """Uses only the verbs and the observations of `System`."""

    def make(self) -> System:
        return PureSystem(3)

    @initialize(release=st.sampled_from(sorted(GOOD)))
    def begin(self, release):
        self.system = self.make()
        self.connected = {}
        self.failing = {}
        self.confirmed = {}
        self.was_soaking = None
        self.rollout = (0, 0)
        self.system.start(release, retry=False, allow_lower=False)
        self.system.pass_time(600)

    @rule(robot=robots)
    def stop(self, robot):
        self.system.stop(robot)

    @rule(robot=robots)
    def restart(self, robot):
        self.system.restart(robot)

    @rule(robot=robots)
    def replace(self, robot):
        self.system.replace(robot)
        self.connected.pop(robot, None)

    @rule(robot=robots, full=st.booleans())
    def fill_disk(self, robot, full):
        self.system.fill_disk(robot, full=full)

    @rule(seconds=st.sampled_from([5, 20, 40, 60, 200, 600]))
    def time_passes(self, seconds):
        for _ in range(int(seconds // TICK_S)):
            before = self.system.observe()
            self.system.pass_time(TICK_S)
            self.check(before)

    @invariant()
    def holds(self):
        if hasattr(self, "system"):
            self.check(None)

    def check(self, before):
        found = self.system.observe()
        for id_, robot in found.robots.items():
            self.contact_comes_before_confirmation(robot)
            self.nothing_rejected_comes_back(robot, found)
            self.nodes_that_have_ended_are_drift(id_, robot)
            self.no_failure_is_left_in_a_rollout(id_, robot, found)
        self.a_soak_lasts_whatever_clocks_show(found)
        if before is not None and before.canary and before.verdicts.get(before.canary) == "failed":
            # Those that were ordered in this very moment are the rollout's before it.
            assert not found.ordered, "the rollout went on after its canary had failed"
        if before is not None and before.paused and found.paused:
            assert not found.ordered, "the rollout went on while it was paused"

    def contact_comes_before_confirmation(self, robot):
        for event in robot.events:
            if event.what == "confirmed" and event.needs_contact:
                assert event.cut_for <= TICK_S, f"confirmed {event.cut_for} s after the cut"

    def nothing_rejected_comes_back(self, robot, found):
        for event in robot.events:
            if event.what == "goes back":
                assert event.release not in robot.rejected, "it goes back to what was rejected"

    def no_failure_is_left_in_a_rollout(self, id_, robot, found):
        """A robot that has failed in the rollout's time goes back, whatever the threshold is."""
        stays = robot.connected and found.verdicts.get(id_) == "failed"
        stays = stays and robot.phase == "confirmed"
        # A rollout that is paused, as all are after a restore, gives no order.
        stays = stays and not found.paused
        self.failing[id_] = self.failing.get(id_, 0) + 1 if stays else 0
        # An undo takes its robots one by one; 40 checks may follow each other without any time.
        if found.phase not in ("reverting", "revert_incomplete"):
            assert self.failing[id_] <= 2 + 40, f"{id_} has failed, and keeps the release"

    def a_soak_lasts_whatever_clocks_show(self, found):
        since, self.confirmed = self.confirmed, {}
        # What is confirmed when a rollout is seen first, as after a restore, was so before.
        new = found.now if self.rollout == found.rollout else 0.0
        self.rollout = found.rollout
        for id_, verdict in found.verdicts.items():
            if verdict == "confirmed":
                key = (found.rollout, id_)
                self.confirmed[key] = since.get(key, new)
        is_over = found.phase in ("settled", "succeeded", "succeeded_partially")
        if is_over and self.was_soaking == found.rollout and self.confirmed:
            soaked = found.now - max(self.confirmed.values())
            assert soaked >= SOAK_S - SLOW_S, f"it has soaked for {soaked} s"
        self.was_soaking = found.rollout if found.phase == "soaking" else None

    def nodes_that_have_ended_are_drift(self, id_, robot):
        """Confirmed means no drift, and what has no drift runs."""
        if not robot.connected or robot.phase != "confirmed" or not robot.release:
            self.connected[id_] = 0
            return
        dead = [node for node in ALIVE if node not in robot.nodes]
        self.connected[id_] = self.connected.get(id_, 0) + 1 if dead else 0
        if self.connected[id_] > 2 + 40:  # 40 checks may follow each other without any time
            assert robot.drift, f"{dead} have ended on {id_}, and drift says all is well"

    def teardown(self):
        """Left alone, and undone, everything runs that ran before."""
        system = getattr(self, "system", None)
        if system is None:
            return
        for robot in ("r1", "r2", "r3"):
            system.heal(robot)
            system.fill_disk(robot, full=False)
        if system.observe().paused:
            system.resume()
        for _ in range(200):
            system.pass_time(4 * TICK_S)
            self.check(None)
        found = system.observe()
        assert found.phase != "soaking", "it soaks for ever"
        for id_, robot in found.robots.items():
            assert robot.phase not in ("switching", "probation", "reverting"), (id_, robot)
            dead = [node for node in ALIVE if node not in robot.nodes]
            if robot.phase == "confirmed" and dead:
                assert robot.drift, (id_, robot, dead)
            if robot.phase == "confirmed" and found.verdicts.get(id_) == "back" and not robot.drift:
                assert not dead
            if robot.phase == "stuck":
                assert robot.drift
            assert found.verdicts.get(id_) != "failed", f"{id_} keeps a release that has failed"


RolloutsKeepTheirWord.TestCase.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=20, deadline=None
)
TestRolloutsKeepTheirWord = pytest.mark.long(RolloutsKeepTheirWord.TestCase)


FIRST, LATE = "a" * 64, "d" * 64


def two_releases(soak_time: float = SOAK_S) -> PureSystem:
    """Return a robot that has confirmed a release, and gets one whose `con` dies 45 s later."""
    system = PureSystem(1)
    system.start(FIRST, retry=False, allow_lower=False)
    system.pass_time(600)
    system.strategy = replace(STRATEGY, soak_time=soak_time)
    system.start(LATE, retry=False, allow_lower=False)
    return system


def broken_and_not_watched() -> PureSystem:
    """Return a robot on which `con` has died, without a rollout that notices."""
    system = two_releases(soak_time=0.0)
    while (robot := system.observe().robots["r1"]).phase != "confirmed" or robot.release != LATE:
        system.pass_time(TICK_S)
    system.pass_time(120)
    robot = system.observe().robots["r1"]
    assert robot.release == LATE
    assert robot.nodes == ["pub"]
    assert any("con has failed" in text for text in robot.drift)
    assert any("idle has ended: its inputs closed" in text for text in robot.drift)
    return system


def runs_as_before(system: PureSystem) -> bool:
    robot = system.observe().robots["r1"]
    assert (robot.release, robot.phase, robot.drift) == (FIRST, "confirmed", [])
    return set(robot.nodes) == set(ALIVE)


def test_a_canary_that_dies_after_its_confirmation_goes_back_with_all_its_nodes():
    system = two_releases()
    system.pass_time(600)
    assert runs_as_before(system)
    assert system.observe().phase == "reverted"


def test_an_undo_brings_all_nodes_of_the_former_release_to_life():
    system = broken_and_not_watched()
    system.undo(at_once=False)
    system.pass_time(300)
    assert runs_as_before(system)


def test_an_older_release_rolled_out_again_brings_all_nodes_to_life():
    system = broken_and_not_watched()
    system.start(FIRST, retry=True, allow_lower=True)
    system.pass_time(300)
    assert runs_as_before(system)


def test_the_same_release_rolled_out_again_starts_dead_nodes():
    system = broken_and_not_watched()
    system.start(LATE, retry=True, allow_lower=False)
    for _ in range(8):
        system.pass_time(TICK_S)
        if set(system.observe().robots["r1"].nodes) == set(ALIVE):
            return
    raise AssertionError("its nodes were not started again")


def test_after_an_undo_a_robot_that_fails_stays_and_asks():
    system = broken_and_not_watched()
    robot = system.robots["r1"]
    system.undo(at_once=False)
    while robot.record.phase != "probation":
        system.pass_time(TICK_S)
    for _ in range(60):
        robot.cut_power()  # three times in one probation: it has failed
        system.pass_time(TICK_S)
        if robot.record.phase == "stuck":
            break
    assert "every release that was confirmed here has failed or was undone" in robot.record.reason
    assert system.observe().robots["r1"].drift
    system.pass_time(60)
    seen = system.observe()
    assert (seen.phase, seen.verdicts["r1"]) == ("revert_incomplete", "stuck")


def soaking_on_three() -> PureSystem:
    """Return three robots: on the second one `con` dies in the soak; the others run on."""
    system = PureSystem(3)
    system.start(FIRST, retry=False, allow_lower=False)
    system.pass_time(600)
    system.strategy = replace(STRATEGY, canary=0, failure_threshold=3, max_parallel=3)
    system.start("b" * 64, retry=False, allow_lower=False)
    while system.observe().phase != "soaking":
        system.pass_time(TICK_S)
    return system


def kill_con(system: PureSystem, robot: str) -> None:
    sim = system.robots[robot]
    sim._end(sim.nodes["con"], "failed", None, "exited with code 1")


@pytest.mark.parametrize("meanwhile", ["nothing", "cut", "power", "cut and power", "full disk"])
def test_a_robot_that_fails_in_the_soak_goes_back_while_the_others_stay(meanwhile):
    system = soaking_on_three()
    if "cut" in meanwhile:
        system.cut("r2")
    if meanwhile == "full disk":
        system.fill_disk("r2", full=True)
    kill_con(system, "r2")
    system.pass_time(TICK_S)
    if "power" in meanwhile:
        system.cut_power("r2")
    system.pass_time(300)
    found = system.observe()
    assert found.robots["r2"].release == FIRST
    assert set(found.robots["r2"].nodes) == set(ALIVE)
    system.heal("r2")
    system.pass_time(60)
    found = system.observe()
    assert found.verdicts == {"r1": "confirmed", "r2": "reverted", "r3": "confirmed"}
    assert {id_: robot.release for id_, robot in found.robots.items()} == {
        "r1": "b" * 64, "r2": FIRST, "r3": "b" * 64,
    }  # fmt: skip
    (row,) = found.robots["r2"].drift
    assert "node con has failed" in row
    assert not found.robots["r1"].drift


def test_a_robot_whose_own_soak_is_over_goes_back_as_long_as_the_rollout_is_watched():
    system = soaking_on_three()
    system.robots["r2"].record = replace(system.robots["r2"].record, soaks_since=None)
    kill_con(system, "r2")
    system.pass_time(60)
    found = system.observe()
    assert (found.robots["r2"].release, found.verdicts["r2"]) == (FIRST, "reverted")


def test_a_cable_that_is_cut_after_the_switch_confirms_nothing():
    system = PureSystem(1)
    system.start(FIRST, retry=False, allow_lower=False)
    system.pass_time(600)
    system.start("b" * 64, retry=False, allow_lower=False)
    while system.observe().robots["r1"].phase != "probation":
        system.pass_time(TICK_S)
    system.pass_time(TICK_S)
    system.cut("r1")
    system.pass_time(60)
    assert system.observe().robots["r1"].phase == "probation"
    system.pass_time(300)
    robot = system.observe().robots["r1"]
    assert (robot.phase, robot.release) == ("reverted", FIRST)


DAY_S = 86400.0
WRONG = {
    "full disk": lambda robot: setattr(robot, "disk_full", True),
    "a day on": lambda robot: setattr(robot, "clock_s", DAY_S),
    "a day back": lambda robot: setattr(robot, "clock_s", -DAY_S),
}
"""What goes wrong on a robot."""


@pytest.mark.parametrize("seconds", [DAY_S, -DAY_S])
def test_a_soak_lasts_as_long_although_the_clock_of_the_coordinator_is_set(seconds):
    system = soaking_on_three()
    system.set_clock(seconds)
    system.pass_time(SOAK_S - 6 * TICK_S)
    assert system.observe().phase == "soaking"
    system.pass_time(12 * TICK_S)
    assert system.observe().phase == "succeeded"


def second_rollout(release: str, before_step) -> PureSystem:
    """Roll a second release out; `before_step` is called with the number of each step.

    A step is everything that the robot does after it has looked once at what is there.
    """
    system = PureSystem(1)
    system.start(FIRST, retry=False, allow_lower=False)
    system.pass_time(600)
    robot = system.robots["r1"]
    act, steps = robot._act, count()

    def counted():
        before_step(next(steps), robot)
        act()

    robot._act = counted
    system.start(release, retry=False, allow_lower=False)
    system.pass_time(600)
    return system


def steps_that_change(release: str) -> list[int]:
    """Return the steps of an undisturbed rollout before which the robot has changed."""
    changed, records = [], [None]

    def look(step, robot):
        if robot.record != records[-1]:
            changed.append(step)
            records.append(robot.record)

    second_rollout(release, look)
    return changed


@pytest.mark.long
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize(
    ("release", "ends"), [("b" * 64, "b" * 64), (LATE, FIRST)], ids=["good", "late"]
)
def test_a_full_disk_or_a_clock_that_jumps_at_any_step_changes_no_end(what, release, ends):
    steps = steps_that_change(release)
    assert len(steps) > 5
    usual = second_rollout(release, lambda *_: None).observe()
    assert usual.robots["r1"].release == ends
    phases = set()
    for wrong_at in steps:

        def go_wrong(step, robot, wrong_at=wrong_at):
            if step == wrong_at:
                phases.add(robot.record.phase)
                WRONG[what](robot)

        system = second_rollout(release, go_wrong)
        meanwhile = system.observe().robots["r1"]
        assert meanwhile.release in (FIRST, release)
        assert meanwhile.phase not in ("switching", "probation", "reverting")
        assert set(meanwhile.nodes) == set(ALIVE)
        if what == "full disk":
            system.fill_disk("r1", full=False)
            system.pass_time(600)
        found = system.observe()
        robot, verdict = found.robots["r1"], found.verdicts["r1"]
        assert set(robot.nodes) == set(ALIVE)
        if what == "full disk":
            # It may have taken too long; then the rollout says so, and it has gone back.
            assert (found.phase, verdict) in (
                (usual.phase, usual.verdicts["r1"]),
                ("reverted", "back"),
            )
            assert robot.release == (release if verdict == "confirmed" else FIRST)
        else:
            assert (found.phase, verdict) == (usual.phase, usual.verdicts["r1"])
            assert (robot.release, robot.phase) == (ends, usual.robots["r1"].phase)
    assert phases >= {"pending", "staged", "switching", "probation", "confirmed"}
    assert ("reverting" in phases) == (ends == FIRST)
