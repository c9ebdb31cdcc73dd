"""`dorafleet robot`: add robots to the fleet and remove them, while the coordinator runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dorad.commandline.groups import Group
from dorad.commandline.reports import print_warning
from dorad.commandline.tables import plain, print_object
from dorad.terminal import visible
from dorafleet.cli.arguments import accept_new_option, coordinator_options, json_option, parse_pairs
from dorafleet.cli.complete import label_pairs, robot_ids
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.coordinator.membermessages import FleetDifference, FleetMachine

GROUP_EPILOG = """\b
Examples:
  dorafleet robot add arm3 10.0.0.13 --label zone=hall
  dorafleet robot remove arm3
\b
`dorafleet up FILE` does the same for a whole cluster file; `dorafleet robots` lists robots, and
`dorafleet labels` changes labels.
"""

ADD_EPILOG = """\b
Examples:
  dorafleet robot add arm3 10.0.0.13
  dorafleet robot add arm3 admin@arm3.lan --ssh-port 2222 --label zone=hall --accept-new
  dorafleet robot add arm3 10.0.0.14 --change      it has another address now
  dorafleet robot add arm3 arm3 --token            SSH cannot reach it
\b
The keys are those of a machine in a cluster file. The robot is enrolled over SSH, as by `dorafleet
enrol`, where the package dorad must be installed. From then on it is placed, counted and watched as
all others; the coordinator is not restarted. With --token nothing goes over SSH: the command prints
what to run on the robot. If the enrolment fails, the robot is in the fleet; run the command again.
Exit code 0: the robot is in the fleet, and connected or waiting for its token.
"""

REMOVE_EPILOG = """\b
Examples:
  dorafleet robot remove arm3
  dorafleet robot remove arm3 --lost    it is broken: what it shall run moves or ends
\b
The robot's certificate is revoked, and its labels, secrets, alerts and last state are forgotten.
A robot that shall run something is refused. With --lost its nodes of started dataflows are placed
on other machines that take them, rollouts go on without it, and nothing is stopped on the robot:
if it comes back, it runs what it ran until `dorafleet uninstall` or `dora stop` there.
\b
A robot that is in the coordinator's cluster file is shown by `dorafleet drift` until it is removed
there, too; `dorafleet up` with that file would add it again.
"""


@click.group(cls=Group, epilog=GROUP_EPILOG)
def robot() -> None:
    """Add robots to the fleet, or remove them, while it runs."""


@robot.command(epilog=ADD_EPILOG)
@click.argument("name")
@click.argument("host", metavar="[USER@]HOST")
@click.option(
    "--ssh-port", type=click.IntRange(1, 65535), metavar="PORT", help="Port of sshd.  [as for ssh]"
)
@click.option(
    "-l",
    "--label",
    "labels",
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=label_pairs,
    help="A label; may be repeated.",
)
@click.option("--zenoh-addr", metavar="ADDRESS", help="Where links reach it.  [HOST]")
@click.option(
    "--zenoh-port", type=click.IntRange(1, 65535), metavar="PORT", help="First port of its links."
)
@click.option("--change", is_flag=True, help="Give these keys to a robot that is in the fleet.")
@click.option("--token", "by_token", is_flag=True, help="Print a command and a token, use no SSH.")
@click.option("--no-enrol", is_flag=True, help="Only add it; `dorafleet enrol` follows.")
@json_option
@coordinator_options
@accept_new_option
def add(
    name: str,
    host: str,
    *,
    ssh_port: int | None,
    labels: Sequence[str],
    zenoh_addr: str | None,
    zenoh_port: int | None,
    change: bool,
    by_token: bool,
    no_enrol: bool,
    as_json: bool,
    state: Path,
    port: int,
    accept_new: bool,
) -> int:
    """Add the robot NAME to the fleet, and enrol it."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.membermessages import ROBOT_ADD, FleetMachine, RobotAdd
    from dorafleet.coordinator.messages import COORDINATOR_STATUS

    if by_token and (as_json or no_enrol):
        raise click.UsageError("--token does not go with --json and --no-enrol")
    user, _, address = host.rpartition("@")
    machine = FleetMachine(
        id=name,
        host=address,
        user=user or None,
        port=ssh_port,
        labels=parse_pairs("--label", labels),
        zenoh_addr=zenoh_addr,
        zenoh_port=zenoh_port,
    )
    with connect(state, port) as client:
        difference = client.call(ROBOT_ADD, RobotAdd(machine=machine, change=change))
        report_difference(difference, quiet=as_json)
        where = client.call(COORDINATOR_STATUS, Nothing()).address
        if no_enrol or not where:
            if not no_enrol:
                print_warning("robots cannot connect: the coordinator listens without TLS")
            if as_json:
                print_object(plain(difference))
            return 0 if no_enrol else 1
        return _enrol(client, machine, where, by_token, accept_new, as_json, difference)


def _enrol(
    client: Client,
    machine: FleetMachine,
    where: str,
    by_token: bool,
    accept_new: bool,
    as_json: bool,
    difference: FleetDifference,
) -> int:
    """Enrol a robot that was added; return the exit code."""
    from dorafleet.cli.enrol import Enroller, as_plain, print_token
    from dorafleet.cli.progress import Reporter, check_outcomes
    from dorafleet.coordinator.members import machine_of

    if by_token:
        print_token(client, machine.id, (where,))
        return 0
    with Reporter([machine.id], 0, as_json=as_json) as reporter:
        work = Enroller(client, (where,), reporter, accept_new=accept_new)
        outcomes = asyncio.run(work.run((machine_of(machine),), 1))
    if as_json:
        print_object({**plain(difference), "machine": as_plain(outcomes[0])})
    check_outcomes(outcomes, "is not connected")
    return 0


@robot.command(epilog=REMOVE_EPILOG)
@click.argument("name", shell_complete=robot_ids)
@click.option("--lost", is_flag=True, help="Also if it shall run something.")
@json_option
@coordinator_options
def remove(name: str, *, lost: bool, as_json: bool, state: Path, port: int) -> None:
    """Remove the robot NAME from the fleet."""
    from dorafleet.coordinator.membermessages import ROBOT_REMOVE, RobotRemove

    with connect(state, port) as client:
        difference = client.call(ROBOT_REMOVE, RobotRemove(robot=name, lost=lost))
    report_difference(difference, quiet=as_json)
    if as_json:
        print_object(plain(difference))


def report_difference(
    difference: FleetDifference, *, quiet: bool = False, would: bool = False
) -> None:
    """Print what was changed, a line for each robot, or `would` be; `quiet` prints to stderr."""
    verb = "would be " if would else ""
    for id_ in difference.added:
        click.echo(visible(f"{id_}: {verb}added"), err=quiet)
    for id_, lines in difference.changed.items():
        click.echo(visible(f"{id_}: {verb}changed, {'; '.join(lines)}"), err=quiet)
    for id_ in difference.removed:
        click.echo(visible(f"{id_}: {verb}removed"), err=quiet)
