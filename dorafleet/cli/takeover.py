"""`dorafleet takeover`: let robots obey a coordinator that was restored or copied."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options
from dorafleet.cli.complete import robot_ids
from dorafleet.cli.coordinator import connect, list_robots
from dorafleet.cli.labels import find_robot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.control.client import Client

CONNECT_S = 90.0
"""Seconds until robots must have connected: one that was refused tries again within 60."""
POLL_S = 0.5

EPILOG = """\b
Examples:
  dorafleet takeover arm1
  dorafleet takeover --all      every robot that does not obey because of its term
\b
Each coordinator leads in a term with a number. A robot obeys the highest that it has met, so that a
former leader can change nothing. A coordinator whose store was restored from an old backup, or is
a copy of a disk, may have a lower one; then `dorafleet status` shows the robots as refused.
First make sure that no other coordinator leads these robots. Dataflows keep running.
Afterwards `dorafleet adopt` and `dorafleet resume` decide about dataflows that are newer than the
store.
Exit code 0: all of them are connected. 1: some are not.
"""


@click.command(epilog=EPILOG)
@click.argument("machine", nargs=-1, shell_complete=robot_ids)
@click.option("--all", "everyone", is_flag=True, help="All machines that wait for this.")
@coordinator_options
def takeover(machine: Sequence[str], *, everyone: bool, state: Path, port: int) -> None:
    """Let MACHINE obey this coordinator, whatever term it has obeyed before."""
    from dorad.control.errors import ControlError
    from dorafleet.coordinator.messages import ROBOT_TAKEOVER, RobotRef

    if bool(machine) == everyone:
        raise click.UsageError("give the names of machines, or --all")
    with connect(state, port) as client:
        robots = list_robots(client)
        names = [find_robot(robots, name).id for word in machine for name in word.split(",")]
        chosen = names or [robot.id for robot in robots if robot.outranked]
        if not chosen:
            click.echo("no machine waits for this", err=True)
        failed, waiting = [], []
        for name in chosen:
            try:
                client.call(ROBOT_TAKEOVER, RobotRef(robot=name))
                waiting.append(name)
            except ControlError as error:
                failed.append(name)
                click.echo(f"{visible(name)}: {visible(str(error))}", err=True)
        failed += _wait(client, waiting)
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(chosen)} machines failed: {', '.join(map(visible, failed))}"
        )


def _wait(client: Client, names: Sequence[str]) -> list[str]:
    """Wait until robots are connected, print each, and return those that are not."""
    if names:
        click.echo("waiting until they connect again, within a minute", err=True)
    left, end = list(names), time.monotonic() + CONNECT_S
    while left and time.monotonic() < end:
        robots = list_robots(client)
        for name in list(left):
            robot = find_robot(robots, name)
            if robot.state in ("connected", "conflict-paused"):
                click.echo(visible(f"{name}: {robot.state}"))
                left.remove(name)
        if left:
            time.sleep(POLL_S)
    for name in left:
        robot = find_robot(list_robots(client), name)
        click.echo(visible(f"{name}: {robot.state}: {robot.reason}"), err=True)
    return left
