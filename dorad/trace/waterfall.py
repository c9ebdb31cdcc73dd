"""A trace as a waterfall of text: a row for each way of a message, and each work of a node."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from dorad.control.messages import Span, Trace, TracePath
from dorad.terminal import visible
from dorad.trace.build import ARROW

Part: TypeAlias = "tuple[str, str]"
"""A text of a line, and its kind; an empty kind has no colour."""

MAX_ROWS = 200
MIN_CHART = 20
"""Columns of the chart; a narrower terminal wraps the lines."""
MIN_TICK = 9
"""Columns between two numbers of the scale, at least."""
MAX_SCALE = 1e12
"""Seconds up to which there is a scale; a robot may say anything."""
_MAX_LABEL = 24
_KIND = 9
_NUMBER = 9

_ASCII = str.maketrans(
    {"█": "#", "▌": "#", "░": "-", "·": ".", "└": "`", "✗": "x", "◀": "<", "⟵": "<", "→": ">",
     "…": "~", "µ": "u"}
)  # fmt: skip


def plain_style(_kind: str, text: str) -> str:
    """Return text as it is. Kinds are `process`, `wait`, `transport`, `trouble`, `head`."""
    return text


class Row(NamedTuple):
    """A line of the chart, from `begin` to `end`, seconds after the trace's start."""

    label: str
    kind: str
    begin: float
    end: float
    note: str = ""
    wait: float = 0.0
    """The part of a way, at its beginning, in which the receiver was busy."""
    goes_on: bool = False

    @property
    def seconds(self) -> float:
        """How long it is."""
        return max(0.0, self.end - self.begin)


class Unit(NamedTuple):
    """A unit of time that suits a duration."""

    name: str
    seconds: float

    def text(self, seconds: float) -> str:
        """Return a time without its unit."""
        value = seconds / self.seconds
        return f"{value:.1f}" if value < 9999.95 else f"{value:.0f}"


def unit_for(seconds: float) -> Unit:
    """Return the unit for times up to so many seconds."""
    if seconds < 0.001:
        return Unit("µs", 1e-6)
    return Unit("ms", 1e-3) if seconds < 10 else Unit("s", 1.0)


def for_terminal(text: str, *, unicode: bool) -> str:
    """Return text with the arrows and bars of a waterfall in ASCII, unless `unicode`."""
    return text if unicode else text.replace(ARROW, " -> ").translate(_ASCII)


def waterfall(
    trace: Trace,
    width: int,
    *,
    path: TracePath | None = None,
    unicode: bool = True,
    style: Callable[[str, str], str] = plain_style,
) -> list[str]:
    """Return the lines of a trace with its spans, `width` columns wide.

    `path` has the figures of its path. `style` gets the kind of each part of a line and its text,
    and returns the text with colours.
    """
    lines = parts(trace, width, path=path, unicode=unicode)
    return ["".join(style(kind, text) if kind else text for text, kind in line) for line in lines]


