"""Log lines: their cells for a filter, and as spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.terminal import local_time
from dorafleet.console.view.words import clean, fit

if TYPE_CHECKING:
    from dorad.control.messages import LogRecord
    from dorafleet.console.view.rows import Span

MAX_MESSAGE = 2000
"""Characters of a message that are shown."""

_LEVELS = {"stdout": "out", "stderr": "err"}
"""What lines without a severity have instead."""
_STYLES = {
    "stderr": "warn",
    "error": "fail",
    "warn": "warn",
    "info": "",
    "debug": "dim",
    "trace": "dim",
}


def spans(line: LogRecord, *, names: int, machines: int) -> list[Span]:
    """Return a line; `names` and `machines` are the widths of these columns, 0 for none."""
    clock = local_time(line.timestamp, "%H:%M:%S", "--:--:--")
    clock += f".{int(line.timestamp % 1 * 1000):03}"
    style = _STYLES.get(line.level, "")
    level = _LEVELS.get(line.level, line.level.upper())
    found: list[Span] = [(f" {clock} ", "dim"), (fit(level, 5) + " ", style or "ok")]
    if machines:
        found.append((fit(clean(line.machine or "-"), machines) + " ", "update"))
    found.append((fit(clean(line.node or "dora"), names) + " ", "name"))
    text = line.message.rstrip("\n")[:MAX_MESSAGE]
    found.append((clean(text), style))
    return found
