"""`dora trace list` and `dora trace paths`: traces, and figures of the paths of messages."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.select import dataflow_option
from dorad.cli.trace import ask_all, dataflow_title, print_losses, recordings_argument
from dorad.commandline.complete import node_names
from dorad.commandline.durations import Duration
from dorad.commandline.reports import print_note
from dorad.commandline.tables import format_option, plain, print_lines, print_table
from dorad.terminal import local_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dorad.control.messages import Trace, TracePath

LIST_EPILOG = """\b
Examples:
  dora trace list                         the latest messages, with all that followed from each
  dora trace list --slow -n 5             the five slowest
  dora trace list --failed                those in which a message was dropped, or a node failed
  dora trace list --through detector --min-duration 50ms -f json
  dora trace list day.mcap --slow         of a recording, which keeps what nodes did

\b
A trace begins with a tick, or with a message that a node sends of its own accord. Kept are the
slowest of each path, those with drops or failures, and one a second of each path.
"""

PATHS_EPILOG = """\b
Examples:
  dora trace paths
  dora trace paths --through planner -f json
  dora trace paths recordings/incidents/20260501-101500-3f2a

\b
wait       share of the time in which the receiver was busy with something else
work       share in which nodes worked on the message
transport  share between sending and receiving in which the receiver was not busy

It counts all messages, not only those whose traces are kept.
"""

through_option = click.option(
    "--through",
    metavar="NODE|TOPIC",
    multiple=True,
    shell_complete=node_names,
    help="Only what passes this node, or this output as `node/output`; can be repeated.",
)
slow_option = click.option("--slow", is_flag=True, help="The slowest first.")
failed_option = click.option(
    "--failed", is_flag=True, help="Only those with dropped messages or failed nodes."
)
min_option = click.option(
    "--min-duration",
    type=Duration(minimum=0),
    default=0.0,
    metavar="DURATION",
    help="Only those that took at least so long, such as 50ms.",
)
LIST_COLUMNS = ("TRACE ID", "PATH", "SPANS", "STARTED", "DURATION", "PROBLEMS")
PATH_COLUMNS = ("PATH", "COUNT", "P50 ms", "P99 ms", "WORST ms", "WAIT", "WORK", "TRANSPORT")
SHORT_ID = 8


@click.command("list", epilog=LIST_EPILOG)
@recordings_argument
@dataflow_option
@slow_option
@failed_option
@through_option
@min_option
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, help="Number of traces; default 20."
)
@format_option
def list_traces(
    files: tuple[Path, ...],
    *,
    dataflow: str | None,
    slow: bool,
    failed: bool,
    through: tuple[str, ...],
    min_duration: float,
    limit: int,
    style: str,
) -> int:
    """List traces, the newest first: messages with all that followed from them.

    With FILE, those in recordings, or in the folder of an incident.
    """
    asked, answers = ask_all(
        lambda source: source.traces(
            dataflow,
            through=through,
            slow=slow,
            troubled=failed,
            min_duration=min_duration,
            limit=limit,
        ),
        dataflow,
        files,
    )
    key: Callable[[Trace], float] = (lambda t: -t.duration) if slow else (lambda t: -t.start)
    traces = sorted((trace for answer in answers for trace in answer.traces), key=key)
    left_out = sum(answer.left_out for answer in answers) + len(traces[limit:])
    if style == "json":
        print_lines(map(trace_json, traces[:limit]))
        return print_losses(asked, answers)
    several = len({(trace.machine, trace.dataflow) for trace in traces}) > 1
    print_table(
        (*LIST_COLUMNS, "DATAFLOW") if several else LIST_COLUMNS,
        (_list_row(trace, several=several) for trace in traces[:limit]),
    )
    if left_out:
        print_note(f"{left_out} more traces are kept; use --limit or a filter to see them")
    return print_losses(asked, answers)


def _list_row(trace: Trace, *, several: bool) -> Sequence[str]:
    from dorad.trace.waterfall import problems

    row = (
        trace.id[:SHORT_ID],
        shown_path(trace.path),
        str(trace.span_count),
        local_time(trace.start, "%H:%M:%S") + f"{trace.start % 1:.3f}"[1:],
        f"{trace.duration * 1e3:.3f} ms",
        problems(trace),
    )
    title = dataflow_title(trace.dataflow_name, trace.dataflow, trace.machine)
    return (*row, title) if several else row


def trace_json(trace: Trace) -> dict[str, Any]:
    """Return a trace without its spans for JSON."""
    return {
        "trace_id": trace.id,
        "dataflow": trace.dataflow,
        "name": trace.dataflow_name,
        "machine": trace.machine,
        "path": trace.path,
        "spans": trace.span_count,
        "started": trace.start,
        "duration_ms": trace.duration * 1e3,
        "dropped": trace.dropped,
        "failed": trace.failed,
        "complete": not (trace.cut or trace.running or trace.gaps),
        "missing_parts": plain(trace.gaps),
        "clocks_ms": {name: each.offset * 1e3 for name, each in trace.clocks.items()},
    }


def can_show(text: str) -> bool:
    """Return True if standard output can show a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def shown_path(path: str) -> str:
    """Return a path as standard output can show it."""
    from dorad.trace.waterfall import for_terminal

    return for_terminal(path, unicode=can_show("→"))


@click.command(epilog=PATHS_EPILOG)
@recordings_argument
@dataflow_option
@through_option
@format_option
def paths(
    files: tuple[Path, ...], *, dataflow: str | None, through: tuple[str, ...], style: str
) -> int:
    """Show how long messages take on each path, where their time goes, and the slowest trace.

    With FILE, in recordings, or in the folder of an incident.
    """
    asked, answers = ask_all(
        lambda source: source.trace_paths(dataflow, through=through), dataflow, files
    )
    known = sorted((path for answer in answers for path in answer.paths), key=lambda p: -p.p99)
    if style == "json":
        print_lines(map(_path_json, known))
        return print_losses(asked, answers)
    several = len({(path.machine, path.dataflow) for path in known}) > 1
    columns = (*PATH_COLUMNS, "WORST TRACE", *(["DATAFLOW"] if several else []))
    print_table(columns, (_path_row(path, several=several) for path in known))
    if any(path.kept_only for path in known):
        print_note("figures of paths over several machines are those of kept traces only")
    left_out = sum(answer.left_out for answer in answers)
    if left_out:
        print_note(f"{left_out} messages took other paths; there are too many to list")
    return print_losses(asked, answers)


def _path_row(path: TracePath, *, several: bool) -> Sequence[str]:
    row = (
        shown_path(path.path),
        str(path.count),
        *(f"{seconds * 1e3:.3f}" for seconds in (path.p50, path.p99, path.worst)),
        *(f"{share:.0%}" for share in (path.wait, path.work, path.transport)),
        path.worst_id[:SHORT_ID],
    )
    title = dataflow_title(path.dataflow_name, path.dataflow, path.machine)
    return (*row, title) if several else row


def _path_json(path: TracePath) -> dict[str, Any]:
    return {
        "dataflow": path.dataflow,
        "name": path.dataflow_name,
        "machine": path.machine,
        "path": path.path,
        "count": path.count,
        "p50_ms": path.p50 * 1e3,
        "p99_ms": path.p99 * 1e3,
        "worst_ms": path.worst * 1e3,
        "wait": path.wait,
        "work": path.work,
        "transport": path.transport,
        "worst_trace_id": path.worst_id,
        "kept_only": path.kept_only,
    }
