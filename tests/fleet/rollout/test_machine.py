"""Whatever robots and operators do, a rollout keeps its limits and ends in a state of the table."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dorad.control.errors import ControlError
from dorafleet.rollout.decide import goes_back
from dorafleet.rollout.gates import down, impossible
from dorafleet.rollout.model import FINAL, Member, Rollout
from dorafleet.rollout.phases import BUSY_AGAIN_S, failures
from dorafleet.rollout.steps import Orders
from dorafleet.rollout.strategy import Budget, Strategy, amount, parallel, tolerated

from .world import NEW, OLD, START, World

SOAK_S = 600.0
FATES = ["confirmed", "confirmed", "confirmed", "reverted", "stuck", "refused"]
robots = st.integers(0, 9)

strategies = st.builds(
    Strategy,
    canary=st.integers(0, 2),
    auto_promote=st.booleans(),
    auto_revert=st.booleans(),
    max_parallel=st.sampled_from([1, 2, "30%", 10]),
    failure_threshold=st.sampled_from([None, 0, 1, "20%"]),
    disruption_budget=st.sampled_from(
        [None, Budget(group_by="zone"), Budget(group_by="zone", max_unavailable="50%")]
    ),
    busy=st.sampled_from(["wait", "ignore"]),
    soak_time=st.sampled_from([0.0, SOAK_S]),
)


class RolloutMachine(RuleBasedStateMachine):
    """Robots come and go, fail and are busy; operators pause, promote, abort and undo."""

    @initialize(strategy=strategies, size=st.integers(1, 10), data=st.data())
    def begin(self, strategy, size, data):
        names = [f"r{number}" for number in range(size)]
        canaries = min(size, strategy.canary)
        members = [
            Member(robot=name, batch=0 if place < canaries else 1 + place % 2, before=OLD)
            for place, name in enumerate(names)
        ]
        rollout = Rollout(
            number=1,
            dataflow="pick",
            release=NEW,
            name="pick-2",
            strategy=strategy,
            size=size,
            by="ann",
            created=START,
        )
        self.world = World(
            rollout, members, {name: f"zone{place % 2}" for place, name in enumerate(names)}
        )
        assume(not impossible(strategy.disruption_budget, self.world.view().fleet, names))
        for name in names:
            self.world.robots[name].fate = data.draw(st.sampled_from(FATES))

        self.world.has_begun = True

    def robot(self, number):
        found = list(self.world.robots.values())
        return found[number % len(found)]

    @rule()
    def step(self):
        self.step_once()

    def step_once(self):
        """Check the next step; return whether there was one."""
        before = self.world.view()
        step = self.world.step()
        if isinstance(step, Orders):
            self.check_orders(before, step)
        return step is not None

    def check_orders(self, before, step):
        # In a pause, robots that have not begun are called back to get ready.
        assert not before.rollout.paused or before.rollout.is_final or step.kind == "stage"
        for id_ in step.robots:
            robot = self.world.robots[id_]
            # In the middle of a switch a robot may only turn round.
            assert not robot.moving or step.kind == "back", f"{id_} gets an order on its way"
            if step.kind in ("switch", "back"):
                assert robot.connected
                assert not (before.rollout.strategy.busy == "wait" and robot.leased)
        if step.kind == "switch":
            assert not any(before.members[id_].undone for id_ in step.robots)
            assert before.rollout.phase in ("canary", "rolling", "soaking", "settled")
            limit = tolerated(before.rollout.strategy, before.rollout.size)
            assert len(failures(before.members.values())) <= limit
            assert not failures(m for m in before.members.values() if m.batch == 0)
            if before.rollout.phase == "canary":
                assert all(before.members[id_].batch == 0 for id_ in step.robots)
                assert not failures(before.members.values())
        self.check_budget(before, step)

    def check_budget(self, before, step):
        budget = before.rollout.strategy.disruption_budget
        if budget is None or step.kind not in ("switch", "back"):
            return
        was, now = down(before), down(self.world.view())
        for group in {before.fleet[id_].group for id_ in step.robots}:
            mates = {id_ for id_, robot in before.fleet.items() if robot.group == group}
            limit = amount(budget.max_unavailable, len(mates))
            assert len(mates & now) <= max(limit, len(mates & was))
            if mates & now - was:
                assert len(mates & now) <= limit

    @rule(number=robots)
    def deliver(self, number):
        self.robot(number).deliver(self.world.now)

    @rule(number=robots)
    def progress(self, number):
        robot = self.robot(number)
        robot.deliver(self.world.now)
        robot.progress(self.world.now)

    @rule()
    def all_go_on(self):
        for robot in self.world.robots.values():
            robot.deliver(self.world.now)
            robot.progress(self.world.now)

    @rule(number=robots)
    def come_or_go(self, number):
        robot = self.robot(number)
        robot.connected = not robot.connected
        robot.away_at = self.world.now

    @rule(number=robots)
    def lease_or_release(self, number):
        robot = self.robot(number)
        robot.leased_at = None if robot.leased else self.world.now

    @rule(number=robots)
    def nodes_fail(self, number):
        """Nodes of a robot fail after it has confirmed the release."""
        robot = self.robot(number)
        if robot.state is not None and robot.state.phase == "confirmed" and robot.running == NEW:
            failed = {"cam": "has failed: it exited with code 1"}
            robot.state = msgspec.structs.replace(robot.state, failed=failed)

    @rule(number=robots)
    def nodes_fail_in_its_soak(self, number):
        """Nodes of a robot fail, and it goes back without an order."""
        robot = self.robot(number)
        soaks = self.world.rollout.strategy.soak_time > 0
        member = self.world.members[robot.id]
        has_it = member.order == "switch" and member.generation == robot.generation
        has_it = has_it and robot.state.phase == "confirmed" and robot.running == NEW
        if soaks and has_it:
            robot.go_back(self.world.now)

    @rule(seconds=st.sampled_from([1.0, 20.0, 700.0, 5 * 3600.0, 31 * 86400.0]))
    def time_passes(self, seconds):
        self.world.now += seconds

    @rule(rounds=st.integers(1, 6))
    def all_is_driven(self, rounds):
        """Let the coordinator do all that it can, then each robot one thing."""
        for _ in range(rounds):
            for _ in range(20):
                if not self.step_once():
                    break
            self.never_more_than_max_parallel()
            self.all_go_on()

    @rule(act=st.sampled_from(["pause", "resume", "promote", "promote"]))
    def operate(self, act):
        self.do(act)

    @rule(act=st.sampled_from(["abort", "undo"]), luck=st.integers(0, 5))
    def end(self, act, luck):
        if luck == 0:
            self.do(act)

    @rule(number=robots, luck=st.integers(0, 2))
    def undo_one(self, number, luck):
        if luck == 0:
            try:
                self.world.undo_instance(self.robot(number).id)
            except ControlError as error:
                assert error.code == "refused"

    def do(self, act):
        try:
            self.world.operate(act)
        except ControlError as error:
            assert error.code == "refused"

    @rule()
    def coordinator_restarts(self):
        """It continues from its journal alone."""
        rollout, members = self.world.rollout, self.world.members
        self.world.rollout = msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout)
        self.world.members = {
            id_: msgspec.json.decode(msgspec.json.encode(member), type=Member)
            for id_, member in members.items()
        }

    @invariant()
    def never_more_than_max_parallel(self):
        world = self.world
        limit = parallel(world.rollout.strategy, world.rollout.size)
        assert sum(member.in_flight for member in world.members.values()) <= limit
        moving = [
            id_
            for id_, robot in world.robots.items()
            if robot.moving and world.members[id_].verdict not in ("lost", "confirmed", "failed")
        ]  # who has confirmed goes back alone
        assert len(moving) <= limit

    @invariant()
    def an_undo_names_every_robot_that_has_the_release(self):
        view = self.world.view()
        for member in view.members.values():
            if self.world.robots[member.robot].running == NEW and member.order == "switch":
                assert goes_back(view, member)

    @invariant()
    def no_robot_switches_twice_to_the_release(self):
        for robot in self.world.robots.values():
            assert robot.switches.count(NEW) <= 1

    def teardown(self):
        world = getattr(self, "world", None)
        if world is None or not world.has_begun:
            return
        for robot in world.robots.values():
            robot.connected, robot.leased_at = True, None
        world.now += BUSY_AGAIN_S
        if world.rollout.paused:
            world.operate("resume")
        world.settle()
        if world.rollout.phase == "awaiting_promotion":
            world.operate("promote")
            world.settle()
        for _ in range(2):  # what is confirmed at the end of one soak has its own
            world.now += SOAK_S
            world.settle()
        phase = world.rollout.phase
        event(f"ends {phase}")
        assert phase in FINAL | {"revert_incomplete"}, phase
        for member in world.members.values():
            robot = world.robots[member.robot]
            if member.verdict == "confirmed":
                assert robot.running == NEW
            elif member.verdict in ("back", "reverted", "refused"):
                assert robot.running == OLD
            # One that fails after its confirmation does not stay with the release.
            assert member.verdict != "failed"
            # One that was undone has gone back, unless that has failed.
            if member.undone and phase not in ("superseded",):
                assert robot.running != NEW
            assert not member.in_flight
            kept = (
                member.verdict in ("stuck", "lost", "reverted", "failed")
                and member.order == "switch"
            )
            if robot.wanted is not None and not kept and member.verdict != "stuck":
                assert robot.wanted.release == robot.running
        if phase in FINAL:
            assert world.is_over
        if phase in ("succeeded", "succeeded_partially"):
            assert any(member.verdict == "confirmed" for member in world.members.values())
        if phase in ("reverted", "revert_incomplete"):
            stuck = [m for m in world.members.values() if m.verdict == "stuck"]
            assert bool(stuck) == (phase == "revert_incomplete")


RolloutMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestRollout = pytest.mark.long(RolloutMachine.TestCase)
