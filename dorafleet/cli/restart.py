"""`dorafleet restart`: stop a dataflow on all its machines, and start it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import file_argument, file_port_option, state_option
from dorafleet.cli.complete import dataflow_names
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  dorafleet restart cluster.yml demo
  dora restart demo --coordinator-addr 127.0.0.1      the same
\b
The new run has the nodes and edges that were added or removed since the start, and a new UUID.
"""


@click.command(epilog=EPILOG)
@file_argument
@click.argument("dataflow", metavar="NAME|UUID", shell_complete=dataflow_names)
@click.option("-f", "--force", is_flag=True, help="Kill the nodes at once instead of asking them.")
@file_port_option
@state_option
def restart(file: Path, dataflow: str, *, force: bool, port: int | None, state: Path) -> int:
    """Stop a dataflow of the fleet in FILE and start it again, under a new UUID."""
    from dorad.commandline.startprogress import report_restart
    from dorafleet.inventory.load import load

    with connect(state, port or load(file).coordinator.port) as client:
        return report_restart(client, client.restart(dataflow, force=force))
