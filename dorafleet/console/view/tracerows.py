"""Traces of messages as rows, and one as a waterfall."""

from msgspec.structs import replace

from dorad.control.filters import Value
from dorad.control.messages import Trace, TraceCounts, TracePath
from dorad.terminal import local_time
from dorad.trace.build import ARROW
from dorad.trace.waterfall import duration_text, for_terminal, parts, problems
from dorafleet.console.view import words
from dorafleet.console.view.rows import Cell, Column, Row, Span

COLUMNS = (
    Column("duration", "DURATION", 10, right=True),
    Column("path", "PATH", 30, grow=4),
    Column("problems", "PROBLEMS", 12, grow=1),
    Column("started", "STARTED", 12, drop=1),
    Column("spans", "SPANS", 5, right=True, drop=3),
    Column("robot", "ROBOT", 8, most=24, drop=4),
    Column("trace", "TRACE", 8, drop=2),
)
KEYS = tuple(column.key for column in COLUMNS)
SHORT_ID = 8
MAX_SPANS = 300
"""Spans of a trace that are shown."""

_STYLES = {
    "process": "ok",
    "wait": "warn",
    "late": "warn",
    "failed": "fail",
    "trouble": "fail",
    "transport": "dim",
    "head": "name",
}


def trace_id(trace: Trace) -> str:
    """Return what names a trace on a screen: each machine has its own part of it."""
    return f"{trace.machine or ''} {trace.id}"


def row(trace: Trace, *, ascii_only: bool) -> Row:
    """Return the row of a trace."""
    wrong = problems(trace)
    bad = bool(trace.failed or trace.dropped)
    return Row(
        trace_id(trace),
        (
            Cell(for_terminal(duration_text(trace.duration), unicode=not ascii_only), "name"),
            Cell(for_terminal(trace.path, unicode=not ascii_only)),
            Cell(wrong, "fail" if trace.failed else "warn" if bad else "dim"),
            Cell(local_time(trace.start, "%H:%M:%S") + f"{trace.start % 1:.3f}"[1:]),
            Cell(str(trace.span_count)),
            Cell(trace.machine or "-"),
            Cell(trace.id[:SHORT_ID], "dim"),
        ),
    )


def cells(trace: Trace) -> dict[str, Value]:
    """Return the cells by which traces are filtered."""
    return {
        "duration": trace.duration,
        "path": trace.path,
        "problems": problems(trace),
        "started": local_time(trace.start, "%H:%M:%S"),
        "spans": trace.span_count,
        "robot": trace.machine or "",
        "trace": trace.id,
    }


def losses(counts: TraceCounts) -> str:
    """Return how many records of nodes the traces lack, with the reasons; empty for none."""
    reasons = {
        "overwritten": counts.overwritten,
        "not read": counts.skipped,
        "not valid": counts.damaged + counts.unknown,
    }
    told = [f"{words.count(number)} {reason}" for reason, number in reasons.items() if number]
    return f"records {', '.join(told)}" if told else ""


def last_node(trace: Trace) -> str:
    """Return the node at the end of the way that took longest."""
    return trace.path.rpartition(ARROW)[2] if ARROW in trace.path else ""


def waterfall(
    trace: Trace, path: TracePath | None, columns: int, *, ascii_only: bool
) -> list[list[Span]]:
    """Return the lines of a trace, where its time went."""
    left_out = trace.left_out + max(0, len(trace.spans) - MAX_SPANS)
    trace = replace(trace, spans=trace.spans[:MAX_SPANS], left_out=left_out)
    lines = parts(trace, columns - 2, path=path, unicode=not ascii_only)
    return [[(" ", ""), *((text, _STYLES.get(kind, "")) for text, kind in line)] for line in lines]
