"""The next phase of a rollout, for each state of its robots."""

import pytest
from msgspec.structs import replace

from dorafleet.rollout.model import Member, Seen
from dorafleet.rollout.phases import (
    BUSY_AGAIN_S,
    DEFER_S,
    NO_WAY_BACK,
    TOO_BUSY,
    is_deferred,
    is_watched,
    next_phase,
    soaks_until,
    was_too_busy,
)
from dorafleet.rollout.steps import Enter

from .test_instances import STRATEGY, seen, view
from .world import NEW, OLD, START

HERE = seen("confirmed", running=NEW)
AWAY = Seen(away_for=DEFER_S)


def robot(name="r1", verdict="", order="switch", batch=1, **more):
    return Member(name, batch, before=more.pop("before", OLD), order=order, verdict=verdict, **more)


def canary(verdict="", order="switch", **more):
    return robot("c1", verdict, order, 0, **more)


def entered(phase, *robots, rejected=frozenset(), reason="", **strategy):
    """Return the next phase; each robot is a member, or one with what is seen of it."""
    pairs = [each if isinstance(each, tuple) else (each, HERE) for each in robots]
    chosen = replace(STRATEGY, **strategy)
    return next_phase(view(*pairs, phase=phase, strategy=chosen, rejected=rejected, reason=reason))


DONE, OPEN = robot("r1", "confirmed", at=START), robot("r2", order="stage")
BAD = robot("r3", "reverted", reason="crashed")


@pytest.mark.parametrize(
    ("robots", "strategy", "expected"),
    [
        ([canary(), OPEN], {}, None),
        ([canary("confirmed"), OPEN], {}, Enter("rolling")),
        ([canary("confirmed"), OPEN], {"auto_promote": False}, Enter("awaiting_promotion")),
        ([canary("confirmed"), replace(canary(), robot="c2"), OPEN], {}, None),
        ([canary("confirmed")], {}, Enter("settled")),
        ([canary("confirmed", at=START)], {"soak_time": 9.0}, Enter("soaking")),
        ([canary("confirmed"), robot("r2", "removed")], {}, Enter("settled")),
        ([canary("removed"), OPEN], {},
         Enter("reverting", "its canaries were removed from the fleet")),
        ([canary("removed", ""), OPEN], {},
         Enter("refused", "its canaries were removed from the fleet")),
        ([canary("reverted", reason="crashed"), OPEN], {},
         Enter("reverting", "the canary failed: `c1` (crashed)")),
        ([canary("reverted"), OPEN], {"auto_revert": False},
         Enter("failed", "the canary failed: `c1`")),
        ([canary("refused"), OPEN], {}, Enter("refused", "the canary refuses it: `c1`")),
        ([canary("failed"), OPEN], {},
         Enter("reverting", "the canary failed after its confirmation: `c1`")),
        ([canary("failed"), replace(canary("reverted"), robot="c2"), OPEN], {},
         Enter("reverting", "the canary failed after its confirmation: `c1`, `c2`")),
        ([canary("refused"), replace(canary("reverted"), robot="c2"), OPEN], {},
         Enter("reverting", "the canary failed: `c1`, `c2`")),
    ],
)  # fmt: skip
def test_the_canaries_decide_about_the_others(robots, strategy, expected):
    assert entered("canary", *robots, **strategy) == expected


def test_a_rollout_begins_with_its_canaries_and_waits_for_a_promotion():
    assert entered("planned", canary("", ""), OPEN) == Enter("canary")
    assert entered("planned", OPEN) == Enter("rolling")
    assert entered("awaiting_promotion", canary("confirmed"), OPEN) is None
    found = entered("awaiting_promotion", canary("failed"), OPEN)
    assert found == Enter("reverting", "the canary failed after its confirmation: `c1`")
    for phase in ("succeeded", "reverted", "aborted", "failed", "superseded", "refused"):
        assert entered(phase, DONE, BAD) is None


SOAK = {"soak_time": 60.0}
UNDONE = robot("r5", "back", "back", undone="undone by ann")


