"""`dora list` and `dora clean`: list dataflows, and remove those that have ended from the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dorad.cli.select import connect, warn_missing
from dorad.commandline.tables import (
    format_option,
    megabytes,
    percent,
    print_lines,
    print_table,
)
from dorad.phrases import first_of
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.messages import DataflowInfo

COLUMNS = ("UUID", "Name", "Status", "Nodes", "CPU", "Memory")

MAX_MACHINES = 5
"""Machines that a row of the table names."""

EPILOG = """\b
Examples:
  dora list
  dora list --status running --sort-by cpu
  dora list --format json | jq -r .uuid
  dora stop $(dora list --status running --name arm -q)

Dataflows that have ended stay in the list, after those that run, until `dora clean`.
"""


@click.command("list", epilog=EPILOG)
@format_option
@click.option(
    "--status",
    type=click.Choice(["running", "finished", "failed"]),
    help="Only with this status.",
)
@click.option("--name", metavar="TEXT", help="Only dataflows with this text in their name.")
@click.option("--sort-by", type=click.Choice(["cpu", "memory"]), help="Sort, the largest first.")
@click.option("-q", "--quiet", is_flag=True, help="Print UUIDs only.")
def list_dataflows(
    *, style: str, status: str | None, name: str | None, sort_by: str | None, quiet: bool
) -> None:
    """List running dataflows, and those that have ended."""
    from dorad.control.messages import DATAFLOW_LIST, Nothing

    with connect() as client:
        answer = client.call(DATAFLOW_LIST, Nothing())
    warn_missing(answer.missing)
    dataflows = chosen(answer.dataflows, status=status, name=name, sort_by=sort_by)
    if quiet:
        for info in dataflows:
            click.echo(visible(info.uuid))
    elif style == "json":
        print_lines(map(_as_json, dataflows))
    else:
        columns = list(COLUMNS)
        rows = [_as_row(info) for info in dataflows]
        # A daemon's dataflows all run on its own machine.
        if any(info.machines for info in answer.dataflows):
            columns.append("Machines")
            rows = [
                (*row, _machines(info.machines)) for row, info in zip(rows, dataflows, strict=True)
            ]
        if any(info.enabled for info in answer.dataflows):
            columns.append("At boot")
            rows = [(*row, _at_boot(info)) for row, info in zip(rows, dataflows, strict=True)]
        if any(info.why for info in dataflows):
            columns.append("Why")
            rows = [(*row, info.why) for row, info in zip(rows, dataflows, strict=True)]
        print_table(columns, rows)


def chosen(
    dataflows: Sequence[DataflowInfo], *, status: str | None, name: str | None, sort_by: str | None
) -> list[DataflowInfo]:
    """Return the dataflows that match, sorted as requested.

    By default as in dora 1.x: those that run by name, then those that have ended by their end.
    """
    matching = [
        info
        for info in sorted(dataflows, key=_place)
        if (status is None or _family(info) == status) and (name or "") in (info.name or "")
    ]
    if sort_by is not None:
        matching.sort(key=lambda info: info.cpu if sort_by == "cpu" else info.memory, reverse=True)
    return matching


def _place(info: DataflowInfo) -> tuple[bool, bool, str, float]:
    """Return the sort key of a dataflow; those without a name come after the named ones."""
    if info.active:
        return (False, info.name is None, info.name or "", info.started_at)
    return (True, False, "", info.ended_at or 0.0)


def _family(info: DataflowInfo) -> str:
    """Return the status for `--status`: `running` for every dataflow that has not ended."""
    return "running" if info.active else info.status


def _as_row(info: DataflowInfo) -> tuple[str, ...]:
    return (
        info.uuid,
        info.name or "",
        info.status.capitalize(),
        str(info.nodes),
        percent(info.cpu),
        megabytes(info.memory),
    )


def _at_boot(info: DataflowInfo) -> str:
    return "enabled" if info.enabled else "-"


def _machines(machines: Sequence[str]) -> str:
    """Return the first machines; `--format json` has all."""
    return first_of(machines, MAX_MACHINES) or "-"


def _as_json(info: DataflowInfo) -> dict[str, Any]:
    """Return dora's keys, with memory in GiB, and then the times."""
    return {
        "uuid": info.uuid,
        "name": info.name,
        "status": info.status.capitalize(),
        "nodes": info.nodes,
        "cpu": round(info.cpu, 3),
        "memory": round(info.memory / (1 << 30), 5),
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "enabled": info.enabled,
        **({"machines": info.machines} if info.machines else {}),
        **({"why": info.why} if info.why else {}),
    }


CLEAN_EPILOG = """\b
Examples:
  dora clean
  dora clean -q | wc -l
"""


@click.command(epilog=CLEAN_EPILOG)
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Print UUIDs only.")
def clean(*, style: str, quiet: bool) -> None:
    """Remove finished and failed dataflows from the list, with their parameters.

    Their log files stay until they are the oldest and room is needed.
    """
    with connect() as client:
        cleaned = client.clean()
    if quiet:
        for info in cleaned:
            click.echo(visible(info.uuid))
        return
    rows = [(info.uuid, info.name or "", info.status.capitalize()) for info in cleaned]
    if style == "json":
        print_lines(dict(zip(("uuid", "name", "status"), row, strict=True)) for row in rows)
    elif rows:
        print_table(("UUID", "Name", "Status"), rows)
    count = "1 dataflow" if len(rows) == 1 else f"{len(rows)} dataflows"
    click.echo(f"cleaned {count}" if rows else "nothing to clean: no dataflow has ended", err=True)
