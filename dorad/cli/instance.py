"""`--coordinator-port`, `--coordinator-addr`: choose the daemon that a command talks to."""

from __future__ import annotations

import os

import click

PORT = "DORA_COORDINATOR_PORT"
ADDRESS = "DORA_COORDINATOR_ADDR"


def add_options(command: click.Command) -> None:
    """Add the two options to a command, or to all commands of a group, unless it has them."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            add_options(inner)
    elif not any(each.name == "coordinator_port" for each in command.params):
        command.params += [_port(), _address()]


def _port() -> click.Option:
    return click.Option(
        ["--coordinator-port"],
        type=click.IntRange(1, 65535),
        metavar="PORT",
        expose_value=False,
        callback=_set,
        help=f"Use the daemon with this number, not the default one. Same as {PORT}.",
    )


def _address() -> click.Option:
    return click.Option(
        ["--coordinator-addr"],
        metavar="IP",
        expose_value=False,
        callback=_set,
        help="Only this machine's address: remote daemons are not available yet.",
    )


def _set(_: click.Context, option: click.Parameter, value: int | str | None) -> None:
    """Set the variable from which this process, and a daemon that it starts, read the value."""
    if value is not None:
        os.environ[PORT if option.name == "coordinator_port" else ADDRESS] = str(value)
