"""`dora restart`: stop a dataflow and start it again under a new UUID."""

from __future__ import annotations

import click

from dorad.cli.select import connect, dataflow_name, name_option, one_name, select
from dorad.cli.stop import force_option, grace_option
from dorad.terminal import visible

EPILOG = """\b
Examples:
  dora restart demo
  dora restart --grace-duration 2s

It starts what runs now: nodes and edges that were added or removed meanwhile stay so, and it says
which. The file is not read again: for that, stop the dataflow and start it.
"""


@click.command(epilog=EPILOG)
@dataflow_name
@name_option
@grace_option
@force_option
def restart(
    dataflow: str | None, *, name: str | None, grace_duration: float | None, force: bool
) -> None:
    """Stop a dataflow and start it again as it was, under a new UUID."""
    given = one_name(dataflow, name)
    with connect() as client:
        result = client.restart(select(client, given), grace=grace_duration, force=force)
    click.echo(f"dataflow restarted: {result.old} -> {result.new}")
    show_changes(result.changes)


def show_changes(changes: list[str]) -> None:
    """Tell how a dataflow differs from the file it was started from."""
    if changes:
        head = click.style("note:", fg="cyan", bold=True)
        click.echo(f"{head} differs from its file: {visible('; '.join(changes))}", err=True)
