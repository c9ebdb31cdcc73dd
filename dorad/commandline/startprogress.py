"""Wait for the start of a dataflow, and show what that waits for on several machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.commandline.reports import print_changes, print_note, report_end
from dorad.control.errors import ControlError
from dorad.phrases import first_of
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.client import Client
    from dorad.control.messages import DataflowState, Restarted

LOOK_S = 3.0
"""Seconds between two looks. A start that takes no longer shows nothing."""

MAX_LISTED = 5
"""Machines that a line names."""


class StartProgress:
    """Prints a line whenever a start waits for something else than at the last look."""

    def __init__(self) -> None:
        self._shown: list[str] = []

    def show(self, error: ControlError) -> None:
        """Print what a start waits for that has not come to its end in time.

        Raises:
            ControlError: `error`, if it is another one.
        """
        if error.code != "deadline":
            raise error
        if error.problems and error.problems != self._shown:
            print_note(f"the start waits for {first_of(error.problems, MAX_LISTED, '; ')}")
        self._shown = error.problems


def wait_for_start(client: Client, uuid: str) -> DataflowState:
    """Wait until all nodes have started or the dataflow has ended; show what it waits for.

    Raises:
        ControlError: the dataflow was forgotten, or the connection was lost.
    """
    progress = StartProgress()
    while True:
        try:
            return client.wait(uuid, until="spawned", timeout=LOOK_S)
        except ControlError as error:
            progress.show(error)


def report_start(client: Client, uuid: str, *, quiet: bool = False) -> int:
    """Wait as `wait_for_start` does, and return the exit code; print a success unless `quiet`."""
    if not report_end(wait_for_start(client, uuid)):
        return 1
    if not quiet:
        click.echo(visible(f"dataflow started: {uuid}"))
    return 0


async def show_start(client: AsyncClient, uuid: str) -> None:
    """Show what a start waits for until it is over.

    Raises:
        ControlError: as `wait_for_start`.
    """
    progress = StartProgress()
    while True:
        try:
            await client.wait(uuid, until="spawned", timeout=LOOK_S)
        except ControlError as error:
            progress.show(error)
        else:
            return


def report_restart(client: Client, restarted: Restarted) -> int:
    """Wait until a new run has started, as after a start, and return the exit code.

    Raises:
        ControlError: the run was forgotten, or the connection was lost.
    """
    if not report_end(wait_for_start(client, restarted.new)):
        return 1
    click.echo(visible(f"dataflow restarted: {restarted.old} -> {restarted.new}"))
    print_changes(restarted.changes)
    return 0
