"""The keys of a rollout: numbers and percentages, bounds, and the times of windows."""

from datetime import UTC, datetime

import pytest

from dorad.control.messages.releases import HealthRules
from dorafleet.rollout import windows
from dorafleet.rollout.strategy import (
    MAX_BATCHES,
    MAX_SECONDS,
    Batch,
    Budget,
    Strategy,
    amount,
    broken,
    parallel,
    problems,
    tolerated,
)


@pytest.mark.parametrize(
    ("value", "total", "expected"),
    [
        (0, 5, 0),
        (7, 5, 7),
        ("0", 5, 0),
        ("3", 25, 3),
        (" 10 % ", 25, 2),
        ("999999999", 5, 999_999_999),
        ("100%", 7, 7),
        ("99%", 100, 99),
        ("50%", 3, 1),
        ("1%", 99, 0),
        ("1%", 100, 1),
    ],
)
def test_an_amount_is_a_number_or_a_percentage(value, total, expected):
    assert amount(value, total) == expected


@pytest.mark.parametrize("value", [-1, "-1", "101%", "1000%", "1234567890", "", "%", "x", "1.5%"])
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(ValueError, match=r"is below 0|is neither a number nor a percentage"):
        amount(value, 10)
    assert next(problems(Strategy(canary=value))).key == "canary"
    assert [each for each in problems(Strategy(batches=[Batch(), Batch(limit=value)]))
            if each.key == "batches[1].limit"]  # fmt: skip
    assert next(problems(Strategy(failure_threshold=value))).key == "failure_threshold"
    budget = Budget(group_by="zone", max_unavailable=value)
    assert (
        next(problems(Strategy(disruption_budget=budget))).key
        == "disruption_budget.max_unavailable"
    )


def test_at_least_one_robot_switches_at_a_time_and_some_may_fail():
    assert [parallel(Strategy(), total) for total in (1, 9, 10, 29, 30)] == [1, 1, 1, 2, 3]
    assert parallel(Strategy(max_parallel=4), 100, "50%") == 50
    assert parallel(Strategy(max_parallel=4), 100) == 4
    assert parallel(Strategy(max_parallel=4), 100, 1) == 1
    assert [tolerated(Strategy(), total) for total in (1, 29, 30)] == [2, 2, 3]
    assert tolerated(Strategy(failure_threshold="50%"), 9) == 4
    assert tolerated(Strategy(failure_threshold=1), 900) == 1


def test_the_default_strategy_and_those_at_their_bounds_are_valid():
    assert list(problems(Strategy())) == []
    times = dict.fromkeys(("busy_max", "catch_up", "soak_time"), MAX_SECONDS)
    largest = HealthRules(
        min_healthy_time=MAX_SECONDS, healthy_deadline=MAX_SECONDS, confirm_deadline=MAX_SECONDS
    )
    smallest = HealthRules(min_healthy_time=0, healthy_deadline=0, confirm_deadline=0)
    for valid in (
        Strategy(rules=largest, progress_deadline=MAX_SECONDS, **times),
        Strategy(rules=smallest, progress_deadline=0, **dict.fromkeys(times, 0)),
        Strategy(batches=[Batch(limit=1)] * MAX_BATCHES),
        Strategy(windows=[f"01:00-02:{n:02}" for n in range(windows.MAX_WINDOWS)]),
        Strategy(disruption_budget=Budget(group_by="zone")),
        Strategy(failure_threshold="0%"),
        Strategy(canary="0"),
    ):
        assert list(problems(valid)) == []


