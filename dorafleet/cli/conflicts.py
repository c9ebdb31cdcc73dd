"""`dorafleet adopt` and `resume`: decide about robots whose state is newer than the store's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dorad.commandline.tables import print_object
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options, json_option, parse_pairs
from dorafleet.cli.complete import labels_option, robot_ids
from dorafleet.cli.coordinator import connect, list_robots
from dorafleet.cli.labels import find_robot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorad.control.messages import CallMethod
    from dorafleet.coordinator.messages import Robot, RobotRef

_EXIT_CODES = """\
--label selects those of the machines with this label that wait for a decision.
Exit code 0: none of the machines waits any longer. 1: some do, or could not be asked.
"""

ADOPT_EPILOG = f"""\b
Examples:
  dorafleet adopt arm1
  dorafleet adopt arm1 arm2
  dorafleet adopt --label zone=hall
\b
After the coordinator's store was restored from a backup, a robot may run a newer state than the
store has. The coordinator then leaves it alone. `dorafleet adopt` copies the robot's state into the
store. `dorafleet resume` makes the robot run the state in the store.
{_EXIT_CODES}"""

RESUME_EPILOG = f"""\b
Examples:
  dorafleet resume arm1
  dorafleet resume arm1 arm2
  dorafleet resume --label zone=hall
\b
After the coordinator's store was restored from a backup, a robot may run a newer state than the
store has. The coordinator then leaves it alone. `dorafleet resume` makes the robot run the state in
the store. `dorafleet adopt` copies the robot's state into the store.
{_EXIT_CODES}"""

machines_argument = click.argument("machine", nargs=-1, shell_complete=robot_ids)


@click.command(epilog=ADOPT_EPILOG)
@machines_argument
@labels_option
@json_option
@coordinator_options
def adopt(**given: Any) -> None:
    """Make what MACHINE runs the state of the store, after a restore."""
    from dorafleet.coordinator.messages import ROBOT_ADOPT

    _decide(ROBOT_ADOPT, **given)


@click.command(epilog=RESUME_EPILOG)
@machines_argument
@labels_option
@json_option
@coordinator_options
def resume(**given: Any) -> None:
    """After a restore, make MACHINE run the state of the store."""
    from dorafleet.coordinator.messages import ROBOT_RESUME

    _decide(ROBOT_RESUME, **given)


def _decide(
    method: CallMethod[RobotRef, Robot],
    machine: Sequence[str],
    labels: Sequence[str],
    *,
    as_json: bool,
    state: Path,
    port: int,
) -> None:
    names = [name for words in machine for name in words.split(",") if name]
    wanted = parse_pairs("--label", labels)
    if not names and not wanted:
        raise click.UsageError("give the names of machines, or --label")
    rows = []
    with connect(state, port) as client:
        for robot in select(list_robots(client), names, wanted):
            rows.append(decide(client, method, robot))
            if not as_json:
                _print(rows[-1])
    if as_json:
        print_object(rows)
    elif not rows:
        click.echo("none of these machines waits for a decision", err=True)
    if failed := [row["id"] for row in rows if row["error"] is not None]:
        raise click.ClickException(
            f"{len(failed)} of {len(rows)} machines failed: {', '.join(map(visible, failed))}"
        )


def select(robots: Sequence[Robot], names: Sequence[str], labels: Mapping[str, str]) -> list[Robot]:
    """Return the named robots, or those in conflict, in the coordinator's order.

    Of both only those that have all `labels`.

    Raises:
        click.ClickException: there is no robot with one of the names, or none has the labels.
    """
    chosen = {find_robot(robots, name).id for name in names}
    having = [robot for robot in robots if labels.items() <= robot.labels.items()]
    if not having:
        shown = ", ".join(f"{name}={value}" for name, value in labels.items())
        raise click.ClickException(
            f"no machine has {visible(shown)} (`dorafleet labels MACHINE` shows its labels)"
        )
    return [robot for robot in having if (robot.id in chosen if names else robot.conflicts)]


def decide(client: Client, method: CallMethod[RobotRef, Robot], robot: Robot) -> dict[str, Any]:
    """Decide about one robot, and return its object for `--json`.

    Raises:
        ControlError: the coordinator cannot be asked any longer.
    """
    from dorad.control.errors import ControlError
    from dorafleet.coordinator.messages import RobotRef

    try:
        robot = client.call(method, RobotRef(robot=robot.id))
    except ControlError as error:
        now = find_robot(list_robots(client), robot.id)
        # The decision about another robot of the same dataflow may have ended this conflict, too.
        if now.conflicts or not robot.conflicts:
            return _row(now, str(error))
        robot = now
    waits = "; ".join(f"{name}: {why}" for name, why in sorted(robot.conflicts.items()))
    return _row(robot, waits or None)


def _row(robot: Robot, error: str | None) -> dict[str, Any]:
    return {"id": robot.id, "state": robot.state, "reason": robot.reason, "error": error}


def _print(row: Mapping[str, Any]) -> None:
    if row["error"] is not None:
        click.echo(visible(f"{row['id']}: {row['error']}"), err=True)
    else:
        reason = f", {row['reason']}" if row["reason"] else ""
        click.echo(visible(f"{row['id']}: {row['state']}{reason}"))
