"""`dora trace view` and `dora trace export`: one trace as a waterfall, many as a file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.cli.select import dataflow_option, warn_missing
from dorad.cli.trace import Asked, ask, ask_all, asking, print_losses, recordings_argument
from dorad.cli.trace_list import (
    SHORT_ID,
    can_show,
    failed_option,
    min_option,
    slow_option,
    through_option,
    trace_json,
)
from dorad.commandline.complete import trace_ids
from dorad.commandline.reports import print_note
from dorad.commandline.tables import colours, format_option, plain, print_object
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.messages import Trace, TracePath

VIEW_EPILOG = """\b
Examples:
  dora trace view 9f3a
  dora trace view --slow                 the slowest that is kept
  dora trace view --slow --through planner
  dora trace view 9f3a -f json
  dora trace view day.mcap --slow        of a recording
  dora trace view day.mcap 9f3a

\b
A bar is the time in which a node worked on a message; dotted is the way of a message to its
receiver, shaded the part of it in which the receiver was busy with something else.
"""

EXPORT_EPILOG = """\b
Examples:
  dora trace export --perfetto robot.pftrace
  dora trace export --perfetto slow.pftrace --slow --limit 100
  dora trace export day.mcap --perfetto day.pftrace

\b
https://ui.perfetto.dev opens the file, in the browser and without an upload. It has a track for
each node, an arrow for each message, and a mark where one was dropped or a node failed.
"""

_ID = re.compile("[0-9a-fA-F]{1,32}")
_COLOURS = {
    "process": "green",
    "wait": "yellow",
    "late": "yellow",
    "failed": "red",
    "trouble": "red",
}


@click.command(epilog=VIEW_EPILOG)
@click.argument("words", metavar="[FILE]... [ID]", nargs=-1, shell_complete=trace_ids)
@dataflow_option
@click.option("--slow", is_flag=True, help="The slowest instead of one with this ID.")
@through_option
@format_option
def view(
    words: tuple[str, ...],
    *,
    dataflow: str | None,
    slow: bool,
    through: tuple[str, ...],
    style: str,
) -> int:
    """Show where the time of the trace went whose id begins with ID.

    With FILE, of a trace in recordings, or in the folder of an incident.
    """
    ids = [word for word in words if _ID.fullmatch(word)]
    files = [_recording(word) for word in words if not _ID.fullmatch(word)]
    if len(ids) != (not slow):
        raise click.UsageError("give an ID, of which `dora trace list` has some, or --slow")
    with asking(files) as asked:
        trace, path = _one(asked, "".join(ids), dataflow, through)
    if style == "json":
        print_object(trace_json(trace) | {"spans": plain(trace.spans)})
        return print_losses(asked, ())
    from dorad.trace.waterfall import plain_style, waterfall

    lines = waterfall(
        trace,
        shutil.get_terminal_size().columns,
        path=path,
        unicode=can_show("█▌░·└✗◀⟵→…µ"),
        style=_coloured if colours() else plain_style,
    )
    for line in lines:
        click.echo(line)
    return print_losses(asked, ())


def _recording(word: str) -> Path:
    path = Path(word)
    if not path.exists():
        raise click.BadParameter(f"{word!r} is neither the beginning of an ID nor a file")
    return path


def _coloured(kind: str, text: str) -> str:
    return click.style(text, fg=_COLOURS.get(kind), bold=kind == "head")


def _one(
    asked: Asked, trace_id: str, dataflow: str | None, through: Sequence[str]
) -> tuple[Trace, TracePath | None]:
    """Return the trace that is meant, and the figures of its path. Raises ClickException."""
    wanted = trace_id.lower()
    answers = ask(
        asked,
        lambda source: source.traces(
            dataflow, id=wanted, slow=not wanted, through=through, limit=2, spans=True
        ),
        dataflow,
    )
    for answer in answers:
        warn_missing(answer.missing)
    traces = [trace for answer in answers for trace in answer.traces]
    if not traces:
        what = f"whose id begins with {trace_id!r}" if trace_id else "that matches"
        raise click.ClickException(
            f"no trace is kept {what}; `dora trace list` shows those that are, and of the others "
            "only figures are kept, which `dora trace paths` shows"
        )
    if wanted and len({trace.id for trace in traces}) > 1:
        ids = ", ".join(trace.id[: SHORT_ID * 2] for trace in traces)
        raise click.ClickException(f"several ids begin with {trace_id!r}, such as {ids}")
    trace = max(traces, key=lambda each: each.duration)
    figures = ask(asked, lambda source: source.trace_paths(dataflow), dataflow)
    known = {(each.dataflow, each.path): each for answer in figures for each in answer.paths}
    return trace, known.get((trace.dataflow, trace.path))


@click.command(epilog=EXPORT_EPILOG)
@recordings_argument
@click.option(
    "--perfetto",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="Write FILE in Perfetto's format.",
)
@dataflow_option
@slow_option
@failed_option
@through_option
@min_option
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1, max=20_000),
    default=5000,
    help="Number of traces at most; default 5000.",
)
def export(
    files: tuple[Path, ...],
    *,
    perfetto: Path,
    dataflow: str | None,
    slow: bool,
    failed: bool,
    through: tuple[str, ...],
    min_duration: float,
    limit: int,
) -> int:
    """Write the kept traces to a file; with FILE, those of recordings."""
    from dorad.record.export.perfetto import perfetto as encoded

    asked, answers = ask_all(
        lambda source: source.traces(
            dataflow,
            through=through,
            slow=slow,
            troubled=failed,
            min_duration=min_duration,
            limit=limit,
            spans=True,
        ),
        dataflow,
        files,
    )
    traces = [trace for answer in answers for trace in answer.traces]
    if not traces:
        raise click.ClickException("no trace is kept that matches; no file was written")
    try:
        perfetto.write_bytes(b"".join(encoded(traces)))
    except OSError as error:
        raise click.ClickException(f"cannot write {perfetto}: {error.strerror}") from error
    file = visible(str(perfetto))
    click.echo(f"{len(traces)} traces are in {file}; https://ui.perfetto.dev opens it")
    if left_out := sum(answer.left_out for answer in answers):
        print_note(f"{left_out} more traces are kept; use --limit or a filter")
    return print_losses(asked, answers)
