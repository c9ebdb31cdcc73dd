"""Choose the dataflow of a command: the one given, the only running one, or ask the user."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dorad.commandline.complete import dataflow_names, machine_names
from dorad.commandline.reports import print_leader, print_warning
from dorad.natural import natural_item
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.client import Client
    from dorad.control.messages import DataflowInfo, Top
    from dorad.dataflow.model import Dataflow

dataflow_option = click.option(
    "-d",
    "--dataflow",
    metavar="NAME|UUID",
    shell_complete=dataflow_names,
    help="The dataflow; optional while only one runs.",
)
machine_option = click.option(
    "--machine",
    metavar="ID",
    shell_complete=machine_names,
    help="Only this machine of a fleet, through a coordinator.",
)
dataflow_name = click.argument(
    "dataflow", metavar="[NAME|UUID]", required=False, shell_complete=dataflow_names
)
name_option = click.option(
    "-n", "--name", metavar="NAME", help="Same as the argument.", shell_complete=dataflow_names
)


def connect() -> Client:
    """Connect to the daemon, or to the coordinator that is used. Raises ControlError."""
    from dorad.control.client import Client

    client = Client()
    print_leader(client)
    return client


def load_running(given: str | None) -> Dataflow:
    """Return a running dataflow, with its changes since the start.

    Raises:
        ControlError: the server does not know it.
    """
    from pathlib import Path

    from dorad.dataflow.load import from_descriptor

    with connect() as client:
        info = client.info(select(client, given))
    return from_descriptor(info.descriptor, path=Path(info.path))


def on_machine(top: Top, machine: str | None) -> Top:
    """Return what is on one machine of a fleet, everything without one."""
    if machine is None:
        return top
    from msgspec.structs import replace

    return replace(
        top,
        nodes=[info for info in top.nodes if info.machine == machine],
        edges=[edge for edge in top.edges if edge.machine == machine],
        interfaces=[each for each in top.interfaces if each.machine == machine],
        links=[each for each in top.links if each.reporter == machine],
    )


def warn_missing(missing: Mapping[str, str]) -> None:
    """Warn that an answer of the coordinator lacks what is on these machines."""
    for machine, reason in sorted(missing.items(), key=natural_item):
        print_warning(f"{machine} is left out: {reason}")


def one_name(dataflow: str | None, name: str | None) -> str | None:
    """Return the name given as argument or with `-n`. Raises click.UsageError if they differ."""
    if dataflow is not None and name is not None and dataflow != name:
        raise click.UsageError(f"give one dataflow, '{dataflow}' or '{name}'")
    return name if dataflow is None else dataflow


def select(client: Client, given: str | None) -> str:
    """Return the name or UUID of the chosen dataflow.

    Without `given`, it is the only running one; at a terminal, the user chooses if there are
    several.

    Raises:
        ControlError: the daemon does not answer.
        click.ClickException: none runs, or several do and there is no terminal.
    """
    if given is not None:
        return given
    running_flows = running(client)
    if not running_flows:
        raise click.ClickException("no dataflow is running (start one with `dora start PATH`)")
    if len(running_flows) == 1:
        return running_flows[0].uuid
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        names = ", ".join(label(info) for info in running_flows)
        raise click.ClickException(f"{len(running_flows)} dataflows are running; name one: {names}")
    return _ask(running_flows)


def running(client: Client) -> list[DataflowInfo]:
    """Return the dataflows that have not ended."""
    return [info for info in client.list() if info.active]


def label(info: DataflowInfo) -> str:
    """Return the name of a dataflow, or its UUID if it has none."""
    return info.name or info.uuid


def _ask(choices: list[DataflowInfo]) -> str:
    for place, info in enumerate(choices, start=1):
        click.echo(f"{place:3}  {info.uuid}  {visible(info.name or '')}", err=True)
    choice = click.prompt("which dataflow", type=click.IntRange(1, len(choices)), err=True)
    return choices[int(choice) - 1].uuid
