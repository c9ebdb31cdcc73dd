"""`--coordinator-port`, `--coordinator-addr`: choose the server that a command talks to."""

from __future__ import annotations

import os

import click

from dorad.shm.rendezvous import ADDRESS_VARIABLE, PORT_VARIABLE


def add_options(command: click.Command) -> None:
    """Add the two options to a command, or to all commands of a group, unless it has them."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            add_options(inner)
    elif not any(each.name == "coordinator_port" for each in command.params):
        command.params += [_port(), _address()]


def refuse_address(command: str, what: str, instead: str) -> None:
    """Refuse a command that concerns this machine alone where a coordinator is named."""
    address = os.environ.get(ADDRESS_VARIABLE)
    if address:
        raise click.ClickException(
            f"`{command}` does not go to the coordinator at {address}: {what} (for the coordinator "
            f"use `{instead}`; otherwise leave out --coordinator-addr, or unset {ADDRESS_VARIABLE})"
        )


def _port() -> click.Option:
    return click.Option(
        ["--coordinator-port"],
        type=click.IntRange(1, 65535),
        metavar="PORT",
        expose_value=False,
        callback=_set,
        help=(
            "The coordinator's port, or the number of a daemon of this user. "
            f"Same as {PORT_VARIABLE}."
        ),
    )


def _address() -> click.Option:
    return click.Option(
        ["--coordinator-addr"],
        metavar="HOST",
        expose_value=False,
        callback=_set,
        help=f"Talk to the coordinator of a fleet, not to a daemon. Same as {ADDRESS_VARIABLE}.",
    )


def _set(_: click.Context, option: click.Parameter, value: int | str | None) -> None:
    """Set the variable from which this process, and a daemon that it starts, read the value."""
    if value is not None:
        name = PORT_VARIABLE if option.name == "coordinator_port" else ADDRESS_VARIABLE
        os.environ[name] = str(value)
