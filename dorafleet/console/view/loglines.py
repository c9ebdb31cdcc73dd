"""Log lines as spans, below each other or side by side, and one of them in full."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from dorad.control.messages import LogRecord
from dorad.logrecord import RAW, size
from dorad.natural import natural_item
from dorad.phrases import first_of
from dorad.terminal import local_time
from dorafleet.console.model.logwindow import Entry
from dorafleet.console.view.rows import Span
from dorafleet.console.view.words import age, clean, fit

MAX_MESSAGE = 2000
"""Characters of a message that are shown."""

MAX_KEPT = 10_000
"""Characters of a message with its fields that are kept, and that a filter sees."""
MAX_DETAILS = 8
"""Lines that show one whole message."""
MAX_FIELDS = 12
MAX_NAME = 24
"""Fields that are shown of a line, and the columns for their names."""
MIN_BESIDE = 16
"""Columns of one of several nodes beside each other."""

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
    if size(line) <= MAX_KEPT:
        return line
    fields = line.fields and {"fields": "left out: they are too long"}
    return msgspec.structs.replace(line, message=line.message[:MAX_KEPT], fields=fields)


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


class LineLook(NamedTuple):
    """How lines are shown."""

    names: int
    """Columns for the node."""
    machines: int = 0
    """Columns for the machine; 0 for none."""
    dated: bool = False
    needle: str = ""
    """The text that is marked, in lower case."""
    beside: tuple[str, ...] = ()
    """The nodes that have a column each; none shows all lines below each other."""
    columns: int = 80
    """Columns of the terminal."""


def spans(entry: Entry, look: LineLook) -> list[Span]:
    """Return a line: its time, level, machine and node, and what it says."""
    line = entry.record
    clock: Span = (f" {clock_of(line.timestamp, dated=look.dated)} ", "dim")
    style = "fail" if entry.failed else _STYLES.get(line.level, "")
    text = clean(line.message.rstrip("\n")[:MAX_MESSAGE])
    if entry.count > 1:
        text += f"  (x{entry.count}, until {local_time(entry.last, '%H:%M:%S')})"
    if line.node in look.beside:
        wide = max(MIN_BESIDE, (look.columns - len(clock[0])) // len(look.beside))
        left = look.beside.index(line.node) * wide
        return [clock, (" " * left, ""), *marked(fit(text, wide - 1), style, look.needle)]
    level = line.stream.removeprefix("std") if line.level == RAW else line.level.upper()
    parts: list[Span] = [clock, (fit(level, 5) + " ", style or "dim")]
    if look.machines:
        parts.append((fit(clean(line.machine or "-"), look.machines) + " ", "update"))
    parts.append((fit(clean(line.node or "dora"), look.names) + " ", "name"))
    return parts + marked(text, style, look.needle)


def clock_of(at: float, *, dated: bool) -> str:
    """Return the time of a line with milliseconds, and with its day if it is `dated`."""
    clock = local_time(at, f"{'%m-%d ' if dated else ''}%H:%M:%S", "--:--:--")
    return clock + f".{int(at % 1 * 1000):03}"


def marked(text: str, style: str, needle: str) -> list[Span]:
    """Return a text in which all places of `needle`, in lower case, are marked."""
    parts: list[Span] = []
    lower, at = text.lower(), 0
    # Some letters are longer in lower case: then the places are not those of the text.
    while needle and len(lower) == len(text) and (place := lower.find(needle, at)) >= 0:
        parts += [(text[at:place], style), (text[place : place + len(needle)], "found")]
        at = place + len(needle)
    return [*(each for each in parts if each[0]), (text[at:], style)]


def details(entry: Entry, columns: int) -> list[list[Span]]:
    """Return everything about a line: its whole text, its fields, and where it was written."""
    line, wide = entry.record, max(columns - 2, 20)
    facts = {"target": line.target, "file": line.file and f"{line.file}:{line.line or '-'}"}
    fields = line.fields if line.fields is not None else _fields_in(line.message)
    shown: list[list[Span]] = [[(" " + "-" * wide, "rule")]]
    shown += [
        [(" " + part, "fail" if entry.failed else "")]
        for part in textwrap.wrap(clean(line.message), wide)[:MAX_DETAILS]
    ]
    named = [(name, str(value)) for name, value in facts.items() if value]
    named += [(name, _value(value)) for name, value in list(fields.items())[:MAX_FIELDS]]
    width_ = min(max((len(clean(name)) for name, _ in named), default=0), MAX_NAME)
    for name, value in named:
        shown.append([(f" {fit(clean(name), width_)} ", "dim"), (clean(value), "")])
    if len(fields) > MAX_FIELDS:
        shown.append([(f" and {len(fields) - MAX_FIELDS} more fields", "dim")])
    if not named:
        shown.append([(" it has no fields", "dim")])
    return shown


def _value(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fields_in(message: str) -> Mapping[str, object]:
    """Return the fields of a message that is a JSON object."""
    if not message.startswith("{"):
        return {}
    try:
        return msgspec.json.decode(message, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError):
        return {}
