"""The budget of what a robot uploads: never exceeded within 24 hours, whatever is killed or set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.agent.budget import DAY, HOUR_S, STEP, Budget, BudgetSpentError, counted

PER_DAY = 10 << 20


class Clock:
    def __init__(self, hour=500_000):
        self.now = hour * HOUR_S

    def __call__(self):
        return self.now


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 2 << 20), st.booleans()), max_size=60))
def test_no_24_hours_exceed_the_budget_also_over_kills(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("budget") / "incidents.json"
    clock = Clock()
    budget, sent = Budget(path, clock), []
    for hours, count, killed in steps:
        clock.now += hours * HOUR_S
        if killed:
            budget = Budget(path, clock)
        try:
            budget.spend(count, PER_DAY)
        except BudgetSpentError:
            assert budget.spent + count > PER_DAY - STEP * len(steps)
        else:
            sent.append((clock.now, count))
    for end, _ in sent:
        window = sum(count for at, count in sent if end - DAY * HOUR_S < at <= end)
        assert window <= PER_DAY


def test_a_kill_costs_at_most_one_step_and_an_orderly_end_nothing(tmp_path):
    clock = Clock()
    budget = Budget(tmp_path / "b.json", clock)
    budget.spend(1000, PER_DAY)
    assert budget.spent == 1000
    assert Budget(tmp_path / "b.json", clock).spent == STEP
    budget.settle()
    assert Budget(tmp_path / "b.json", clock).spent == 1000


def test_all_of_the_budget_can_be_used_and_is_back_after_a_day(tmp_path):
    clock = Clock()
    budget = Budget(tmp_path / "b.json", clock)
    for _ in range(10):
        budget.spend(1 << 20, PER_DAY)
    with pytest.raises(BudgetSpentError):
        budget.spend(1, PER_DAY)
    clock.now += 24 * HOUR_S
    with pytest.raises(BudgetSpentError):
        budget.spend(1, PER_DAY)
    clock.now += HOUR_S
    budget.spend(1 << 20, PER_DAY)


@given(
    st.dictionaries(st.integers(0, 10**6), st.integers(0, 1000), max_size=30),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_a_clock_that_is_set_back_frees_nothing_and_blocks_for_no_more_than_two_days(
    hours, before, now
):
    back = counted(hours, before)
    if now <= before:
        assert sum(counted(back, now).values()) == sum(back.values())
    kept = counted(hours, now)
    assert counted(kept, now + 2 * DAY + 1) == {}


def test_a_damaged_file_is_reported_and_counts_as_empty(tmp_path, caplog):
    (tmp_path / "b.json").write_bytes(b"\xff[")
    assert Budget(tmp_path / "b.json").spent == 0
    assert "cannot be read" in caplog.text


def test_what_cannot_be_stored_is_not_sent(tmp_path):
    budget = Budget(tmp_path / "absent" / "b.json")
    with pytest.raises(OSError, match="No such file"):
        budget.spend(1, PER_DAY)
    assert budget.spent == 0
