"""`dorafleet status`: show the state of dorad on every machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.tables import plain, print_object, print_table
from dorad.terminal import visible
from dorafleet.cli.arguments import (
    accept_new_option,
    file_argument,
    only_option,
    parallel_option,
    select_machines,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorafleet.inventory.model import Machine
    from dorafleet.robot.state import State
    from dorafleet.ssh.fanout import Outcome

COLUMNS = ("Machine", "Host", "Version", "Service", "Dataflows", "Problem")

MAX_NAMES = 500
"""Maximum length of a machine's list of dataflows in the table; `--json` has all of it."""

EPILOG = """\b
Examples:
  dorafleet status cluster.yml
  dorafleet status cluster.yml --only arm1,arm2
  dorafleet status cluster.yml --json | jq '.[] | select(.error) | .id'
\b
The ssh user must be root or in the group `dorad` on the machine.
Exit code 0: the service is active and answers on every machine. 1: on some it does not.
"""


@click.command(epilog=EPILOG)
@file_argument
@only_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@parallel_option
@accept_new_option
def status(
    file: Path, *, only: Sequence[str], as_json: bool, parallel: int, accept_new: bool
) -> int:
    """Show the version, the service and the running dataflows of every machine in FILE."""
    from dorafleet.inventory.load import load

    machines = select_machines(load(file), only)
    outcomes = asyncio.run(_query(machines, parallel, accept_new=accept_new))
    if as_json:
        print_object([as_plain(outcome) for outcome in outcomes])
    else:
        print_table(COLUMNS, [[*map(visible, as_row(outcome))] for outcome in outcomes])
    healthy = all(outcome.result is not None and outcome.result.healthy for outcome in outcomes)
    return 0 if healthy else 1


async def _query(
    machines: Sequence[Machine], parallel: int, *, accept_new: bool
) -> list[Outcome[State]]:
    from dorafleet.robot.state import read_state
    from dorafleet.ssh.connection import connect
    from dorafleet.ssh.fanout import run_on_each

    async def query(machine: Machine) -> State:
        async with connect(machine, accept_new=accept_new) as robot:
            return await read_state(robot)

    return await run_on_each(machines, query, parallel=parallel)


def as_row(outcome: Outcome[State]) -> tuple[str, ...]:
    """Return one row of the table."""
    machine, state = outcome.machine, outcome.result
    if state is None:
        return (machine.id, machine.host, "-", "-", "-", str(outcome.error))
    running = ", ".join(each.name or each.uuid for each in state.dataflows)
    if len(running) > MAX_NAMES:
        running = f"{running[:MAX_NAMES]}… ({len(state.dataflows)} in all)"
    return (
        machine.id,
        machine.host,
        state.package or state.daemon.version or "-",
        state.daemon.service,
        running or ("none" if state.daemon.answers else "-"),
        state.daemon.problem or "",
    )


def as_plain(outcome: Outcome[State]) -> dict[str, Any]:
    """Return a machine's object for `--json`; all machines have the same keys."""
    machine, state, error = outcome.machine, outcome.result, outcome.error
    result: dict[str, Any] = {
        "id": machine.id,
        "host": machine.host,
        "labels": dict(machine.labels),
        "reachable": error is None or error.code.is_after_login,
        "version": None,
        "package": None,
        "service": None,
        "answers": False,
        "dataflows": [],
        "error": None,
    }
    if error is not None:
        result["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
    if state is not None:
        result["version"] = state.daemon.version
        result["package"] = state.package
        result["service"] = state.daemon.service
        result["answers"] = state.daemon.answers
        result["dataflows"] = plain(state.dataflows)
        if not state.healthy:
            message = state.daemon.problem or f"the service is {state.daemon.service}"
            result["error"] = {"code": "not_well", "message": message, "hint": None}
    return result
