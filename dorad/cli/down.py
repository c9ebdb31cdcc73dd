"""`dora down`: stop the daemon."""

from __future__ import annotations

import time

import click

EXIT_S = 30.0
"""Seconds within which the daemon must exit after it has accepted the request."""
POLL_S = 0.02

EPILOG = """\b
Examples:
  dora down
  dora down --force

\b
Without --force it is refused while dataflows run, and lists them; with --force they are stopped
first.
"""


@click.command(epilog=EPILOG)
@click.option("-f", "--force", is_flag=True, help="Stop running dataflows first.")
def down(*, force: bool) -> int:
    """Stop the daemon."""
    from dorad.cli.instance import refuse_address
    from dorad.control.choosing import chosen_daemons
    from dorad.control.client import Client
    from dorad.procinfo import is_alive

    refuse_address("dora down", "it stops the daemon of this machine", "dorafleet down")
    with Client(chosen_daemons()) as client:
        status = client.status()
        client.shutdown(force=force)
    deadline = time.monotonic() + EXIT_S
    while is_alive(status.pid):
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"dorad (pid {status.pid}) is still running after {EXIT_S:g} s"
            )
        time.sleep(POLL_S)
    click.echo(f"dorad ended (pid {status.pid})")
    return 0
