"""`dorafleet status`: show the state of dorad on every machine."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from dorad.commandline.tables import (
    colours,
    plain,
    print_lines,
    print_object,
    print_table,
    screen_lines,
    table_lines,
)
from dorad.terminal import visible
from dorafleet.cli.arguments import (
    accept_new_option,
    coordinator_options,
    json_option,
    only_option,
    optional_file_argument,
    parallel_option,
    select_machines,
)
from dorafleet.cli.coordinator import connect, list_robots, port_of
from dorafleet.cli.labels import find_robot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.coordinator.deploymentmessages import DeploymentInfo
    from dorafleet.coordinator.messages import Robot
    from dorafleet.robot.state import State
    from dorafleet.ssh.fanout import MachineOutcome

COLUMNS = ("Machine", "Host", "Version", "Service", "Dataflows", "Problem")

MAX_NAMES = 500
"""Maximum length of a machine's list of dataflows in the table; `--json` has all of it."""

WATCH_S = 1.0
"""Seconds between two tables of `--watch`."""

EPILOG = """\b
Examples:
  dorafleet status                          of all machines, from the coordinator
  dorafleet status --all                    every machine, also of a fleet of thousands
  dorafleet status --watch
  dorafleet status --json | jq '.[] | select(.well | not) | .id'
  dorafleet status --json | jq -r '.[] | select(.deployments[].instance == "cell1/pick") | .id'
  dorafleet status cluster.yml --only arm1,arm2
  dorafleet status cluster.yml --ssh        ask the machines themselves
\b
Without a coordinator the machines of FILE are asked over SSH; the ssh user must be root or in the
group `dorad` there. Numbers behind dataflows are generations: they grow with every change.
Behind dataflows from releases is the id of the release that runs.
Of more than 50 machines only those with problems are listed, after a summary of all.
Exit code 0: every machine is connected, and what is wrong with it is at most a warning.
1: something is a failure, or an operator has to decide something; `dorafleet doctor` says what to
do. Both, `drift`, alerts and the console use the same words.
"""


