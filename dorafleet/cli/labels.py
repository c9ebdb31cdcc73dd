"""`dorafleet labels`: show or change the labels of a machine, even while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import print_object
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.complete import label_changes, robot_ids
from dorafleet.cli.coordinator import connect, list_robots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorafleet.coordinator.messages import Robot

LABELS_EPILOG = """\b
Examples:
  dorafleet labels arm1                      show them
  dorafleet labels arm1 zone=hall gpu=yes
  dorafleet labels arm1 gpu-                 remove one
\b
Labels decide where nodes with `deploy.labels` are placed. Running nodes stay on their machine;
pending nodes are placed at once.
"""


@click.command(epilog=LABELS_EPILOG)
@click.argument("machine", shell_complete=robot_ids)
@click.argument("changes", metavar="[KEY=VALUE | KEY-]...", nargs=-1, shell_complete=label_changes)
@json_option
@coordinator_options
def labels(machine: str, changes: Sequence[str], *, as_json: bool, state: Path, port: int) -> None:
    """Show the labels of MACHINE, or change some of them."""
    from dorafleet.coordinator.messages import ROBOT_LABEL, RobotLabel

    wanted = parse_changes(changes)
    with connect(state, port) as client:
        if wanted:
            robot = client.call(ROBOT_LABEL, RobotLabel(robot=machine, labels=wanted))
        else:
            robot = find_robot(list_robots(client), machine)
    if as_json:
        print_object(robot.labels)
        return
    for name, value in sorted(robot.labels.items()):
        click.echo(visible(f"{name}={value}"))


def parse_changes(words: Sequence[str]) -> dict[str, str | None]:
    """Return the labels to set, None for those to remove. Raises click.UsageError."""
    changes: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and not name.endswith("-"):
            raise click.UsageError(f"'{word}' is neither KEY=VALUE nor KEY-")
        if not equals:
            name = name[:-1]
        if not name:
            raise click.UsageError(f"'{word}' names no label")
        if name in changes:
            raise click.UsageError(f"the label '{name}' is given twice")
        changes[name] = value if equals else None
    return changes


def find_robot(robots: Sequence[Robot], id_: str) -> Robot:
    """Return one robot. Raises click.ClickException if there is no robot with this id."""
    from dorad.dataflow.nearest import did_you_mean

    for robot in robots:
        if robot.id == id_:
            return robot
    hint = did_you_mean(id_, [robot.id for robot in robots])
    raise click.ClickException(
        f"there is no robot `{visible(id_)}` ({hint or '`dorafleet status` lists all robots'})"
    )
