"""Log lines: their cells for a filter, and as spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dorad.logrecord import RAW
from dorad.natural import natural_item
from dorad.phrases import first_of
from dorad.terminal import local_time
from dorafleet.console.view.words import age, clean, fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.control.messages import LogRecord
    from dorafleet.console.view.rows import Span

MAX_MESSAGE = 2000
"""Characters of a message that are shown."""

MAX_KEPT = 10_000
"""Characters of a message that are kept, and that a filter sees."""

MIN_SKEW_S = 10.0
"""A clock that is less off is not reported."""
MAX_NAMED = 3
"""Robots whose clocks are reported."""
DAY = "%Y-%m-%d"

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


def are_of_today(times: Iterable[float], now: float) -> bool:
    """Return True if all these times, in seconds since 1970, are of the day of `now`."""
    return {local_time(each, DAY) for each in times} <= {local_time(now, DAY)}


def clocks(skew: Mapping[str, float]) -> list[list[Span]]:
    """Return a line about the clocks that are off, which are those of `skew` seconds ahead."""
    wrong = {robot: ahead for robot, ahead in skew.items() if abs(ahead) >= MIN_SKEW_S}
    if not wrong:
        return []
    named = (
        f"{clean(robot)} is {age(abs(ahead))} {'fast' if ahead > 0 else 'slow'}"
        for robot, ahead in sorted(wrong.items(), key=natural_item)
    )
    text = f" ! clock of {first_of(named, MAX_NAMED)}; lines show the time of their robot"
    return [[(text, "warn")]]


def spans(line: LogRecord, *, names: int, machines: int, dated: bool) -> list[Span]:
    """Return a line; `names` and `machines` are the widths of these columns, 0 for none."""
    day = "%m-%d " if dated else ""
    clock = local_time(line.timestamp, f"{day}%H:%M:%S", "--:--:--")
    clock += f".{int(line.timestamp % 1 * 1000):03}"
    style = _STYLES.get(line.level, "")
    level = line.stream.removeprefix("std") if line.level == RAW else line.level.upper()
    found: list[Span] = [(f" {clock} ", "dim"), (fit(level, 5) + " ", style or "ok")]
    if machines:
        found.append((fit(clean(line.machine or "-"), machines) + " ", "update"))
    found.append((fit(clean(line.node or "dora"), names) + " ", "name"))
    text = line.message.rstrip("\n")[:MAX_MESSAGE]
    found.append((clean(text), style))
    return found