@pytest.mark.parametrize("seconds", [-1, MAX_SECONDS + 1, float("inf"), float("nan")])
@pytest.mark.parametrize(
    "key",
    ["min_healthy_time", "healthy_deadline", "confirm_deadline", "progress_deadline", "busy_max",
     "catch_up", "soak_time"],
)  # fmt: skip
def test_each_time_has_its_bounds(key, seconds):
    is_rule = key in HealthRules.__struct_fields__
    wrong = Strategy(rules=HealthRules(**{key: seconds})) if is_rule else Strategy(**{key: seconds})
    (problem,) = problems(wrong)
    assert str(problem).startswith(f"{key}: {seconds:g} is not between 0 and")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"max_parallel": 0}, "max_parallel: 0 robots would never switch (write 1 or more)"),
        ({"max_parallel": "0"}, "max_parallel: 0 robots would never switch (write 1 or more)"),
        (
            {"batches": [Batch(limit=1)] * (MAX_BATCHES + 1)},
            f"batches: there are more than {MAX_BATCHES}",
        ),
        (
            {"windows": ["nonsense"] * (windows.MAX_WINDOWS + 1)},
            f"windows: there are more than {windows.MAX_WINDOWS}",
        ),
        (
            {"windows": ["01:00-02:00", "x"]},
            "windows[1]: `x` is not a window such as `Mon-Fri 22:00-05:00 Europe/Berlin`",
        ),
        (
            {"disruption_budget": Budget(group_by="")},
            "disruption_budget.group_by: it names no label (such as `group_by: zone`)",
        ),
        (
            {"rules": HealthRules(min_healthy_time=31, healthy_deadline=30)},
            (
                "healthy_deadline: 30 s end before the 31 s of min_healthy_time, so that no robot "
                "could be confirmed (make it longer)"
            ),
        ),
        (
            {"rules": HealthRules(healthy_deadline=300), "progress_deadline": 299},
            "progress_deadline: 299 s end before the 300 s of healthy_deadline (make it longer)",
        ),
        *(
            (
                {"max_parallel": value},
                (f"max_parallel: {value} of the robots would never switch (write 1 or more)"),
            )
            for value in ("0%", " 0 %", "00%")
        ),
        (
            {"max_parallel": "00"},
            "max_parallel: 00 robots would never switch (write 1 or more)",
        ),
        (
            {"canary": "0%"},
            "canary: 0% of the robots are none (write 0 for no canary, else 1 or more)",
        ),
        (
            {"batches": [Batch(limit=1), Batch(limit=0)]},
            "batches[1].limit: 0 robots would never switch (leave it out for no limit)",
        ),
        (
            {"disruption_budget": Budget(group_by="zone", max_unavailable="0%")},
            (
                "disruption_budget.max_unavailable: 0% of the robots would never switch "
                "(write 1 or more)"
            ),
        ),
        (
            {
                "batches": [
                    Batch(selector={"a": "b"}),
                    Batch(selector={"a": "b", "c": "d"}, limit=2),
                ]
            },
            (
                "batches[1]: selects only robots that are in batches[0], which has no limit "
                "(remove it, or give batches[0] a `limit`)"
            ),
        ),
        (
            {"rules": HealthRules(quiet=["a/b", "c/d", "a/b"])},
            "quiet[2]: is the same as quiet[0] (remove one)",
        ),
        (
            {"rules": HealthRules(quiet=["a/b"], rates={"a/b": 5})},
            "rates.a/b: has no effect: the output is `quiet` (remove it from one)",
        ),
        (
            {"rules": HealthRules(probes=[["a"], []])},
            "probes[1]: has no command (such as `[./check.sh]`)",
        ),
        (
            {"rules": HealthRules(min_rate=-0.1)},
            (
                "min_rate: -0.1 is not between 0 and 1 "
                "(it is a part of the rate before: 0.5 is half of it)"
            ),
        ),
        (
            {"rules": HealthRules(rates={"a/b": -1})},
            "rates.a/b: -1 is not between 0 and 1e+06 messages a second",
        ),
    ],
)
def test_what_cannot_work_is_named_once(keys, problem):
    assert list(map(str, problems(Strategy(**keys)))) == [problem]


def test_a_stored_rollout_goes_on_with_what_no_new_one_may_have():
    old = Strategy(max_parallel="0%", canary="0%", batches=[Batch(limit=0)])
    assert list(broken(old)) == []
    assert parallel(old, 50) == 1
    assert len(list(problems(old))) == 3


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("Mon 01:00-02:00", {0}),
        ("Sun 01:00-02:00", {6}),
        ("Mon-Sun 01:00-02:00", set(range(7))),
        ("01:00-02:00", set(range(7))),
        ("Sat-Mon 01:00-02:00", {5, 6, 0}),
        ("Sun-Sat 01:00-02:00", set(range(7))),
        ("Tue-Tue 01:00-02:00", {1}),
        ("Mon,Wed-Thu 01:00-02:00", {0, 2, 3}),
    ],
)
def test_days_are_named_alone_or_from_one_to_another(text, days):
    assert windows.parse(text).days == days


@pytest.mark.parametrize(
    "text", ["Mon-Tue-Wed 01:00-02:00", "Mon 24:00-25:00", "Mon 1:00-2:00", "Mon 01:00", "", "Mon"]
)
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a (window|day|time of the day)"):
        windows.parse(text)


def test_the_first_window_of_several_counts_and_one_that_is_open_is_open_now():
    def at(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    both = [windows.parse("Tue 10:00-11:00"), windows.parse("Mon 22:00-22:30")]
    monday = at("2026-11-30T12:00")
    assert windows.next_opening(both, monday) == at("2026-11-30T22:00")
    assert windows.next_opening(both, at("2026-11-30T22:00")) == at("2026-11-30T22:00")
    assert (
        windows.next_opening(both, at("2026-11-30T22:29") + 59.5) == at("2026-11-30T22:29") + 59.5
    )
    assert windows.next_opening(both, at("2026-11-30T22:30")) == at("2026-12-01T10:00")
    assert windows.next_opening(both, at("2026-12-01T11:00")) == at("2026-12-07T22:00")
    assert windows.next_opening([], monday) == monday
    never = windows.Window(frozenset(), both[0].first, both[0].last, UTC)
    assert windows.next_opening([never], monday) is None
    assert windows.next_opening([never, both[0]], monday) == at("2026-12-01T10:00")
