"""`dora enable` and `dora disable`: what is started when the machine is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.cli.reporting import print_note
from dorad.cli.select import connect, dataflow_name

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  dora start dataflow.yml --name nav --enable
  dora enable nav
  dora disable nav

The daemon of the machine (`dorad --system`, as the Debian package runs it) starts an enabled
dataflow at boot as it was at last, under the same name and without waiting for a network. What
was stopped by hand stays so until then. `dora list` shows what is enabled.
"""


@click.command(epilog=EPILOG)
@dataflow_name
def enable(dataflow: str | None) -> None:
    """Have a dataflow, running or ended, started at boot."""
    set_enabled(dataflow, enabled=True)


@click.command(epilog=EPILOG)
@dataflow_name
def disable(dataflow: str | None) -> None:
    """Have a dataflow no longer started at boot; it runs on."""
    set_enabled(dataflow, enabled=False)


def set_enabled(dataflow: str | None, *, enabled: bool) -> None:
    """Have a dataflow started at boot, or no longer, and say so."""
    with connect() as client:
        info = client.enable(dataflow, enabled=enabled)
        path = client.path
    click.echo(
        f"{info.name} is {'enabled: it is' if enabled else 'disabled: it is not'} started at boot"
    )
    if enabled:
        warn_unless_of_machine(path)


def warn_unless_of_machine(path: Path) -> None:
    """Say that a daemon is one that nothing starts at boot, if it is the user's own.

    `path` is that of its socket.
    """
    from dorad.shm.rendezvous import runtime_dir

    try:
        of_user = runtime_dir() in path.parents
    except PermissionError:  # whose commands go to a daemon elsewhere
        return
    if of_user:
        print_note(
            "this daemon is one of `dora up`, which nothing starts at boot (`dorad --system` is)",
        )
