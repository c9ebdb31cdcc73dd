"""`dora enable` and `dora disable`: what is started when the machine is."""

from __future__ import annotations

import click

from dorad.cli.select import connect, dataflow_name

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
    click.echo(
        f"{info.name} is {'enabled: it is' if enabled else 'disabled: it is not'} started at boot"
    )
