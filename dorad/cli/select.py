"""Which dataflow a command is about: named on the command line, the only one, or asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dorad.cli.complete import dataflow_names
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.control.client import Client
    from dorad.control.messages import DataflowInfo

LIVING = ("starting", "running", "stopping")

dataflow_option = click.option(
    "-d",
    "--dataflow",
    metavar="NAME|UUID",
    shell_complete=dataflow_names,
    help="The dataflow; not needed while only one runs.",
)
dataflow_name = click.argument(
    "dataflow", metavar="[NAME|UUID]", required=False, shell_complete=dataflow_names
)
name_option = click.option(
    "-n", "--name", metavar="NAME", help="The same as NAME.", shell_complete=dataflow_names
)


def connect() -> Client:
    """Return a connection to the daemon. Raises ControlError when there is none."""
    from dorad.control.client import Client

    return Client()


def one_name(dataflow: str | None, name: str | None) -> str | None:
    """Return the name that was given as an argument or with `-n`. Raises click.UsageError."""
    if dataflow is not None and name is not None and dataflow != name:
        raise click.UsageError(f"give one dataflow, '{dataflow}' or '{name}'")
    return name if dataflow is None else dataflow


def select(client: Client, given: str | None) -> str:
    """Return the name or UUID of the dataflow that is meant.

    Without one given it is the only one that runs; of several, a user at a terminal chooses.

    Raises:
        ControlError: the daemon cannot be asked.
        click.ClickException: none runs, or several do.
    """
    if given is not None:
        return given
    living = running(client)
    if not living:
        raise click.ClickException("no dataflow is running (start one with `dora start PATH`)")
    if len(living) == 1:
        return living[0].uuid
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        names = ", ".join(label(info) for info in living)
        raise click.ClickException(f"{len(living)} dataflows are running; name one: {names}")
    return _ask(living)


def running(client: Client) -> list[DataflowInfo]:
    """Return the dataflows that run, are starting or are stopping."""
    return [info for info in client.list() if info.status in LIVING]


def label(info: DataflowInfo) -> str:
    """Return what a user may call the dataflow."""
    return info.name or info.uuid


def _ask(living: list[DataflowInfo]) -> str:
    for place, info in enumerate(living, start=1):
        click.echo(f"{place:3}  {info.uuid}  {visible(info.name or '')}", err=True)
    choice = click.prompt("which dataflow", type=click.IntRange(1, len(living)), err=True)
    return living[int(choice) - 1].uuid
