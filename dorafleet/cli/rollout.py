"""`dorafleet rollout`: the group of its commands."""

from __future__ import annotations

from typing import ClassVar

import click

from dorad.cli.groups import CommandEntry, LazyGroup

EPILOG = """\b
Examples:
  dorafleet plan arm                                what would change, robot by robot
  dorafleet rollout start arm --label zone=hall     then follow it, and send the files
  dorafleet rollout status
  dorafleet rollout undo 12
\b
ROLLOUT is a number; without it the newest is meant. docs/rollouts.md has all keys, and a table of
what happens if something goes wrong during a rollout.
"""

COMMANDS: dict[str, CommandEntry] = {
    "start": CommandEntry("dorafleet.cli.rolloutstart:start", "Start a rollout and follow it."),
    "status": CommandEntry(
        "dorafleet.cli.rolloutstatus:status", "Show a rollout and each of its robots."
    ),
    "follow": CommandEntry(
        "dorafleet.cli.rolloutstart:follow", "Follow a rollout, and send the files."
    ),
    "pause": CommandEntry("dorafleet.cli.rolloutstatus:pause", "Give robots no further orders."),
    "resume": CommandEntry("dorafleet.cli.rolloutstatus:resume", "Go on after a pause."),
    "promote": CommandEntry("dorafleet.cli.rolloutstatus:promote", "Go on after the canaries."),
    "abort": CommandEntry(
        "dorafleet.cli.rolloutstatus:abort", "End a rollout before any further switch."
    ),
    "undo": CommandEntry(
        "dorafleet.cli.rolloutstart:undo", "Bring all its robots back to what they had before."
    ),
    "history": CommandEntry(
        "dorafleet.cli.rolloutstatus:history", "List all rollouts, or each step of one."
    ),
}


class Rollout(LazyGroup):
    """All commands of `dorafleet rollout`."""

    table: ClassVar[dict[str, CommandEntry]] = COMMANDS


@click.group(cls=Rollout, epilog=EPILOG)
def rollout() -> None:
    """Bring a release to robots, step by step, and back."""