def parts(
    trace: Trace, width: int, *, path: TracePath | None = None, unicode: bool = True
) -> list[list[Part]]:
    """Return the lines of a waterfall as texts with their kinds; see `waterfall`."""
    lines: list[list[Part]] = [[(visible(_title(trace, path)), "head")]]
    everything = [
        row._replace(label=visible(row.label), note=visible(row.note)) for row in rows(trace)
    ]
    shown = everything[:MAX_ROWS]
    end = max((row.end for row in shown), default=0.0)
    unit = unit_for(end)
    label = min(_MAX_LABEL, max((len(row.label) for row in shown), default=0))
    notes = max((len(row.note) for row in shown), default=0)
    left = label + 1 + _KIND + 1
    chart = max(MIN_CHART, width - left - _NUMBER - min(notes + 2, width // 4) - 1)
    lines.append([(" " * left + _axis(end, chart, unit).rstrip(), "")])
    for row in shown:
        number = unit.text(row.seconds)
        note = f"  {row.note}" if row.note else ""
        room = max(0, width - left - chart - _NUMBER)
        if len(note) > room:
            note = note[: max(0, room - 1)] + "…" if room > 4 else ""
        lines.append(
            [
                (f"{_fitted(row.label, label)} {row.kind:<{_KIND}} ", ""),
                (_bar(row, end, chart), row.kind),
                (f"{number:>{_NUMBER}}{note}", ""),
            ]
        )
    if len(everything) > len(shown):
        lines.append([(f"… {len(everything) - len(shown)} more rows", "")])
    lines += [[(visible(text), "trouble")] for text in troubles(trace)]
    lines += [[(visible(text), "")] for text in clocks(trace)]
    return [[(for_terminal(text, unicode=unicode), kind) for text, kind in each] for each in lines]


def _title(trace: Trace, path: TracePath | None) -> str:
    parts = [trace.path, duration_text(trace.duration)]
    if path is not None and path.count > 1:
        unit = unit_for(path.worst)
        parts.append(f"(path p50 {unit.text(path.p50)}, p99 {unit.text(path.p99)} {unit.name})")
    parts.append(f"trace {trace.id[:8]}")
    return "   ".join(parts)


def duration_text(seconds: float) -> str:
    """Return a time with its unit."""
    unit = unit_for(seconds)
    return f"{unit.text(seconds)} {unit.name}"


def problems(trace: Trace) -> str:
    """Return what is wrong in a trace, in a few words."""
    parts = []
    if trace.failed:
        parts.append(f"{trace.failed} failed")
    if trace.dropped:
        parts.append(f"{trace.dropped} dropped")
    if trace.cut:
        parts.append("beginning unknown")
    if trace.running:
        parts.append("not done")
    if trace.gaps:
        parts.append(f"{len(trace.gaps)} parts missing")
    return ", ".join(parts) or "-"


def rows(trace: Trace) -> Iterator[Row]:
    """Yield the way of each message to its receiver, and the receiver's work on it."""
    before: int | None = None
    for place, span in enumerate(trace.spans):
        if span.outcome == "dropped":
            continue
        own = span.tick or (before is not None and span.parent == before)
        output = span.topic.partition("/")[2] if own else span.topic
        if span.received is None:
            if not span.node:
                continue
            yield Row(f" └{output}", "unknown", span.sent, span.sent, "received, not recorded")
        else:
            way = span.received - span.sent
            queued = f"◀ {span.queued} more queued" if span.queued else ""
            if not span.tick or way > 0.01 * trace.duration or queued:
                kind = "late" if span.tick else "wait" if span.wait * 2 > way else "transport"
                yield Row(f" └{output}", kind, span.sent, span.received, queued, span.wait)
            row = _work_row(trace, span)
            note = f"on {span.machine}" if span.machine else ""
            yield row._replace(note="  ".join(filter(None, (note, row.note))))
        before = place


def _work_row(trace: Trace, span: Span) -> Row:
    assert span.received is not None
    links = ", ".join(f"{each.topic} ({_age(each.age)})" for each in span.links)
    note = f"⟵ also {links}" if links else ""
    if span.done is not None:
        return Row(span.node, "process", span.received, span.done, note)
    last = max(
        max(each.sent, span.received) if each.topic.startswith(f"{span.node}/") else span.received
        for each in trace.spans
    )
    if span.outcome:
        text = "failed" if span.outcome == "failed" else "exited"
        return Row(span.node, text, span.received, last, note)
    return Row(span.node, "process", span.received, last, note or "still at work", goes_on=True)


def _age(seconds: float) -> str:
    return f"{duration_text(abs(seconds))} {'older' if seconds >= 0 else 'newer'}"


def troubles(trace: Trace) -> Iterator[str]:
    """Yield what went wrong, and what the trace lacks, as sentences."""
    for span in trace.spans:
        if span.outcome == "dropped":
            yield f"✗ {span.topic} dropped at {span.node}/{span.input} (its queue was full)"
        elif span.outcome == "failed":
            yield f"✗ {span.node} failed while it worked on {span.topic}"
        elif not span.node:
            yield f"… {span.topic}: no node has received it yet"
    if trace.cut:
        yield "… its beginning is unknown: those records were lost or skipped"
    for gap in trace.gaps:
        machine = gap.machine or "another machine"
        way = "came from" if gap.incoming else "went to"
        yield f"… {gap.topic} {way} {machine}, whose part of the trace is missing"
    if trace.left_out:
        yield f"… {trace.left_out} more spans are left out"


def clocks(trace: Trace) -> Iterator[str]:
    """Yield how the clocks of the machines of a trace differ, as sentences."""
    for machine, clock in trace.clocks.items():
        text = f"clock of {machine}: {_ahead(clock.offset)}"
        if clock.measured is None:
            yield f"{text}; its link has not measured it, so ways to it are only not negative"
        elif abs(clock.measured - clock.offset) > clock.margin + 1e-6:
            yield f"{text}, measured {_ahead(clock.measured)}, by which messages came too early"
        else:
            yield f"{text}, within {duration_text(clock.margin)}"
    if (origin := trace.origin) is not None:
        text = f"its first message came over a link from {origin.machine}"
        if origin.clock is None:
            yield text
        else:
            within = duration_text(origin.margin)
            yield f"{text}, whose clock is {_ahead(origin.clock)}, within {within}"


def _ahead(seconds: float) -> str:
    return f"{duration_text(abs(seconds))} {'ahead' if seconds >= 0 else 'behind'}"


def _fitted(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def _bar(row: Row, end: float, chart: int) -> str:
    """Return a row of the chart; a bar has half a column at least."""
    first = min(2 * chart - 1, math.floor(2 * chart * _share(row.begin, end)))
    last = max(first + 1, round(2 * chart * _share(row.end, end)))
    if row.kind in ("process", "failed", "exited"):
        begin, halves = first // 2, last - first // 2 * 2
        bar = "█" * (halves // 2) + "▌" * (halves % 2)
        if row.goes_on:
            bar = bar[:-1] + "…"
    else:
        begin = first // 2
        columns = max(1, -(-last // 2) - begin)
        waiting = round(columns * _share(row.wait, row.seconds))
        bar = "░" * waiting + "·" * (columns - waiting)
    return (" " * begin + bar).ljust(chart)


def _share(part: float, whole: float) -> float:
    """Return how much of a time a part of it is, from 0 to 1, whatever a robot says."""
    return min(max(0.0, part), whole) / whole if whole > 0 else 0.0


def _axis(end: float, chart: int, unit: Unit) -> str:
    """Return the scale: times above the columns where they are."""
    total = end / unit.seconds
    if total <= 0:
        return f"0 {unit.name}"
    if total > MAX_SCALE:
        return f"0 to {total:.3g} {unit.name}"
    power = math.floor(math.log10(total))
    step = next(
        part * 10.0**exponent
        for exponent in range(power - 3, power + 2)
        for part in (1, 2, 5)
        if chart * part * 10.0**exponent / total >= MIN_TICK
    )
    line = [" "] * (chart + _NUMBER)
    last = math.floor(total * 1.001 / step)
    for number in range(last + 1):
        text = f"{number * step:g}" + (f" {unit.name}" if number == last else "")
        at = round(number * step / total * chart)
        line[at : at + len(text)] = text
    return "".join(line)
