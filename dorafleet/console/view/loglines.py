"""Log lines: their cells for a filter, and as spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dorad.terminal import local_time
from dorafleet.console.view.words import clean, fit

if TYPE_CHECKING:
    from dorad.control.messages import LogRecord
    from dorafleet.console.view.rows import Span

MAX_MESSAGE = 2000
"""Characters of a message that are shown."""

MAX_KEPT = 10_000
"""Characters of a message that are kept, and that a filter sees."""

_STYLES = {
    "error": "fail",
    "warn": "warn",
    "info": "",
    "debug": "dim",
    "trace": "dim",
}


def shortened(line: LogRecord) -> LogRecord:
    """Return a line as it is kept: nodes may write lines of a megabyte, and fields of that size."""
    if len(line.message) <= MAX_KEPT and line.fields is None:
        return line
    return msgspec.structs.replace(line, message=line.message[:MAX_KEPT], fields=None)


def spans(line: LogRecord, *, names: int, machines: int) -> list[Span]:
    """Return a line; `names` and `machines` are the widths of these columns, 0 for none."""
    clock = local_time(line.timestamp, "%H:%M:%S", "--:--:--")
    clock += f".{int(line.timestamp % 1 * 1000):03}"
    style = _STYLES.get(line.level, "")
    level = "out" if line.level == "stdout" else line.level.upper()
    found: list[Span] = [(f" {clock} ", "dim"), (fit(level, 5) + " ", style or "ok")]
    if machines:
        found.append((fit(clean(line.machine or "-"), machines) + " ", "update"))
    found.append((fit(clean(line.node or "dora"), names) + " ", "name"))
    text = line.message.rstrip("\n")[:MAX_MESSAGE]
    found.append((clean(text), style))
    return found
