"""`dora record mark` and `dora record incidents`: the black box of a recorded dataflow."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.durations import Duration
from dorad.cli.select import dataflow_option
from dorad.cli.sizes import Size
from dorad.cli.tables import format_option, print_lines, print_table
from dorad.dataflow.settings import RECORD_FOLDER
from dorad.shm.rendezvous import ADDRESS_VARIABLE
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.record.incidents import Mark

folder_argument = click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default="recordings"
)
MARK_EPILOG = """\b
Examples:
  dora record mark --note "missed the dock"
  dora record mark --before 60s --after 20s /var/lib/robot/recordings
  dora record mark -d demo --coordinator-addr fleet.local     on every machine of the dataflow

\b
FOLDER is that of the dataflow's `record` block, by default `recordings` here. A node does the same
with `node.mark("why")`; a node that fails, and an input that breaks, make an incident, too.
"""


@click.command("mark", epilog=MARK_EPILOG)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)
@dataflow_option
@click.option(
    "--before",
    type=Duration(),
    default=60.0,
    metavar="DURATION",
    help="How much to keep before now.  [default: 60s]",
)
@click.option(
    "--after",
    type=Duration(),
    default=20.0,
    metavar="DURATION",
    help="How much to keep after now.  [default: 20s]",
)
@click.option("--note", default="", metavar="TEXT", help="Text that explains the incident.")
def mark(
    folder: Path | None, *, dataflow: str | None, before: float, after: float, note: str
) -> int:
    """Keep the last seconds of the black box in FOLDER as an incident.

    With --dataflow, or through a coordinator, on every machine of a running dataflow.
    """
    from dorad.record import blackbox
    from dorad.record import incidents as kept

    wanted = kept.Mark(time.time_ns(), before, after, note[:1000], "command")
    if dataflow is not None or os.environ.get(ADDRESS_VARIABLE):
        from dorad.cli.record_mark import mark_running

        return mark_running(dataflow, folder, wanted)
    folder = folder or Path(RECORD_FOLDER)
    if not folder.is_dir():
        raise click.ClickException(
            f"there is no folder {folder}; name that of a black box, or its dataflow with -d"
        )
    try:
        own = blackbox.keep(folder, wanted)
    except OSError as error:
        raise click.ClickException(f"cannot write to the black box: {error.strerror}") from error
    click.echo(f"incident {own.name} in {visible(str(own))}")
    return 0


INCIDENTS_EPILOG = """\b
Examples:
  dora record incidents
  dora record incidents --export 20260501-101500-3f2a -o dock.mcap
  dora record incidents --remove 20260501-101500-3f2a
  dora record incidents --remove-all --older-than 7d
  dora record incidents --remove-all --max-size 5GB        the oldest, until 5 GB are left

\b
A black box does the last two by itself with --keep-incidents and --max-incidents-size.
"""


@click.command("incidents", epilog=INCIDENTS_EPILOG)
@folder_argument
@click.option("--export", "exported", metavar="ID", help="Write one incident as one recording.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="With --export."
)
@click.option("--remove", "removed", metavar="ID", multiple=True, help="Remove an incident.")
@click.option("--remove-all", is_flag=True, help="Remove all, or those that the next two choose.")
@click.option("--older-than", type=Duration(), metavar="DURATION", help="Only older ones.")
@click.option(
    "--max-size",
    type=Size(),
    metavar="SIZE",
    help="With --remove-all: only the oldest, until the others take no more than this.",
)
@format_option
def incidents(
    folder: Path,
    *,
    exported: str | None,
    output: Path | None,
    removed: tuple[str, ...],
    remove_all: bool,
    older_than: float | None,
    max_size: int | None,
    style: str,
) -> int:
    """List the incidents in FOLDER; export one, or remove some."""
    from dorad.record import incidents as kept

    if output is not None and exported is None:
        raise click.UsageError("--output goes with --export ID")
    if max_size is not None and not remove_all:
        raise click.UsageError("--max-size goes with --remove-all")
    if exported is not None:
        _export(folder, exported, output)
        return 0
    now_ns = time.time_ns()
    known = kept.incidents(folder)
    if older_than is not None:
        known = [each for each in known if each[1].time_ns < now_ns - int(older_than * 1e9)]
    if removed or remove_all:
        chosen = [own for own, _ in known]
        if max_size is not None:
            chosen = kept.surplus(known, older_than, max_size, now_ns)
        for name in (*removed, *(own.name for own in chosen if remove_all)):
            _remove(folder, name)
        return 0
    rows = [_row(own, each) for own, each in known]
    if style == "json":
        print_lines(rows)
    else:
        _print_rows(rows)
    return 0


def _export(folder: Path, name: str, output: Path | None) -> None:
    from dorad.cli.reporting import print_warning
    from dorad.record import incidents as kept
    from dorad.record.edit import merge

    own, mark = kept.incident(folder, name)
    target = output or Path(f"{name}.mcap")
    count = merge(sorted(own.glob("*.mcap")), target, start=mark.start_ns, end=mark.end_ns)
    if kept.is_open(mark, time.time_ns()):
        print_warning("messages still come into this incident: export it again when it is over")
    click.echo(f"wrote {visible(str(target))}: {count} messages")


def _remove(folder: Path, name: str) -> None:
    from dorad.record import incidents as kept

    try:
        kept.remove(folder, name)
    except OSError as error:
        raise click.ClickException(f"cannot remove {name}: {error.strerror}") from error
    click.echo(f"removed {visible(name)}")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from dorad.record.report import size_text

    print_table(
        ("INCIDENT", "BEFORE", "AFTER", "SEGMENTS", "SIZE", "SOURCE", "NOTE"),
        (
            (
                row["id"],
                f"{row['before']:g} s",
                f"{row['after']:g} s",
                str(row["segments"]),
                size_text(row["bytes"]),
                row["source"],
                row["note"],
            )
            for row in rows
        ),
    )


def _row(own: Path, each: Mark) -> dict[str, Any]:
    from dorad.record import incidents as kept

    return {
        "id": own.name,
        "time_ns": each.time_ns,
        "before": each.before_s,
        "after": each.after_s,
        "segments": len(list(own.glob("*.mcap"))),
        "bytes": kept.bytes_of(own),
        "source": each.source,
        "note": each.note,
        "path": str(own),
    }
