"""`dorafleet drift`: the differences between robots and their desired state, with fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.cli.tables import plain, print_lines, print_table
from dorafleet.cli.arguments import port_option, state_option
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("Robot", "Dataflow", "Differs", "Desired", "Actual", "Fix")

EPILOG = """\b
Examples:
  dorafleet drift
  dorafleet drift --json | jq -c 'select(.known)'
\b
The command compares releases, started dataflows and the package dorad with the robots' latest
reports. For an unreachable robot the actual state is marked `last seen`.
Exit code: 0 without differences, 1 with differences.
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print each difference as a line of JSON.")
@state_option
@port_option
def drift(*, as_json: bool, state: Path, port: int) -> int:
    """Show where robots differ from their desired state, with the command that fixes it."""
    from dorad.control.messages import Nothing
    from dorafleet.rollout.messages import DRIFT_LIST

    with connect(state, port) as client:
        found = client.call(DRIFT_LIST, Nothing())
    if as_json:
        print_lines(map(plain, found.rows))
    elif found.rows:
        print_table(
            COLUMNS,
            [
                (
                    row.robot,
                    row.dataflow or "-",
                    row.what,
                    row.desired,
                    row.found if row.known else f"last seen: {row.found}",
                    row.way_back,
                )
                for row in found.rows
            ],
        )
    else:
        robots = "1 robot is" if found.robots == 1 else f"{found.robots} robots are"
        click.echo(f"{robots} in the desired state")
    return 1 if found.rows else 0
