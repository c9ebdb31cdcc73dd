"""`dorafleet top`: what robots, instances or cells use and carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import megabytes, percent, plain, print_object, print_table, rate
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from dorafleet.coordinator.loadmessages import FleetLoad

EPILOG = """\b
Examples:
  dorafleet top                        a line for each robot
  dorafleet top --by instance          for each dataflow, on one robot or over several
  dorafleet top --by cell              for each value of the label `cell`
  dorafleet top --json | jq '.rows[] | select(.drop_rate > 0)'
  watch dorafleet top

\b
`dora top` shows the nodes themselves. A robot that does not answer is named, and is in no sum. P99
is that of the slowest edge, true within a factor of two. CLOCK is how far the robot's clock is
ahead of the coordinator's; of several robots, how far their clocks are apart.
Exit code 1: a robot was not measured.
"""
COLUMNS = ("ROBOTS", "NODES", "CPU", "MEMORY", "MSG/S", "BYTES/S", "DROP/S", "LOST", "P99", "CLOCK")


def _keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `robot`, `instance` and the keys of labels."""
    from click.shell_completion import CompletionItem

    from dorafleet.cli.complete import label_pairs

    pairs = label_pairs(ctx, param, "")
    keys = dict.fromkeys(["robot", "instance", *(item.value.split("=")[0] for item in pairs)])
    return [CompletionItem(key) for key in keys if key.startswith(incomplete)]


@click.command(epilog=EPILOG)
@click.option(
    "--by",
    metavar="WHAT",
    default="robot",
    show_default=True,
    shell_complete=_keys,
    help="`robot`, `instance`, or the key of a label.",
)
@json_option
@coordinator_options
def top(*, by: str, as_json: bool, state: Path, port: int) -> int:
    """Show what robots, instances or cells use and carry."""
    from dorafleet.coordinator.loadmessages import FLEET_LOAD, FleetLoadQuery

    with connect(state, port) as client:
        answer = client.call(FLEET_LOAD, FleetLoadQuery(by=by))
    if as_json:
        print_object(plain(answer))
    else:
        print_table((by.upper(), *COLUMNS), map(_row, answer.rows))
        for row in answer.rows:
            for robot, why in row.missing.items():
                click.echo(visible(f"{robot} was not measured: {why}"), err=True)
    return 1 if any(row.missing for row in answer.rows) else 0


def _row(row: FleetLoad) -> tuple[str, ...]:
    measured = row.robots - len(row.missing)
    robots = str(row.robots) if not row.missing else f"{measured} of {row.robots}"
    name = visible(row.name) or "-"
    if row.cpu is None or row.memory is None:
        return (name, robots, *["?"] * (len(COLUMNS) - 1))
    p99 = row.latency_p99
    return (
        name,
        robots,
        f"{row.nodes}, {row.failed} failed" if row.failed else str(row.nodes),
        percent(row.cpu),
        megabytes(row.memory),
        f"{row.rate or 0:.0f}",
        rate(row.bandwidth or 0),
        f"{row.drop_rate or 0:.1f}",
        str(row.lost or 0),
        "-" if p99 is None else f"{p99 * 1e3:.1f} ms",
        "-" if row.offset is None else f"{row.offset * 1e3:+.0f} ms",
    )
