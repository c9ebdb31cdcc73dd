"""`dora down`: end the daemon."""

from __future__ import annotations

import time

import click

END_S = 30.0
"""Seconds within which the daemon must be gone after it agreed to end."""
LOOK_S = 0.02

EPILOG = """\b
Examples:
  dora down
  dora down --force

\b
Without --force it refuses while dataflows run, and lists them; with it they are stopped first.
"""


@click.command(epilog=EPILOG)
@click.option("-f", "--force", is_flag=True, help="Stop running dataflows first.")
def down(*, force: bool) -> int:
    """End the daemon."""
    from dorad.control.client import Client

    with Client() as client:
        status = client.status()
        client.shutdown(force=force)
    from dorad.launch.stat import is_alive

    deadline = time.monotonic() + END_S
    while is_alive(status.pid):
        if time.monotonic() > deadline:
            raise click.ClickException(f"dorad (pid {status.pid}) is still there after {END_S:g} s")
        time.sleep(LOOK_S)
    click.echo(f"dorad ended (pid {status.pid})")
    return 0
