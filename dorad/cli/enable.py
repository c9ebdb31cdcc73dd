"""`dora enable` and `dora disable`: choose what is started at boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.cli.select import connect, dataflow_name
from dorad.commandline.reports import print_note
from dorad.terminal import visible

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  dora start dataflow.yml --name nav --enable
  dora enable nav
  dora disable nav

At boot the machine's daemon (`dorad --system`, which the Debian package runs) starts each enabled
dataflow in its last state, under the same name and without waiting for the network. A dataflow that
you stop stays stopped until then. `dora list` shows what is enabled.
"""


@click.command(epilog=EPILOG)
@dataflow_name
def enable(dataflow: str | None) -> None:
    """Start a dataflow, running or ended, at every boot."""
    set_enabled(dataflow, enabled=True)


@click.command(epilog=EPILOG)
@dataflow_name
def disable(dataflow: str | None) -> None:
    """Stop starting a dataflow at boot. It keeps running."""
    set_enabled(dataflow, enabled=False)


def set_enabled(dataflow: str | None, *, enabled: bool) -> None:
    """Choose whether a dataflow is started at boot, and report it."""
    with connect() as client:
        info = client.enable(dataflow, enabled=enabled)
        path = client.server.path
    how = "enabled: it is" if enabled else "disabled: it is not"
    click.echo(visible(f"{info.name} is {how} started at boot"))
    if enabled:
        warn_unless_of_machine(path)


def warn_unless_of_machine(path: Path | None) -> None:
    """Warn that nothing starts this daemon at boot if it is the user's own.

    `path` is its socket, None for a coordinator.
    """
    from dorad.shm.rendezvous import runtime_dir

    try:
        of_user = path is not None and runtime_dir() in path.parents
    except PermissionError:  # no daemon of this user can run, so it is another one
        return
    if of_user:
        print_note(
            "this daemon, of `dora up`, is not itself started at boot (`dorad --system` is)",
        )
