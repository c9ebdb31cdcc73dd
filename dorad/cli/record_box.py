"""`dora record mark` and `dora record incidents`: the black box of a recorded dataflow."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.select import dataflow_option
from dorad.cli.sizes import Size
from dorad.commandline.durations import Duration
from dorad.commandline.tables import format_option, print_lines, print_table
from dorad.dataflow.settings import RECORD_FOLDER
from dorad.shm.rendezvous import ADDRESS_VARIABLE
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.control.messages import BlackBox, Incident
    from dorad.record.box.incidents import Mark

folder_argument = click.argument(
    "folder", type=click.Path(file_okay=False, path_type=Path), required=False
)
COLUMNS = ("INCIDENT", "BEFORE", "AFTER", "SEGMENTS", "SIZE", "SOURCE", "NOTE")

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
@folder_argument
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
    from dorad.record.box import blackbox
    from dorad.record.box import incidents as kept

    before, after = min(before, kept.MAX_S), min(after, kept.MAX_S)
    wanted = kept.Mark(time.time_ns(), before, after, note[: kept.MAX_NOTE], "command")
    if dataflow is not None or os.environ.get(ADDRESS_VARIABLE):
        from dorad.cli.record_mark import mark_running

        return mark_running(dataflow, folder, wanted)
    folder = _existing(folder)
    try:
        own = blackbox.keep(folder, wanted)
    except OSError as error:
        raise click.ClickException(f"cannot write to the black box: {error.strerror}") from error
    click.echo(f"incident {own.name} in {visible(str(own))}")
    return 0


def _existing(folder: Path | None) -> Path:
    """Return the folder given, or the default one. Raises click.ClickException if it is not one."""
    box_folder = folder or Path(RECORD_FOLDER)
    if not box_folder.is_dir():
        raise click.ClickException(
            f"there is no folder {box_folder}; name that of a black box, or its dataflow with -d"
        )
    return box_folder


INCIDENTS_EPILOG = """\b
Examples:
  dora record incidents
  dora record incidents --export 20260501-101500-3f2a -o dock.mcap
  dora record incidents --coordinator-addr fleet.local              of all machines
  dora record incidents -d scout/arm --coordinator-addr fleet.local --export 20260501-101500-3f2a
  dora record incidents --remove 20260501-101500-3f2a
  dora record incidents --remove-all --older-than 7d
  dora record incidents --remove-all --max-size 5GB        the oldest, until 5 GB are left

