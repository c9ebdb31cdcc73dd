"""`dora topic list`: the outputs of a dataflow and who receives them."""

from __future__ import annotations

import click

from dorad.cli.select import connect, dataflow_option, select
from dorad.cli.tables import format_option, print_lines, print_table

EPILOG = """\b
Examples:
  dora topic list
  dora topic list -d demo --format json
"""


@click.command("list", epilog=EPILOG)
@dataflow_option
@format_option
def list_topics(*, dataflow: str | None, style: str) -> None:
    """List the outputs of a dataflow and who receives them."""
    with connect() as client:
        topics = client.topics(select(client, dataflow)).topics
    rows = [(t.node, t.output, [f"{to.node}/{to.input}" for to in t.subscribers]) for t in topics]
    if style == "json":
        print_lines({"node": node, "name": name, "subscribers": to} for node, name, to in rows)
    else:
        table = ((node, name, ", ".join(to)) for node, name, to in rows)
        print_table(("Node", "Name", "Subscribers"), table)
