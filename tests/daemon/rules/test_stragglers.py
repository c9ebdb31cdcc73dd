"""Stragglers: nodes that delay the end of a dataflow."""

import pytest

from dorad.daemon.rules.stragglers import Remaining, default_grace, next_check, stragglers


def waits(
    name: str = "sink",
    *,
    grace: float | None = 10,
    has_own_work: bool = False,
    since: float = 0,
    drained: bool = True,
) -> Remaining:
    return Remaining(name, grace, has_own_work, since, drained)


def test_a_node_within_its_grace_is_not_stopped() -> None:
    assert stragglers([waits()], now=9.9) == ()


def test_an_overdue_node_is_to_be_stopped() -> None:
    (found,) = stragglers([waits()], now=10)
    assert found.node == "sink"
    assert found.reason == "still runs 10 s after all its inputs closed"


def test_a_straggler_without_messages_has_its_own_reason() -> None:
    (found,) = stragglers([waits(drained=False)], now=12)
    assert found.reason == (
        "has neither sent nor received anything for 12 s: the nodes that are left wait for each "
        "other (an input with a timer would start one)"
    )


def test_without_grace_a_node_is_overdue_at_once() -> None:
    assert next_check([waits(grace=0, since=5)], now=5) == 0
    assert [each.node for each in stragglers([waits(grace=0, since=5)], now=5)] == ["sink"]


@pytest.mark.parametrize(
    "other", [waits("b", has_own_work=True), waits("b", grace=None), waits("b", since=5)]
)
def test_one_node_that_may_continue_keeps_all_running(other: Remaining) -> None:
    assert stragglers([waits("a"), other], now=12) == ()


def test_all_remaining_are_stopped_together() -> None:
    assert [s.node for s in stragglers([waits("a"), waits("b")], now=12)] == ["a", "b"]


def test_nothing_remaining_means_nothing_to_stop() -> None:
    assert stragglers([], now=12) == ()


def test_the_next_check_is_when_the_last_node_is_due() -> None:
    assert next_check([waits("a", since=1), waits("b", since=3)], now=5) == 8


@pytest.mark.parametrize("other", [waits("b", has_own_work=True), waits("b", grace=None)])
def test_time_alone_cannot_make_a_working_node_a_straggler(other: Remaining) -> None:
    assert next_check([waits("a"), other], now=5) is None


@pytest.mark.parametrize(
    ("text", "grace"), [("", 120), ("off", None), ("OFF", None), ("2.5", 2.5), ("0", 0)]
)
def test_the_grace_comes_from_the_environment(text: str, grace: float | None) -> None:
    assert default_grace({"DORA_FINISH_DRAIN_GRACE_SECS": text}) == grace


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_an_invalid_grace_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds, or off"):
        default_grace({"DORA_FINISH_DRAIN_GRACE_SECS": text})


def test_the_grace_is_two_minutes_by_default() -> None:
    assert default_grace({}) == 120