@click.command(epilog=EPILOG)
@optional_file_argument
@only_option
@json_option
@click.option("--all", "every", is_flag=True, help="List every machine of a large fleet.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.option("--ssh", "over_ssh", is_flag=True, help="Ask the machines of FILE over SSH.")
@parallel_option
@accept_new_option
@coordinator_options
def status(
    file: Path | None,
    *,
    only: Sequence[str],
    as_json: bool,
    every: bool,
    watch: bool,
    over_ssh: bool,
    parallel: int,
    accept_new: bool,
    state: Path,
    port: int,
) -> int:
    """Show the state of every machine: its version, its dataflows, its problems."""
    from dorad.control.errors import ControlError
    from dorafleet.inventory.load import load

    if over_ssh and (file is None or watch):
        raise click.UsageError("--ssh needs FILE, and does not go with --watch")
    cluster = None if file is None else load(file)
    machines = () if cluster is None else select_machines(cluster, only)
    if not over_ssh:
        named = {id_ for word in only for id_ in word.split(",")}
        wanted = {machine.id for machine in machines} or named
        try:
            with connect(state, port_of(cluster, port)) as client:
                return _show_fleet(
                    client, wanted, as_json=as_json, every=every or bool(only), watch=watch
                )
        except ControlError as error:
            if cluster is None or watch:
                raise
            if error.code != "unavailable":
                click.echo(f"note: asking over SSH, because {visible(str(error))}", err=True)
    from dorafleet.robot.state import read_state
    from dorafleet.ssh.fanout import read_from_each

    outcomes = asyncio.run(
        read_from_each(machines, read_state, parallel=parallel, accept_new=accept_new)
    )
    if as_json:
        print_object([as_plain(outcome) for outcome in outcomes])
    else:
        print_table(COLUMNS, [[*map(visible, as_row(outcome))] for outcome in outcomes])
    healthy = all(outcome.result is not None and outcome.result.healthy for outcome in outcomes)
    return 0 if healthy else 1


def _show_fleet(
    client: Client, wanted: Collection[str], *, as_json: bool, every: bool, watch: bool
) -> int:
    """Show the machines of these ids, or all, as the coordinator knows them."""
    from dorad.control.messages import Nothing
    from dorafleet.cli import robots
    from dorafleet.cli.deploy import read_deployments
    from dorafleet.coordinator.messages import COORDINATOR_STATUS

    def read() -> tuple[list[Robot], list[DeploymentInfo]]:
        listed = list_robots(client)
        for id_ in sorted(wanted):
            find_robot(listed, id_)
        chosen = [each for each in listed if not wanted or each.id in wanted]
        return chosen, read_deployments(client)

    if watch:
        _watch(read, as_json=as_json, every=every, whole=not wanted)
        return 0
    listed, deployments = read()
    if as_json:
        print_object(robots.as_plain(listed, deployments))
    else:
        shown = () if wanted else deployments
        lines = fleet_lines(listed, shown, every=every, colour=colours())
        if every and sys.stdout.isatty() and len(lines) > shutil.get_terminal_size().lines:
            click.echo_via_pager(f"{line}\n" for line in lines)
        else:
            for line in lines:
                click.echo(line)
    questions = client.call(COORDINATOR_STATUS, Nothing()).questions
    for question in questions:
        click.echo(f"question: {visible(question)}", err=True)
    return 0 if all(map(robots.is_well, listed)) and not questions else 1


def fleet_lines(
    fleet: Sequence[Robot],
    deployments: Sequence[DeploymentInfo] = (),
    *,
    every: bool,
    colour: bool = False,
) -> list[str]:
    """Return a table of all robots; unless `every`, of a large fleet a summary and exceptions.

    Then a table of deployments.
    """
    from dorafleet.cli import deploy, robots

    if every or len(fleet) <= robots.MAX_ROWS:
        lines = table_lines(robots.COLUMNS, map(robots.as_row, fleet), colour=colour)
    else:
        lines = [visible(line) for line in robots.summary_lines(fleet)]
        listed, more = robots.exceptions(fleet)
        if listed:
            lines += ["", *table_lines(robots.COLUMNS, map(robots.as_row, listed), colour=colour)]
        if more:
            lines.append(f"and {more} more with problems")
        lines.append("`dorafleet status --all` lists every machine")
    if deployments:
        rows = map(deploy.deployment_row, deployments)
        lines += ["", *table_lines(deploy.COLUMNS, rows, colour=colour)]
    return lines


def _watch(
    read: Callable[[], tuple[list[Robot], list[DeploymentInfo]]],
    *,
    as_json: bool,
    every: bool,
    whole: bool,
) -> None:
    """Show the tables again and again, or print them as a line of JSON each time.

    Deployments have a table if the `whole` fleet is shown.
    """
    from dorafleet.cli import robots

    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            while True:
                print_lines([robots.as_plain(*read())])
                time.sleep(WATCH_S)
        if not sys.stdout.isatty():
            raise click.ClickException("a live table needs a terminal (use --json for lines)")
        from rich.console import Console
        from rich.live import Live

        console = Console(markup=False, highlight=False, emoji=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                fleet, deployments = read()
                lines = fleet_lines(fleet, deployments if whole else (), every=every)
                live.update(screen_lines(lines, head=1), refresh=True)
                time.sleep(WATCH_S)


def as_row(outcome: MachineOutcome[State]) -> tuple[str, ...]:
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


def as_plain(outcome: MachineOutcome[State]) -> dict[str, Any]:
    """Return a machine's object for `--json`; all machines have the same keys."""
    machine, state, error = outcome.machine, outcome.result, outcome.error
    daemon = None if state is None else state.daemon
    problem = error and {"code": error.code, "message": error.message, "hint": error.hint}
    if state is not None and not state.healthy:
        message = state.daemon.problem or f"the service is {state.daemon.service}"
        problem = {"code": "not_well", "message": message, "hint": None}
    return {
        "id": machine.id,
        "host": machine.host,
        "labels": dict(machine.labels),
        "reachable": error is None or error.code.is_after_login,
        "version": daemon and daemon.version,
        "package": state and state.package,
        "service": daemon and daemon.service,
        "answers": daemon is not None and daemon.answers,
        "dataflows": [] if state is None else plain(state.dataflows),
        "error": problem,
    }
