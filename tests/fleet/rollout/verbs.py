"""What operators and the world do to robots in the models of rollouts, in any order."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from dorad.control.errors import ControlError
from tests.agent.assignments.simrobot import KINDS

robots = st.sampled_from(["r1", "r2", "r3"])
releases = st.sampled_from(sorted(KINDS))

clocks = st.sampled_from([0.0, 3600.0, -3600.0, 86400.0, -86400.0, -1.7e9])
"""By how much clocks are wrong."""


class Verbs(RuleBasedStateMachine):
    """A machine with a `system` of three robots, as `System` describes it."""

    def try_(self, verb, *args, **keys):
        try:
            verb(*args, **keys)
        except ControlError as error:
            assert error.code in ("refused", "exists", "not-found")

    @rule(release=releases, retry=st.booleans(), allow_lower=st.booleans())
    def start(self, release, retry, allow_lower):
        self.try_(self.system.start, release, retry=retry, allow_lower=allow_lower)

    @rule(at_once=st.booleans())
    def undo(self, at_once):
        self.try_(self.system.undo, at_once=at_once)

    @rule(robot=robots)
    def undo_one(self, robot):
        self.try_(self.system.undo_one, robot)

    @rule()
    def abort(self):
        self.try_(self.system.abort)

    @rule()
    def pause(self):
        self.try_(self.system.pause)

    @rule()
    def resume(self):
        self.try_(self.system.resume)

    @rule(acts=st.permutations(("undo", "abort", "resume")))
    def two_operators(self, acts):
        """Do at once what contradicts itself; the coordinator takes one after the other."""
        for act in acts:
            self.try_(getattr(self.system, act), **({"at_once": False} if act == "undo" else {}))

    @rule()
    def back_up(self):
        self.system.back_up()

    @rule()
    def restore(self):
        self.try_(self.system.restore)

    @rule(seconds=clocks)
    def set_clock(self, seconds):
        self.system.set_clock(seconds)

    @rule(robot=robots, seconds=clocks)
    def set_robot_clock(self, robot, seconds):
        self.system.set_robot_clock(robot, seconds)

    @rule(robot=robots)
    def cut(self, robot):
        self.system.cut(robot)

    @rule(robot=robots)
    def heal(self, robot):
        self.system.heal(robot)

    @rule(robot=robots)
    def cut_power(self, robot):
        self.system.cut_power(robot)
