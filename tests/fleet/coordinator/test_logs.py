"""Lines of several machines in one log."""

from collections.abc import AsyncIterator, Callable

import pytest

from dorad.control import messages as m
from dorafleet.coordinator import logorder
from dorafleet.coordinator.logorder import FIRST_S, QUIET_S, LogOrder
from dorafleet.coordinator.logs import in_order
from dorafleet.coordinator.probe import skew_of


def line(timestamp: float, node: str, message: str) -> m.LogRecord:
    return m.LogRecord(timestamp=timestamp, level="info", node=node, message=message)


async def merge(
    sent: list[tuple[str, list[m.LogRecord]]],
    tail: int | None = None,
    machine: Callable[[str], str] = str,
) -> list[tuple[str | None, str]]:
    """Return the machines and texts of the merged lines; the clock of `b` is 1 s ahead."""

    async def events() -> AsyncIterator[tuple[str, m.LogLines]]:
        for robot, lines in sent:
            yield robot, m.LogLines(dataflow="uuid", lines=lines)

    merged = in_order(events(), ["a", "b"], {"a": 0.0, "b": 1.0}.__getitem__, tail, machine)
    return [(each.machine, each.message) async for lines, _ in merged for each in lines]


async def test_lines_come_in_the_order_of_their_times_by_one_clock() -> None:
    sent = [("b", [line(12.5, "y", "second")]), ("a", [line(10, "x", "first")])]
    assert await merge(sent) == [("a", "first"), ("b", "second")]


async def test_a_line_that_two_robots_of_one_machine_send_comes_once() -> None:
    shared = [line(10, "x", "one"), line(11, "y", "two")]
    found = await merge([("a", shared), ("b", shared)], machine=lambda robot: "host")
    assert [text for _, text in found] == ["one", "two"]
    found = await merge([("a", shared), ("b", shared)], tail=2, machine=lambda robot: "host")
    assert [text for _, text in found] == ["one", "two"]


async def test_the_same_line_of_two_machines_comes_twice() -> None:
    """Robots that start together print the same in the same moment."""
    same = [line(10, "x", "ready")]
    found = await merge([("a", same), ("b", same)])
    assert sorted(found) == [("a", "ready"), ("b", "ready")]


async def test_a_machine_may_send_the_same_line_twice() -> None:
    assert len(await merge([("a", [line(10, "x", "tick"), line(10, "x", "tick")])])) == 2


def test_a_line_waits_for_robots_that_may_have_an_earlier_one() -> None:
    order = LogOrder(["a", "b"], {"a": 0.0, "b": 0.0}.__getitem__, 0.0)
    order.add("a", [line(10, "x", "first"), line(12, "x", "third")], now=0.1, today=100.0)
    assert order.take(0.1) == []
    order.add("b", [line(11, "y", "second")], now=0.2, today=100.0)
    assert [each.message for each in order.take(0.2)] == ["first", "second"]
    assert order.take(0.2 + QUIET_S - 0.01) == []
    assert [each.message for each in order.take(0.2 + QUIET_S)] == ["third"]


def test_a_robot_that_sends_nothing_delays_the_others_only_at_first() -> None:
    order = LogOrder(["a", "b"], {"a": 0.0, "b": 0.0}.__getitem__, 0.0)
    order.add("a", [line(10, "x", "only")], now=0.1, today=100.0)
    assert order.take(FIRST_S - 0.01) == []
    assert [each.message for each in order.take(FIRST_S)] == ["only"]


def test_long_lines_do_not_wait_for_their_order_and_are_not_all_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logorder, "MAX_CHARACTERS", 100)
    order = LogOrder(["a", "b"], {"a": 0.0, "b": 0.0}.__getitem__, 0.0)
    long = [line(number, "x", f"{number:50}") for number in range(10, 20)]
    order.add("a", long, now=0.1, today=100.0)
    assert [each.timestamp for each in order.take(0.1)] == [*range(10, 18)]
    order.add("a", long, now=0.2, today=100.0)
    assert order.keep_newest(5) == 3
    assert [each.timestamp for each in order.take_all()] == [19, 19]


def ordered(robots: dict[str, list[m.LogRecord]], skew: dict[str, float]) -> list[str]:
    """Return the texts of lines that robots have sent when it is 1,000,000 s after 1970."""
    order = LogOrder(robots, skew.__getitem__, 0.0)
    for robot, lines in robots.items():
        order.add(robot, lines, now=0.1, today=1_000_000.0)
    return [each.message for each in order.take_all()]


def test_times_of_a_clock_that_may_be_right_are_taken_as_they_are() -> None:
    late = skew_of(clock=1000.1, asked_at=1000.0, answered_at=1000.8)  # 0.3 s behind, at most 0.4
    assert late.correction == 0.0
    behind = skew_of(clock=999.1, asked_at=1000.0, answered_at=1000.1)
    assert behind.correction == behind.seconds


def test_lines_before_and_after_a_clock_was_set_stay_in_the_order_they_were_written() -> None:
    right, back, forward = 999_000.0, 999_010.0 - 93_600, 999_010.0 + 93_600
    other = [line(999_005.0, "x", "other 1"), line(999_020.0, "x", "other 2")]
    for wrong in (back, forward):
        lines = [line(right, "y", "before"), line(wrong, "y", "after")]
        skew = wrong - 999_010.0
        found = ordered({"a": lines, "b": other}, {"a": skew, "b": 0.0})
        assert found == ["before", "other 1", "after", "other 2"], skew
        lines.append(line(999_030.0, "y", "right again"))
        # How far the clock was off is not known any more: it cannot be put between the others.
        found = [x for x in ordered({"a": lines, "b": other}, {"a": 0.0, "b": 0.0}) if x[0] != "o"]
        assert found == ["before", "after", "right again"], skew


def test_a_clock_that_was_just_set_back_does_not_put_new_lines_above_old_ones() -> None:
    lines = [line(999_000.0, "y", "before"), line(906_000.0, "y", "after")]
    assert ordered({"a": lines}, {"a": 0.0}) == ["before", "after"]


def test_lines_of_an_hour_ahead_hide_none_that_were_written_since_the_clock_is_right() -> None:
    own = [line(999_000.0, "y", "before")]
    own += [line(999_010.0 + 3600, "y", "ahead 1"), line(999_040.0 + 3600, "y", "ahead 2")]
    own += [line(999_050.0, "y", "right 1"), line(999_990.0, "y", "right 2")]
    other = [line(999_005.0, "x", "other 1"), line(999_970.0, "x", "other 2")]
    found = ordered({"a": own, "b": other}, {"a": 0.0, "b": 0.0})
    after = ["other 1", "right 1", "other 2", "right 2"]
    assert found == ["before", "ahead 1", "ahead 2", *after]
    # Without a line from before, too: those that were written last are the last.
    found = ordered({"a": own[1:]}, {"a": 0.0})
    assert found == ["ahead 1", "ahead 2", "right 1", "right 2"]