@pytest.mark.parametrize(
    ("phase", "robots", "strategy", "expected"),
    [
        ("rolling", [DONE], {}, Enter("settled")),
        ("rolling", [DONE], SOAK, Enter("soaking")),
        ("rolling", [DONE, OPEN], {}, None),
        ("rolling", [DONE, (OPEN, AWAY)], {}, Enter("settled", "for later: `r2`")),
        ("rolling", [(OPEN, AWAY)], SOAK, Enter("settled", "for later: `r2`")),
        # Of a canary none may fail, of the others some.
        ("rolling", [canary("confirmed"), DONE, BAD], {}, Enter("settled")),
        ("rolling", [canary("failed"), DONE], {},
         Enter("reverting", "the canary failed after its confirmation: `c1`")),
        ("rolling", [DONE, BAD], {"failure_threshold": 1}, Enter("settled")),
        ("rolling", [DONE, BAD], {"failure_threshold": 0},
         Enter("reverting", "1 failed, 0 accepted: `r3` (crashed)")),
        # Machines of one instance fail together.
        ("rolling", [DONE, *(replace(BAD, robot=f"r{n}", instance="cell1") for n in (4, 5))],
         {"failure_threshold": 1}, Enter("settled")),
        ("rolling", [BAD], {}, Enter("reverting", "no robot has it: `r3` (crashed)")),
        ("rolling", [BAD, robot("r4", "removed")], {},
         Enter("reverting", "no robot has it: `r3` (crashed)")),
        ("rolling", [BAD, OPEN], {}, None),
        ("rolling", [robot("r4", "removed")], {},
         Enter("reverting", "all its robots were removed from the fleet")),
        ("rolling", [UNDONE], {}, Enter("reverted", "undone on each instance")),
        ("rolling", [UNDONE, robot("r4", "removed")], {},
         Enter("reverted", "undone on each instance")),
        ("rolling", [UNDONE, DONE], {}, Enter("settled")),
        ("rolling", [replace(BAD, undone="undone by ann"), DONE], {"failure_threshold": 0},
         Enter("settled")),
        ("soaking", [replace(DONE, at=START - 59.9)], SOAK, None),
        ("soaking", [replace(DONE, at=START - 60)], SOAK, Enter("settled")),
        ("soaking", [replace(DONE, at=START - 60), OPEN], SOAK, None),
        ("soaking", [replace(DONE, at=START - 60), (OPEN, AWAY)], SOAK,
         Enter("settled", "for later: `r2`")),
        ("settled", [replace(DONE, at=START - 59.9)], SOAK, None),
        ("settled", [replace(DONE, at=START - 60)], SOAK, Enter("succeeded")),
        ("settled", [DONE], {}, Enter("succeeded")),
        ("settled", [DONE, BAD], {}, Enter("succeeded_partially", "failed: `r3` (crashed)")),
        ("settled", [DONE, OPEN], {"catch_up": 0.1}, None),
        ("settled", [DONE, OPEN], {"catch_up": 0.0},
         Enter("succeeded_partially", "not reached in time: `r2`")),
        ("settled", [DONE, OPEN, BAD], {"catch_up": 0.0},
         Enter("succeeded_partially", "not reached in time: `r2`; failed: `r3` (crashed)")),
        ("settled", [OPEN], {"catch_up": 0.0}, Enter("failed", "not reached in time: `r2`")),
        ("settled", [OPEN, BAD], {"catch_up": 0.0},
         Enter("failed", "no robot is left: not reached in time: `r2`; failed: `r3` (crashed)")),
        ("settled", [DONE, BAD], {"failure_threshold": 0},
         Enter("failed", "no robot is left: 1 failed, 0 accepted: `r3` (crashed)")),
    ],
)  # fmt: skip
def test_a_rollout_goes_on_by_the_verdicts_of_its_robots(phase, robots, strategy, expected):
    assert entered(phase, *robots, **strategy) == expected


LEFT = robot("r1", "confirmed")
BACK = robot("r1", "back", "back")
STUCK = robot("r2", "stuck", "back", reason="no disk")


