"""`dorafleet rollout`: the group of its commands."""

from __future__ import annotations

from typing import ClassVar

import click

from dorad.commandline.groups import CommandEntry, LazyGroup

EPILOG = """\b
Examples:
  dorafleet plan arm                                show what would change on each robot
  dorafleet rollout start arm --label zone=hall     start it, send the files, follow it
  dorafleet rollout status
  dorafleet rollout undo 12
\b
ROLLOUT is a number; the default is the newest rollout, with NAME the newest of this deployment.
`undo` and `status` take INSTANCE/NAME, too. docs/rollouts.md has all keys, and a table
of failures and their effects.
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
    "resume": CommandEntry("dorafleet.cli.rolloutstatus:resume", "Continue after a pause."),
    "promote": CommandEntry("dorafleet.cli.rolloutstatus:promote", "Continue after the canaries."),
    "abort": CommandEntry(
        "dorafleet.cli.rolloutstatus:abort", "End a rollout before any further switch."
    ),
    "undo": CommandEntry(
        "dorafleet.cli.rolloutstart:undo", "Return all its robots to their previous releases."
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
    """Switch robots to a release, step by step, and back."""
