"""Whatever a coordinator sends of rollouts is shown by commands, also times of no calendar."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from dorad.control.messages.releases import Evidence
from dorad.release.changes import Changes
from dorafleet.cli import rolloutshow
from dorafleet.rollout.messages import (
    Journal,
    PlannedRobot,
    ReleaseInfo,
    RolloutPlan,
    RolloutRobot,
    RolloutUpdate,
)
from tests.harness.drawing import messages


@settings(max_examples=settings().max_examples // 5)
@given(messages(RolloutUpdate), messages(Journal))
def test_any_rollout_and_any_journal_are_lines(update: RolloutUpdate, journal: Journal) -> None:
    for summary in update.rollouts:
        rolloutshow.summary_line(summary)
        rolloutshow.wave_line(summary)
        rolloutshow.opening_line(summary)
        rolloutshow.history_row(summary)
    for robot in rolloutshow.worst_first(update.robots):
        rolloutshow.robot_row(robot, 1_800_000_000.0)
    for entry in journal.entries:
        rolloutshow.journal_row(entry)


def robot(reason="", *checks, **more):
    evidence = [Evidence(check=check, ok=ok, text=text) for check, ok, text in checks]
    return RolloutRobot(
        1, "r1", 1, "failed", reachable=True, reason=reason, evidence=evidence, **more
    )


def test_a_robot_says_why_with_the_first_check_that_fails_and_each_thing_once():
    bad, good = ("node cam", False, "crashed"), ("rate", True, "30 Hz")
    assert robot("late").why == "late"
    assert robot("late", good).why == "late"
    assert robot("late", good, bad).why == "late; node cam: crashed"
    assert robot("", bad).why == "node cam: crashed"
    assert robot("node cam has crashed", bad).why == "node cam has crashed"
    # Both the check and its text must be in it.
    assert robot("node cam is bad", bad).why == "node cam is bad; node cam: crashed"
    other = ("node arm", False, "is slow")
    assert robot("node cam crashed", other, bad).why == "node cam crashed", "one of them is enough"
    assert robot("it crashed", bad).why == "it crashed; node cam: crashed"
    assert not robot().goes_back


def test_a_plan_whose_robots_refer_to_changes_that_are_not_in_it_is_refused():
    release = ReleaseInfo("a" * 64, "flow", 1, 0.0, 0.0, "ann", 1, 1, [], [])

    def plan(count, *changes):
        robots = [PlannedRobot(f"r{n}", 1, changes=each) for n, each in enumerate(changes)]
        return RolloutPlan(1, release, robots, [Changes()] * count)

    assert plan(2, 0, 1, None)
    assert plan(0, None)
    for count, changes in ((1, (1,)), (2, (0, 2)), (1, (-1,)), (0, (0,))):
        with pytest.raises(ValueError, match="changes that are not in it"):
            plan(count, *changes)
