"""`dorafleet doctor`: check the fleet, and suggest fixes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import age, print_object
from dorad.terminal import visible
from dorafleet.cli.arguments import (
    accept_new_option,
    coordinator_options,
    only_option,
    optional_file_argument,
    parallel_option,
    select_machines,
)
from dorafleet.cli.coordinator import connect, port_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.cli.checks import Check
    from dorafleet.robot.state import Units
    from dorafleet.ssh.fanout import MachineOutcome

COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}

EPILOG = """\b
Examples:
  dorafleet doctor
  dorafleet doctor cluster.yml        also ask the machines over SSH whether their units are enabled
  dorafleet doctor --json | jq '.checks[] | select(.level != "PASS")'
\b
It checks connections, clocks, versions, certificates, dataflows, secrets and links of robots,
whether alerts reach the webhook and the mail server, and lists pending nodes. Exit code 1 if a
check fails; warnings do not count as failures.
"""


@click.command(epilog=EPILOG)
@optional_file_argument
@only_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@parallel_option
@accept_new_option
@coordinator_options
def doctor(
    file: Path | None,
    *,
    only: Sequence[str],
    as_json: bool,
    parallel: int,
    accept_new: bool,
    state: Path,
    port: int,
) -> int:
    """Check the fleet, and suggest how to fix problems."""
    from dorad.control.errors import ControlError
    from dorafleet.cli.checks import Check
    from dorafleet.inventory.load import load

    if only and file is None:
        raise click.UsageError("--only needs FILE")
    cluster = None if file is None else load(file)
    checks: list[Check] = []
    try:
        with connect(state, port_of(cluster, port)) as client:
            checks += check_fleet(client, time.time())
    except ControlError as error:
        checks.append(Check("FAIL", "coordinator", error.message, error.hint))
    if cluster is not None:
        from dorafleet.robot.state import read_units
        from dorafleet.ssh.fanout import read_from_each

        machines = select_machines(cluster, only)
        work = read_from_each(machines, read_units, parallel=parallel, accept_new=accept_new)
        for outcome in asyncio.run(work):
            checks += check_machine(outcome)
    failed = any(check.level == "FAIL" for check in checks)
    if as_json:
        print_object({"ok": not failed, "checks": [check._asdict() for check in checks]})
    else:
        _show(checks, time.time())
    return 1 if failed else 0


def check_fleet(client: Client, now: float) -> Iterator[Check]:
    """Check everything that the coordinator knows."""
    from dorad.control.errors import ControlError
    from dorad.control.messages import NODE_LIST, Nothing, Ref
    from dorafleet.cli import checks
    from dorafleet.cli.coordinator import list_receivers, list_robots
    from dorafleet.coordinator.accessmessages import ACCESS_LIST, AUTHORITY_STATUS
    from dorafleet.coordinator.messages import COORDINATOR_STATUS

    status = client.call(COORDINATOR_STATUS, Nothing())
    where = f"{status.version} at {client.server.address}, epoch {status.epoch}"
    yield checks.Check("PASS", "coordinator", where)
    yield from checks.check_questions(status.questions)
    robots = list_robots(client)
    yield from checks.check_robots(robots)
    yield from checks.check_versions(robots, status.version)
    try:
        authority = client.call(AUTHORITY_STATUS, Nothing())
    except ControlError as error:
        if error.code not in ("unknown-method", "unsupported"):
            raise  # those are of a coordinator of an earlier version
    else:
        yield from checks.check_authority(authority, len(robots), now)
    nodes = client.call(NODE_LIST, Ref())
    yield from checks.check_nodes(nodes.nodes)
    yield from checks.check_receivers(list_receivers(client), now)
    try:
        grants = client.call(ACCESS_LIST, Nothing()).grants
    except ControlError as error:
        hint = "an admin may see them"
        yield checks.Check("WARN", "certificates", f"not checked: {error.message}", hint)
    else:
        yield from checks.check_grants(grants, robots, now)


def check_machine(outcome: MachineOutcome[Units]) -> Iterator[Check]:
    """Check the units of one machine, or whether it can be reached over SSH."""
    from dorafleet.cli.checks import Check

    name = outcome.machine.id
    if outcome.result is None:
        yield Check("WARN", name, f"over SSH: {outcome.error}")
        return
    for unit, unit_state in outcome.result.items():
        if unit_state.enabled != "enabled":
            hint = f"`sudo systemctl enable --now {unit}` there"
            yield Check("FAIL", name, f"{unit} is {unit_state.enabled}, so a reboot ends it", hint)
        elif unit_state.active != "active":
            hint = f"see `journalctl -u {unit}` there"
            yield Check("FAIL", name, f"{unit} is {unit_state.active}", hint)


def _show(checks: Sequence[Check], now: float) -> None:
    for check in checks:
        level = click.style(check.level, fg=COLOURS[check.level], bold=True)
        since = "" if check.since is None else f" (for {age(max(now - check.since, 0.0))})"
        click.echo(f"  {level}  {visible(check.name)}: {visible(check.text)}{since}")
        if check.hint:
            click.echo(f"        {visible(check.hint)}")
