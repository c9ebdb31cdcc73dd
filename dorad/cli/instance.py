"""`--coordinator-port`, `--coordinator-addr`: which of this user's daemons a command talks to."""

from __future__ import annotations

import os

import click

PORT = "DORA_COORDINATOR_PORT"
ADDRESS = "DORA_COORDINATOR_ADDR"


def add_options(command: click.Command) -> None:
    """Give a command, or all commands of a group, the two options; once."""
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
        help=f"Use the daemon of this number instead of the default one, as {PORT} does.",
    )


def _address() -> click.Option:
    return click.Option(
        ["--coordinator-addr"],
        metavar="IP",
        expose_value=False,
        callback=_set,
        help="This machine's address; there is no coordinator on others yet.",
    )


def _set(_: click.Context, option: click.Parameter, value: int | str | None) -> None:
    """Put a value where this process, and a daemon that it starts, look for it."""
    if value is not None:
        os.environ[PORT if option.name == "coordinator_port" else ADDRESS] = str(value)
