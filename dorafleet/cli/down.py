"""`dorafleet down`: stop all dataflows of the fleet, then the coordinator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import print_object
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorad.control.errors import ControlError
    from dorad.control.messages import DataflowState
    from dorad.control.target import Tcp, UnixSocket


EXIT_S = 30.0
"""Seconds within which the coordinator must end."""
POLL_S = 0.05

EPILOG = """\b
Examples:
  dorafleet down
  dorafleet down --force             kill the nodes at once
  dorafleet down --keep-dataflows    end the coordinator alone; dataflows keep running
  dorafleet down --json | jq '.dataflows[] | select(.problems != [])'
\b
Dataflows from releases keep running: `dorafleet rollout` changes what robots run.
If a dataflow cannot be stopped, for example on an unreachable machine, the coordinator keeps
running, unless --force is given. Exit code 1 if a dataflow failed or was not stopped.
"""


@click.command(epilog=EPILOG)
@click.option("-f", "--force", is_flag=True, help="Kill the nodes at once instead of asking them.")
@click.option("--keep-dataflows", is_flag=True, help="Stop no dataflow.")
@json_option
@coordinator_options
def down(*, force: bool, keep_dataflows: bool, as_json: bool, state: Path, port: int) -> int:
    """Stop all dataflows on all machines, then the coordinator."""
    from dorad.control.errors import ControlError
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import COORDINATOR_SHUTDOWN

    if force and keep_dataflows:
        raise click.UsageError("--force does not go with --keep-dataflows")
    with connect(state, port) as client:
        ends = {} if keep_dataflows else _stop_all(client, force=force)
        problems = {name: _problems(end) for name, end in ends.items()}
        if not as_json:
            _report(problems)
        ended = force or not any(isinstance(end, ControlError) for end in ends.values())
        if ended:
            client.call(COORDINATOR_SHUTDOWN, Nothing())
        where, target = client.server.name, client.target
    if ended:
        _wait_for_end(target, where)
    if as_json:
        flows = [{"name": name, "problems": listed} for name, listed in problems.items()]
        print_object({"ended": ended, "dataflows": flows})
    if not ended:
        raise click.ClickException(
            "the coordinator keeps running, because it could not stop every dataflow "
            "(`--force` ends it)"
        )
    if not as_json:
        click.echo(f"{where} has ended")
    return 1 if any(problems.values()) else 0


def _stop_all(client: Client, *, force: bool) -> dict[str, DataflowState | ControlError]:
    """Stop every dataflow; return how each ended, or why it was not stopped."""
    from dorad.control.errors import ControlError

    ends: dict[str, DataflowState | ControlError] = {}
    for info in client.list():
        if info.active:
            try:
                ends[info.name or info.uuid] = client.stop(info.uuid, force=force)
            except ControlError as error:
                ends[info.name or info.uuid] = error
    return ends


def _problems(end: DataflowState | ControlError) -> list[str]:
    """Return why a dataflow was not stopped, or failed; nothing if it was stopped well."""
    if isinstance(end, Exception):
        return [str(end)]
    return [failure.headline for failure in end.failures]


def _report(problems: Mapping[str, Sequence[str]]) -> None:
    """Print how each dataflow ended."""
    for name, listed in problems.items():
        for problem in listed:
            mark = click.style("✗", fg="red")
            click.echo(f"{mark} {visible(name)}: {visible(problem)}", err=True)
        if not listed:
            click.echo(f"{click.style('✓', fg='green')} {visible(name)}: stopped")


def _wait_for_end(target: UnixSocket | Tcp, where: str) -> None:
    """Wait until the coordinator no longer answers."""
    from dorad.control.client import Client
    from dorad.control.errors import ControlError

    deadline = time.monotonic() + EXIT_S
    while time.monotonic() < deadline:
        try:
            Client(target).close()
        except ControlError as error:
            if error.code == "unavailable":
                return
        time.sleep(POLL_S)
    raise click.ClickException(f"{where} still answers after {EXIT_S:g} s")