\b
A black box does the last two by itself with --keep-incidents and --max-incidents-size.
FOLDER is `recordings` here by default. Incidents of another machine are copied with scp.
"""


@click.command("incidents", epilog=INCIDENTS_EPILOG)
@folder_argument
@dataflow_option
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
    folder: Path | None,
    *,
    dataflow: str | None,
    exported: str | None,
    output: Path | None,
    removed: tuple[str, ...],
    remove_all: bool,
    older_than: float | None,
    max_size: int | None,
    style: str,
) -> int:
    """List the incidents in FOLDER; export one, or remove some.

    With --dataflow those of its black box, also after its end; through a coordinator those on all
    machines. The exit code is 3 if segments between those of an incident are gone.
    """
    from dorad.record.box import incidents as kept

    if output is not None and exported is None:
        raise click.UsageError("--output goes with --export ID")
    if max_size is not None and not remove_all:
        raise click.UsageError("--max-size goes with --remove-all")
    if dataflow is not None or (folder is None and os.environ.get(ADDRESS_VARIABLE)):
        if folder is not None:
            raise click.UsageError("give FOLDER or --dataflow")
        if removed or remove_all or older_than is not None:
            raise click.UsageError("incidents are removed on their machine, by FOLDER")
        return _of_dataflows(dataflow, exported, output, style)
    folder = _existing(folder)
    if exported is not None:
        return _export(folder, exported, output)
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
    _print_rows(rows, style)
    return _report_gone(rows)


def _report_gone(rows: list[dict[str, Any]]) -> int:
    """Say which incidents lack segments; return the exit code."""
    from dorad.cli.record_options import LOSSY
    from dorad.commandline.reports import print_warning

    lacking = [row for row in rows if row["gone"]]
    for row in lacking:
        of = row["segments"] + row["gone"]
        print_warning(visible(f"{row['id']} lacks {row['gone']} of its {of} segments"))
    return LOSSY if lacking else 0


def _export(folder: Path, name: str, output: Path | None) -> int:
    from dorad.cli.record_edit import report_copied
    from dorad.commandline.reports import print_warning
    from dorad.record.box import incidents as kept
    from dorad.record.edit import merge

    own, mark = kept.incident(folder, name)
    target = output or Path(f"{name}.mcap")
    copied = merge(sorted(own.glob("*.mcap")), target, start=mark.start_ns, end=mark.end_ns)
    if kept.is_open(mark, time.time_ns()):
        print_warning("messages still come into this incident: export it again when it is over")
    return report_copied(target, copied)


def _remove(folder: Path, name: str) -> None:
    from dorad.record.box import incidents as kept

    try:
        kept.remove(folder, name)
    except OSError as error:
        raise click.ClickException(f"cannot remove {name}: {error.strerror}") from error
    click.echo(f"removed {visible(name)}")


def _of_dataflows(
    dataflow: str | None, exported: str | None, output: Path | None, style: str
) -> int:
    """List the incidents of running and ended dataflows, or export one; return the exit code."""
    from dorad.cli.select import connect, warn_missing
    from dorad.commandline.reports import print_warning

    with connect() as client:
        incidents = client.incidents(dataflow)
    warn_missing(incidents.missing)
    for box in incidents.boxes:
        if box.problem:
            print_warning(visible(f"{_place(box)} cannot be read: {box.problem}"))
        if box.left_out:
            print_warning(visible(f"{_place(box)} has {box.left_out} older incidents"))
    if exported is not None:
        holding = [box for box in incidents.boxes if any(x.id == exported for x in box.incidents)]
        return _export_from(holding, exported, output)
    rows = [_row_of(box, each) for box in incidents.boxes for each in box.incidents]
    _print_rows(rows, style)
    return _report_gone(rows)


def _place(box: BlackBox) -> str:
    return box.folder if box.machine is None else f"{box.machine}:{box.folder}"


def _export_from(boxes: list[BlackBox], name: str, output: Path | None) -> int:
    """Export an incident of the only one of these black boxes; return the exit code."""
    from dorad.cli.remote_files import copied_folder
    from dorad.record.box.incidents import INCIDENTS

    if len(boxes) != 1:
        where = ", ".join(map(_place, boxes)) or "no black box that answers"
        raise click.ClickException(f"{name} is in {visible(where)}; name a dataflow with -d")
    box = boxes[0]
    if box.machine is None:
        return _export(Path(box.folder), name, output)
    target = output or Path(f"{name}.mcap")
    if target.exists():
        raise click.ClickException(f"{target} exists already; name another file with -o")
    with copied_folder(f"{_place(box)}/{INCIDENTS}/{name}", target) as own:
        return _export(own.parents[1], name, target)


def _print_rows(rows: list[dict[str, Any]], style: str) -> None:
    from dorad.phrases import size_text

    if style == "json":
        print_lines(rows)
        return
    machines = any(row.get("machine") for row in rows)
    print_table(
        (*(("MACHINE", "DATAFLOW") if machines else ()), *COLUMNS),
        (
            (
                *((row["machine"] or "", row["dataflow"]) if machines else ()),
                row["id"],
                f"{row['before']:g} s",
                f"{row['after']:g} s",
                _segments_text(row["segments"], row["gone"]),
                size_text(row["bytes"]),
                row["source"],
                row["note"],
            )
            for row in rows
        ),
    )


def _segments_text(there: int, gone: int) -> str:
    return f"{there} of {there + gone}" if gone else str(there)


def _row(own: Path, each: Mark) -> dict[str, Any]:
    from dorad.record.box import incidents as kept

    files = kept.files_of(own)
    return {
        "id": own.name,
        "time_ns": each.time_ns,
        "before": each.before_s,
        "after": each.after_s,
        "segments": len(files),
        "gone": kept.segments_gone(own),
        "bytes": sum(size for _, size in files),
        "source": each.source,
        "note": each.note,
        "path": str(own),
    }


def _row_of(box: BlackBox, each: Incident) -> dict[str, Any]:
    from dorad.record.box.incidents import INCIDENTS

    return {
        "machine": box.machine,
        "dataflow": box.name or box.dataflow,
        "id": each.id,
        "time_ns": int(each.time) * 10**9 + int(each.time % 1 * 1e9),
        "before": each.before,
        "after": each.after,
        "segments": each.segments,
        "gone": each.gone,
        "bytes": each.bytes,
        "source": each.source,
        "note": each.note,
        "path": f"{box.folder}/{INCIDENTS}/{each.id}",
    }
