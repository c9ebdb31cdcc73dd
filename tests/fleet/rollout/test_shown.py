"""Whatever a coordinator sends of rollouts is shown by commands, also times of no calendar."""

from __future__ import annotations

from hypothesis import given, settings

from dorafleet.cli import rolloutshow
from dorafleet.rollout.messages import Journal, RolloutUpdate
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
