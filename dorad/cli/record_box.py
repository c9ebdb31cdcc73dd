"""`dora record mark` and `dora record incidents`: the black box of a recorded dataflow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.durations import Duration
from dorad.cli.tables import format_option, print_lines, print_table
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.record.ring import Mark

folder_argument = click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default="recordings"
)
WAIT_S = 5.0

MARK_EPILOG = """\b
Examples:
  dora record mark --note "missed the dock"
  dora record mark --before 60s --after 20s /var/lib/robot/recordings

\b
FOLDER is that of the dataflow's `record` block, by default `recordings` here. A node does the same
with `node.mark("why")`; a node that fails, and an input that breaks, make an incident, too.
"""


@click.command("mark", epilog=MARK_EPILOG)
@folder_argument
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
def mark(folder: Path, *, before: float, after: float, note: str) -> int:
    """Keep the last seconds of the black box in FOLDER as an incident."""
    from dorad.record import ring

    wanted = ring.Mark(time.time_ns(), before, after, note[:1000], "command")
    name = _folder_error(lambda: ring.request(folder, wanted))
    own = folder / ring.INCIDENTS / name
    end = time.monotonic() + WAIT_S
    while not (own / "incident.json").exists():
        if time.monotonic() > end:
            # No recorder runs, so no more messages are added to the ring.
            for left, each in ring.take_requests(folder):
                ring.create(folder, left, each)
            break
        time.sleep(0.02)
    click.echo(f"incident {name} in {visible(str(own))}")
    return 0


def _folder_error(act: Any) -> Any:
    try:
        return act()
    except OSError as error:
        raise click.ClickException(f"cannot write to the black box: {error.strerror}") from error


INCIDENTS_EPILOG = """\b
Examples:
  dora record incidents
  dora record incidents --export 20260501-101500-3f2a -o dock.mcap
  dora record incidents --remove 20260501-101500-3f2a
  dora record incidents --older-than 7d --remove-all
"""


@click.command("incidents", epilog=INCIDENTS_EPILOG)
@folder_argument
@click.option("--export", "exported", metavar="ID", help="Write one incident as one recording.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="With --export."
)
@click.option("--remove", "removed", metavar="ID", multiple=True, help="Remove an incident.")
@click.option("--remove-all", is_flag=True, help="Remove the incidents of --older-than, or all.")
@click.option("--older-than", type=Duration(), metavar="DURATION", help="Only older ones.")
@format_option
def incidents(
    folder: Path,
    *,
    exported: str | None,
    output: Path | None,
    removed: tuple[str, ...],
    remove_all: bool,
    older_than: float | None,
    style: str,
) -> int:
    """List the incidents in FOLDER; export one, or remove some."""
    from dorad.record import ring

    if output is not None and exported is None:
        raise click.UsageError("--output goes with --export ID")
    known = [
        (own, each)
        for own, each in ring.incidents(folder)
        if older_than is None or each.time_ns < time.time_ns() - int(older_than * 1e9)
    ]
    if exported is not None:
        from dorad.record.edit import merge

        own, each = ring.incident(folder, exported)
        target = output or Path(f"{exported}.mcap")
        found = sorted(own.glob("*.mcap"))
        count = merge(found, target, start=each.start_ns, end=each.end_ns)
        click.echo(f"wrote {visible(str(target))}: {count} messages")
        return 0
    if removed or remove_all:
        for name in (*removed, *(own.name for own, _ in known if remove_all)):
            ring.remove(folder, name)
            click.echo(f"removed {visible(name)}")
        return 0
    rows = [_row(own, each) for own, each in known]
    if style == "json":
        print_lines(rows)
    else:
        print_table(
            ("INCIDENT", "BEFORE", "AFTER", "SEGMENTS", "SOURCE", "NOTE"),
            (
                (
                    row["id"],
                    f"{row['before']:g} s",
                    f"{row['after']:g} s",
                    str(row["segments"]),
                    row["source"],
                    row["note"],
                )
                for row in rows
            ),
        )
    return 0


def _row(own: Path, each: Mark) -> dict[str, Any]:
    return {
        "id": own.name,
        "time_ns": each.time_ns,
        "before": each.before_s,
        "after": each.after_s,
        "segments": len(list(own.glob("*.mcap"))),
        "source": each.source,
        "note": each.note,
    }