@pytest.mark.parametrize(
    ("phase", "robots", "expected"),
    [
        ("reverting", [BACK], Enter("reverted", "why")),
        ("revert_incomplete", [BACK], Enter("reverted", "why")),
        ("reverting", [BACK, LEFT], None),
        ("reverting", [BACK, robot(order="stage")], None),
        ("reverting", [robot("r9", ""), (robot("r3", "confirmed"), Seen(removed=True))], None),
        ("reverting", [BACK, (robot("r3", "confirmed"), Seen(removed=True))],
         Enter("reverted", "why")),
        ("reverting", [BACK, robot("r3", "removed")], Enter("reverted", "why")),
        ("reverting", [BACK, robot("r3", "", "recall")], Enter("reverted", "why")),
        ("reverting", [BACK, robot("r3", "", "back")], None),
        ("reverting", [BACK, STUCK],
         Enter("revert_incomplete", "why; not back: `r2` (no disk)")),
        ("revert_incomplete", [BACK, STUCK], None),
        ("reverting", [BACK, (robot("r3", "confirmed"), AWAY)],
         Enter("revert_incomplete", "why; not reached: `r3`")),
        ("revert_incomplete", [BACK, (robot("r3", "confirmed"), AWAY)], None),
        ("reverting", [LEFT, (robot("r3", "confirmed"), AWAY)], None),
        ("reverting", [BACK, robot("r3", "confirmed", before="c" * 64)],
         Enter("revert_incomplete", f"why; not back: `r3` ({NO_WAY_BACK})")),
        ("reverting", [BACK, robot("r3", "reverted", before="c" * 64)], None),
    ],
)  # fmt: skip
def test_a_way_back_ends_when_every_robot_that_can_be_reached_is_back(phase, robots, expected):
    rejected = frozenset({"c" * 64})
    assert entered(phase, *robots, rejected=rejected, reason="why") == expected


@pytest.mark.parametrize(
    ("member", "look", "deferred"),
    [
        (OPEN, HERE, False),
        (OPEN, AWAY, True),
        (OPEN, Seen(away_for=DEFER_S - 0.1), False),
        (OPEN, Seen(reachable=True, owned=False), True),
        (replace(OPEN, lost=True), HERE, True),
        # It may be in the middle of its switch.
        (robot(), AWAY, False),
        (robot(committed=True), AWAY, True),
        (robot(order="back"), AWAY, True),
        (robot(verdict="lost"), AWAY, True),
        (replace(OPEN, reason=TOO_BUSY, at=START), HERE, True),
        (OPEN, seen("staged", waiting="busy", leased_for=100.0), True),
        (OPEN, seen("staged", waiting="busy", leased_for=99.9), False),
        (OPEN, seen("staged", leased_for=100.0), False),
    ],
)
def test_the_others_wait_for_a_robot_that_can_be_reached_or_may_be_switching(
    member, look, deferred
):
    wait = replace(STRATEGY, busy_max=100.0)
    assert is_deferred(view((member, look), strategy=wait), member) == deferred
    ignoring = replace(wait, busy="ignore")
    if look.leased_for:
        assert not is_deferred(view((member, look), strategy=ignoring), member)


def test_a_robot_that_was_too_busy_is_asked_again_after_an_hour():
    one = view((OPEN, HERE))
    late = replace(OPEN, reason=TOO_BUSY, at=START - BUSY_AGAIN_S)
    assert not was_too_busy(one, late)
    assert was_too_busy(one, replace(late, at=late.at + 0.1))
    assert not was_too_busy(one, replace(late, at=START, order="switch"))
    assert not was_too_busy(one, replace(late, at=START, reason="x"))


@pytest.mark.parametrize(
    ("phase", "age", "watched"),
    [
        ("canary", 1e6, True), ("rolling", 1e6, True), ("soaking", 1e6, True),
        ("awaiting_promotion", 1e6, True), ("settled", 59.9, True), ("settled", 60, False),
        ("succeeded", 0, False), ("reverting", 0, False), ("aborted", 0, False),
    ],
)  # fmt: skip
def test_failures_of_confirmed_robots_count_until_they_have_soaked(phase, age, watched):
    done = replace(DONE, at=START - age)
    one = view((done, HERE), phase=phase, strategy=replace(STRATEGY, soak_time=60.0))
    assert is_watched(one, done) == watched


def test_the_soak_time_counts_from_the_last_confirmation():
    pairs = [(replace(DONE, robot=f"r{n}", at=START + n), HERE) for n in range(3)]
    soak = replace(STRATEGY, soak_time=60.0)
    assert soaks_until(view(*pairs, strategy=soak)) == START + 62
    assert soaks_until(view(*pairs)) is None
    assert soaks_until(view((OPEN, HERE), strategy=soak)) is None
