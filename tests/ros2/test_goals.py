"""The goals of an action server: every client gets one answer, and no flood takes memory."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dorad.ros2 import goals
from dorad.ros2.goals import ENDED, KEPT_S, CancelCode, Goal, ServedGoals, State

IDS = st.sampled_from([bytes([number]) * 16 for number in range(1, 6)])


class Clients(RuleBasedStateMachine):
    """Clients that offer, cancel and ask for results at random, of a server that answers."""

    def __init__(self) -> None:
        super().__init__()
        self.served = ServedGoals()
        self.now = 0.0
        self.asked: set[int] = set()
        self.answered: set[int] = set()
        self.count = 0

    def answer(self, headers: list[int]) -> None:
        assert self.answered.isdisjoint(headers)
        self.answered |= set(headers)

    @rule(goal_id=IDS)
    def offer(self, goal_id: bytes) -> None:
        known = self.served.get(goal_id)
        refused = self.served.offer(goal_id, "header", "array", self.now)
        assert (refused == "its id is in use") == (known is not None)

    @rule(goal_id=IDS, accepted=st.booleans())
    def decide(self, goal_id: bytes, accepted: bool) -> None:
        goal = self.served.get(goal_id)
        if goal is not None and goal.state is State.UNKNOWN:
            if accepted:
                self.served.accept(goal, int(self.now * 1e9) + 1)
            else:
                self.served.reject(goal)

    @rule(goal_id=IDS)
    def ask(self, goal_id: bytes) -> None:
        goal = self.served.get(goal_id)
        if goal in self.served.active():
            assert goal is not None
            self.count += 1
            self.asked.add(self.count)
            given_up = self.served.wait(goal, self.count)
            self.answer([] if given_up is None else [given_up])

    @rule(goal_id=IDS, state=st.sampled_from(ENDED))
    def finish(self, goal_id: bytes, state: State) -> None:
        goal = self.served.get(goal_id)
        if goal in self.served.active():
            assert goal is not None
            self.answer(self.served.finish(goal, state, "result", self.now))

    @rule(goal_id=IDS, allowed=st.booleans())
    def cancel(self, goal_id: bytes, allowed: bool) -> None:
        goal = self.served.get(goal_id)
        code, canceling = self.served.cancel(goal_id, 0, allowed=allowed)
        if goal is None or goal.state is State.UNKNOWN:
            assert code == CancelCode.UNKNOWN_GOAL_ID
        elif goal.state in ENDED:
            assert code == CancelCode.GOAL_TERMINATED
        else:
            assert code == (CancelCode.NONE if allowed else CancelCode.REJECTED)
            assert canceling == ([goal] if allowed else [])

    @rule(seconds=st.floats(0, 2 * KEPT_S))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.served.expire(self.now)

    @invariant()
    def who_waits_has_a_goal_that_executes(self) -> None:
        waiting = [each for goal in self.served.active() for each in goal.waiting]
        assert sorted(waiting) == sorted(self.asked - self.answered)
        assert len(waiting) <= goals.MAX_WAITING


TestClients = Clients.TestCase


def executing(served: ServedGoals, number: int, stamp_ns: int) -> Goal:
    assert served.offer(number.to_bytes(16), None, None, 0.0) is None
    goal = served.get(number.to_bytes(16))
    assert goal is not None
    served.accept(goal, stamp_ns)
    return goal


def test_a_cancel_may_mean_all_goals_or_those_up_to_a_time() -> None:
    served = ServedGoals()
    one, two, three = (executing(served, number, 10 * number) for number in (1, 2, 3))
    assert served.cancel(bytes(16), 10, allowed=True) == (CancelCode.NONE, [one])
    assert served.cancel(three.id, 10, allowed=True) == (CancelCode.NONE, [one, three])
    assert served.cancel(bytes(16), 0, allowed=True) == (CancelCode.NONE, [one, two, three])
    assert {each.state for each in served.active()} == {State.CANCELING}


def test_goals_results_and_waiting_clients_are_bounded() -> None:
    served = ServedGoals()
    for number in range(goals.MAX_ACTIVE):
        executing(served, number + 1, 1)
    assert served.offer(bytes(16), None, None, 0.0) == f"{goals.MAX_ACTIVE} goals have not ended"
    first = served.active()[0]
    given_up = [served.wait(first, number) for number in range(goals.MAX_WAITING + 2)]
    assert given_up[-3:] == [None, 0, 1]
    assert len(served.finish(first, State.ABORTED, None, 0.0)) == goals.MAX_WAITING
    for number in range(2 * goals.MAX_ENDED):
        goal = executing(served, 10_000 + number, 1)
        served.finish(goal, State.SUCCEEDED, None, 0.0)
    assert len(served.accepted()) == goals.MAX_ENDED + goals.MAX_ACTIVE - 1
