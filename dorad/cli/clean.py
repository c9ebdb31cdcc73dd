"""`dora clean`: forget dataflows that have ended."""

import click

from dorad.cli.select import connect
from dorad.cli.tables import format_option, print_lines, print_table

EPILOG = """\b
Examples:
  dora clean
  dora clean -q | wc -l

What they were started from, their parameters and their log files go as well.
"""


@click.command(epilog=EPILOG)
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Print UUIDs only.")
def clean(*, style: str, quiet: bool) -> None:
    """Forget dataflows that have finished or failed."""
    with connect() as client:
        cleaned = client.clean()
    if quiet:
        for info in cleaned:
            click.echo(info.uuid)
        return
    rows = [(info.uuid, info.name or "", info.status.capitalize()) for info in cleaned]
    if style == "json":
        print_lines(dict(zip(("uuid", "name", "status"), row, strict=True)) for row in rows)
    elif rows:
        print_table(("UUID", "Name", "Status"), rows)
    count = "1 dataflow" if len(rows) == 1 else f"{len(rows)} dataflows"
    click.echo(f"cleaned {count}" if rows else "nothing to clean: none has ended", err=True)
