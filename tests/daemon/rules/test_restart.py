"""Restart policies as functions of data."""

import pytest

from dorad.daemon.rules.restart import (
    JITTER,
    Decision,
    GiveUp,
    NoRestart,
    Restart,
    RestartHistory,
    decide,
)
from dorad.dataflow.settings import Restart as Keys
from dorad.dataflow.settings import RestartPolicy

NEVER, ON_FAILURE, ALWAYS = RestartPolicy.NEVER, RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS

NEW = RestartHistory()


def decided(
    keys: Keys,
    *,
    ok: bool = False,
    history: RestartHistory = NEW,
    now: float = 0,
    chance: float = 0,
) -> Decision:
    return decide(keys, ok, history, now, lambda: chance)


def delays(keys: Keys, count: int, chance: float = 0) -> list[float]:
    """Return the delays of `count` restarts in a row."""
    history, found = RestartHistory(), []
    for _ in range(count):
        decision = decided(keys, history=history, chance=chance)
        assert isinstance(decision, Restart)
        history = decision.history
        found.append(decision.after)
    return found


@pytest.mark.parametrize(
    ("policy", "ok", "restarts"),
    [
        (NEVER, True, False),
        (NEVER, False, False),
        (ON_FAILURE, True, False),
        (ON_FAILURE, False, True),
        (ALWAYS, True, True),
        (ALWAYS, False, True),
    ],
)
def test_the_policy_decides_after_which_exits_a_node_is_restarted(
    policy: RestartPolicy, ok: bool, restarts: bool
) -> None:
    decision = decided(Keys(policy), ok=ok)
    assert isinstance(decision, Restart if restarts else NoRestart)


def test_without_a_delay_a_node_is_restarted_at_once_without_limit() -> None:
    assert delays(Keys(ALWAYS), 100) == [0.0] * 100


def test_the_delay_doubles() -> None:
    assert delays(Keys(ALWAYS, delay=0.5), 4) == [0.5, 1, 2, 4]


def test_the_delay_stops_doubling_after_sixteen_times() -> None:
    assert delays(Keys(ALWAYS, delay=1), 19)[15:] == [2.0**15, 2.0**16, 2.0**16, 2.0**16]


def test_the_delay_is_capped() -> None:
    assert delays(Keys(ALWAYS, delay=0.3, max_delay=0.5), 3) == [0.3, 0.5, 0.5]


def test_jitter_adds_up_to_a_quarter_but_never_exceeds_the_cap() -> None:
    assert delays(Keys(ALWAYS, delay=1), 2, chance=1) == [1 + JITTER, 2 * (1 + JITTER)]
    assert delays(Keys(ALWAYS, delay=1, max_delay=1.1), 2, chance=1) == [1.1, 1.1]


def test_after_the_last_restart_it_gives_up_with_the_number_of_restarts() -> None:
    keys = Keys(ALWAYS, max_restarts=3)
    assert delays(keys, 3) == [0, 0, 0]
    assert decided(keys, history=RestartHistory(3, 0)) == GiveUp("gave up after 3 restarts")
    assert decided(Keys(ALWAYS, 1), history=RestartHistory(1, 0)) == GiveUp(
        "gave up after 1 restart"
    )


def test_giving_up_names_the_window_of_the_limit() -> None:
    keys = Keys(ALWAYS, max_restarts=2, window=10)
    assert decided(keys, history=RestartHistory(2, 0), now=10) == GiveUp(
        "gave up after 2 restarts within 10 s"
    )


def test_counter_and_delay_are_reset_when_the_window_is_over() -> None:
    keys = Keys(ALWAYS, max_restarts=2, delay=1, window=10)
    decision = decided(keys, history=RestartHistory(2, 0), now=10.1)
    assert decision == Restart(1, RestartHistory(1, 10.1))


def test_without_a_window_the_counter_is_never_reset() -> None:
    keys = Keys(ALWAYS, max_restarts=2)
    assert isinstance(decided(keys, history=RestartHistory(2, 0), now=1e9), GiveUp)


def test_a_window_that_was_not_begun_begins_now() -> None:
    assert decided(Keys(ALWAYS, window=5), now=7) == Restart(0, RestartHistory(1, 7))


@pytest.mark.parametrize(("now", "restarts"), [(110, 3), (110.1, 1)])
def test_a_window_is_over_when_more_than_its_time_has_passed_since_it_began(
    now: float, restarts: int
) -> None:
    decision = decided(Keys(ALWAYS, window=10), history=RestartHistory(2, 100), now=now)
    assert isinstance(decision, Restart)
    assert decision.history == RestartHistory(restarts, 100 if restarts == 3 else now)
