"""`dorafleet drift`: the differences between robots and their desired state, with fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import plain, print_lines, print_table
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("Robot", "Instance", "Differs", "Desired", "Actual", "Fix")

EPILOG = """\b
Examples:
  dorafleet drift
  dorafleet drift pick                   of all instances of the deployment `pick`
  dorafleet drift cell1/pick             of one
  dorafleet drift --json | jq -c 'select(.known)'
\b
The command compares releases, started dataflows and the package dorad with the robots' latest
reports. For an unreachable robot the actual state is marked `last seen`.
Exit code: 0 without differences, 1 with differences.
"""


@click.command(epilog=EPILOG)
@click.argument("name", metavar="[[INSTANCE/]NAME]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print each difference as a line of JSON.")
@coordinator_options
def drift(name: str | None, *, as_json: bool, state: Path, port: int) -> int:
    """Show where robots differ from their desired state, with the command that fixes it."""
    from dorad.control.messages import Nothing
    from dorafleet.cli.deploy import instances_named, read_deployments
    from dorafleet.rollout.messages import DRIFT_LIST

    with connect(state, port) as client:
        differences = client.call(DRIFT_LIST, Nothing())
        listed = [] if name is None else read_deployments(client)
    rows = differences.rows
    if name is not None:
        chosen, instances = instances_named(name, listed)
        robots = {id_ for each in instances for id_ in each.robots}
        # What concerns the whole robot concerns what it runs, too.
        dataflow = chosen.name.rpartition("/")[2]
        rows = [row for row in rows if row.robot in robots and row.dataflow in ("", dataflow)]
    if as_json:
        print_lines(map(plain, rows))
    elif rows:
        print_table(
            COLUMNS,
            [
                (
                    row.robot,
                    row.instance or row.dataflow or "-",
                    row.what,
                    row.desired,
                    row.found if row.known else f"last seen: {row.found}",
                    row.way_back,
                )
                for row in rows
            ],
        )
    elif name is not None:
        click.echo(visible(f"`{name}` is in the desired state"))
    else:
        count = "1 robot is" if differences.robots == 1 else f"{differences.robots} robots are"
        click.echo(f"{count} in the desired state")
    return 1 if rows else 0
