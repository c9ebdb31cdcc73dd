"""What operators and the world do to robots in the models of rollouts, in any order."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from dorad.control.errors import ControlError
from tests.agent.releases.simrobot import KINDS

robots = st.sampled_from(["r1", "r2", "r3"])
releases = st.sampled_from(sorted(KINDS))


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

    @rule()
    def abort(self):
        self.try_(self.system.abort)

    @rule(robot=robots)
    def cut(self, robot):
        self.system.cut(robot)

    @rule(robot=robots)
    def heal(self, robot):
        self.system.heal(robot)

    @rule(robot=robots)
    def cut_power(self, robot):
        self.system.cut_power(robot)
