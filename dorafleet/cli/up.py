"""`dorafleet up`: start the coordinator, enrol the machines, and wait until all are connected."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dorafleet
from dorad.commandline.detached import start_detached
from dorad.commandline.reports import print_warning
from dorad.commandline.tables import plain, print_object
from dorad.phrases import first_of
from dorad.terminal import visible
from dorafleet.cli.arguments import (
    accept_new_option,
    file_argument,
    file_port_option,
    json_option,
    only_option,
    parallel_option,
    select_machines,
    state_option,
)
from dorafleet.cli.coordinator import connect
from dorafleet.cli.enrol import Enroller, address_of, as_plain
from dorafleet.cli.robot import report_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.client import Client
    from dorafleet.coordinator.membermessages import FleetDifference
    from dorafleet.coordinator.messages import CoordinatorStatus
    from dorafleet.inventory.model import Cluster, Machine
    from dorafleet.robot.enrol import Enrolled
    from dorafleet.ssh.fanout import MachineOutcome

START_S = 30.0
"""Seconds within which a new coordinator must answer."""
LOG = "coordinator.log"
MAX_NAMED = 10
"""Robots that a warning names."""

EPILOG = """\b
Examples:
  dorafleet up cluster.yml
  dorafleet up cluster.yml --accept-new          trust the host keys of new machines
  dorafleet up cluster.yml --dry-run             what would be added, changed, removed
  dorafleet up cluster.yml --remove              also remove robots that are not in the file
  dorafleet up cluster.yml --json | jq '.machines[] | select(.connected | not)'
\b
If no coordinator runs, it is started in the background; it runs until `dorafleet down`, and its log
is `coordinator.log` in its folder. Then each machine is enrolled over SSH, where the package dorad
must be installed (`dorafleet install`). Machines that are enrolled and connected are not changed,
so the command can be repeated.
\b
The coordinator keeps the machines in its store; FILE is imported. Machines that FILE adds or
changes are added and changed while the fleet runs, and named. Robots that FILE does not have stay,
and are named; --remove removes them, unless they run something. --dry-run changes nothing.
Exit code 0: all machines are connected. 1: some are not, and they are named.
"""


@click.command(epilog=EPILOG)
@file_argument
@only_option
@json_option
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Where a new coordinator listens.  [default: everywhere, or loopback if FILE says so]",
)
@file_port_option
@click.option(
    "--remove", is_flag=True, help="Remove the robots of the fleet that FILE does not have."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be changed in the fleet.")
@state_option
@parallel_option
@accept_new_option
def up(
    file: Path,
    *,
    only: Sequence[str],
    as_json: bool,
    listen: str | None,
    port: int | None,
    remove: bool,
    dry_run: bool,
    state: Path,
    parallel: int,
    accept_new: bool,
) -> int:
    """Start the coordinator of the machines in FILE, enrol them, and wait until they report."""
    from dorafleet.cli.progress import Reporter, check_outcomes
    from dorafleet.inventory.load import load

    if remove and only:
        raise click.UsageError("--remove does not go with --only")
    cluster = load(file)
    machines = select_machines(cluster, only)
    chosen = port or cluster.coordinator.port
    if dry_run:
        with connect(state, chosen) as client:
            difference = _import(client, machines, remove=remove, dry_run=True)
        if as_json:
            print_object(plain(difference))
        return 0
    started = _ensure(file, cluster, listen, chosen, state)
    with connect(state, chosen) as client:
        status = _status(client)
        _check_tls(client)
        word = "started" if started else "is running already"
        click.echo(f"coordinator {word} (pid {status.pid}, port {chosen})", err=as_json)
        difference = _import(client, machines, remove=remove, quiet=as_json, whole=not only)
        with Reporter([each.id for each in machines], 0, as_json=as_json) as reporter:
            places = (address_of(cluster, port),)
            work = Enroller(client, places, reporter, accept_new=accept_new)
            outcomes = asyncio.run(work.run(machines, parallel))
    if as_json:
        print_object(as_object(status, difference, started=started, outcomes=outcomes))
    check_outcomes(outcomes, "are not connected")
    return 0


def as_object(
    status: CoordinatorStatus,
    difference: FleetDifference,
    *,
    started: bool,
    outcomes: Sequence[MachineOutcome[Enrolled]],
) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "coordinator": {"started": started, "pid": status.pid, "version": status.version},
        "fleet": plain(difference),
        "machines": [as_plain(outcome) for outcome in outcomes],
    }


def _import(
    client: Client,
    machines: Sequence[Machine],
    *,
    remove: bool,
    dry_run: bool = False,
    quiet: bool = False,
    whole: bool = True,
) -> FleetDifference:
    """Make machines those of the fleet, and print the difference.

    `remove` also removes all others; unless the machines are the `whole` fleet, others are not
    named.
    """
    from dorafleet.coordinator.membermessages import FLEET_IMPORT, FleetImport
    from dorafleet.coordinator.members import sent_of

    sent = [sent_of(machine) for machine in machines]
    removes: list[str] = []
    if remove:
        # Named one by one: what somebody else adds meanwhile stays.
        removes = client.call(FLEET_IMPORT, FleetImport(machines=sent, dry_run=True)).unlisted
    request = FleetImport(machines=sent, removes=removes, dry_run=dry_run)
    difference = client.call(FLEET_IMPORT, request)
    report_difference(difference, quiet=quiet, would=dry_run)
    if difference.unlisted and whole:
        named = first_of(map(visible, difference.unlisted), MAX_NAMED)
        print_warning(f"not in the file, and still in the fleet: {named} (--remove removes them)")
    return difference


def _ensure(file: Path, cluster: Cluster, listen: str | None, port: int, state: Path) -> bool:
    """Start a coordinator unless one runs; return True if it was started."""
    from dorad.control.errors import ControlError
    from dorad.control.target import is_here

    try:
        connect(state, port).close()
    except ControlError as error:
        if error.code != "unavailable":
            raise
    else:
        return False
    address = cluster.coordinator.addr
    if listen is None:
        if not is_here(str(address)):
            raise click.ClickException(
                f"{file} says that the coordinator is at {address}, which is not an address of "
                "this machine: run the command there, or give --listen"
            )
        everywhere = "0.0.0.0" if address.version == 4 else "::"  # noqa: S104 - with TLS always
        listen = str(address) if address.is_loopback else everywhere
    _start(file, listen, port, state)
    return True


def _start(file: Path, listen: str, port: int, state: Path) -> None:
    from dorad.control.errors import ControlError

    words = ["dorafleet.cli", "serve", str(file.absolute()), "--listen", listen, "--tls"]
    words += ["--port", str(port), "--state", str(state)]

    def answers() -> bool | None:
        try:
            connect(state, port).close()
        except ControlError:
            return None
        return True

    # In its Debian package dorafleet is not beside the modules of this interpreter.
    path = str(Path(dorafleet.__file__).parents[1])
    env = {"PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH"))))}
    start_detached("the coordinator", words, state / LOG, answers, timeout=START_S, env=env)


def _status(client: Client) -> CoordinatorStatus:
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import COORDINATOR_STATUS

    return client.call(COORDINATOR_STATUS, Nothing())


def _check_tls(client: Client) -> None:
    """Refuse a coordinator that runs without TLS."""
    from dorad.control.target import Tcp

    if isinstance(client.target, Tcp) and client.target.tls is None:
        raise click.ClickException(
            "the coordinator runs without TLS, which robots need: end it with `dorafleet down "
            "--keep-dataflows` and repeat this command, or start it with `dorafleet serve --tls`"
        )
