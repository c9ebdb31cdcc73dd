"""Traces over several machines: each machine has its part, by its own clock; here they become one.

A message that goes over a link ends a part, at the node `LINK`, and begins another one on the other
machine. Clocks are compared as links measure it. A message that would arrive before it was sent
shows that this was not exact: then the clock is taken to be as near to the measured one as all
messages of the trace allow. So no hop is negative, and times on one machine keep their differences.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from dorad.control import messages as m
from dorad.dataflow.model import LINK
from dorad.trace.build import ARROW

MAX_MACHINES = 8
"""Machines of one trace; parts on further ones stay traces of their own."""
MAX_PARTS = 64
"""Parts of one trace, likewise."""

_UNBOUND = float("-inf")
_ROUNDING_S = 2e-6
"""A few of the smallest differences of seconds since 1970."""

_Key = tuple[str, str, str, int]
"""A message over a link: dataflow, receiving machine, topic, timestamp."""


class Part(NamedTuple):
    """What one machine knows of a trace, with its spans."""

    machine: str
    trace: m.Trace


class Joined(NamedTuple):
    """A whole trace, and the parts that it was made of."""

    trace: m.Trace
    parts: list[Part]


class _Hop(NamedTuple):
    """A message over a link: the places of the parts, and of the span of the link in the first."""

    before: int
    span: int
    after: int


def _sent(part: Part) -> Iterator[tuple[_Key, int]]:
    """Yield what a part has sent to other machines, and the places of the spans."""
    for place, span in enumerate(part.trace.spans):
        if span.node == LINK and span.outcome != "dropped":
            # The inputs of a link are named after the machine and the topic.
            machine = span.input.removesuffix(f"/{span.topic}")
            yield (part.trace.dataflow, machine, span.topic, span.stamp), place


def _begins(part: Part) -> _Key | None:
    """Return the message from another machine that a part begins with, if it does."""
    if not part.trace.spans or not (first := part.trace.spans[0]).remote:
        return None
    return part.trace.dataflow, part.machine, first.topic, first.stamp


def lacking(parts: Iterable[Part]) -> set[tuple[str, str, int]]:
    """Return dataflow, topic and timestamp of messages between these parts and others.

    Not all of them exist: a machine keeps some of its traces only.
    """
    ends: set[_Key] = set()
    for part in parts:
        own = {key for key, _ in _sent(part)}
        if (begin := _begins(part)) is not None:
            own.add(begin)
        ends ^= own  # both ends of a message are here, or one
    return {(flow, topic, stamp) for flow, _, topic, stamp in ends}


def join(parts: Sequence[Part]) -> list[Joined]:
    """Return whole traces. A part without the others is a trace of its own."""
    begun = {key: place for place, part in enumerate(parts) if (key := _begins(part)) is not None}
    hops: dict[int, list[_Hop]] = defaultdict(list)
    later: set[int] = set()
    for place, part in enumerate(parts):
        first = part.trace.spans[0] if part.trace.spans else None
        for key, span in _sent(part):
            after = begun.get(key)
            # Timestamps grow along a chain, so it has no circle whatever machines say.
            grows = first is not None and (not first.remote or first.stamp < key[3])
            if after is not None and grows and after not in later:
                later.add(after)
                hops[place].append(_Hop(place, span, after))
    joined = []
    begins = deque(place for place in range(len(parts)) if place not in later)
    while begins:
        chosen, used, left = _group(begins.popleft(), parts, hops)
        begins += left
        if not used:
            trace = replace(parts[chosen[0]].trace, machine=parts[chosen[0]].machine)
        else:
            trace = _whole(parts, chosen, used)
        trace.gaps = _gaps(parts, chosen, used)
        joined.append(Joined(trace, [parts[place] for place in chosen]))
    return joined


def _group(
    first: int, parts: Sequence[Part], hops: Mapping[int, Sequence[_Hop]]
) -> tuple[list[int], list[_Hop], list[int]]:
    """Return the parts of a trace in order, their hops, and the parts that are too many."""
    chosen, used, left = [first], [], []
    machines = {parts[first].machine}
    for place in chosen:
        for hop in hops.get(place, ()):
            machine = parts[hop.after].machine
            many = machine not in machines and len(machines) >= MAX_MACHINES
            if many or len(chosen) >= MAX_PARTS:
                left.append(hop.after)
                continue
            machines.add(machine)
            chosen.append(hop.after)
            used.append(hop)
    return chosen, used, left


def _gaps(parts: Sequence[Part], chosen: Sequence[int], hops: Sequence[_Hop]) -> list[m.TraceGap]:
    """Return the parts before and after these that are missing."""
    gaps = []
    if (begin := _begins(parts[chosen[0]])) is not None:
        _, _, topic, stamp = begin
        origin = parts[chosen[0]].trace.origin
        machine = "" if origin is None else origin.machine
        gaps.append(m.TraceGap(topic=topic, stamp=stamp, machine=machine, incoming=True))
    over = {(hop.before, hop.span) for hop in hops}
    for place in chosen:
        for (_, machine, topic, stamp), span in _sent(parts[place]):
            if (place, span) not in over:
                gaps.append(m.TraceGap(topic=topic, stamp=stamp, machine=machine))
    return gaps


class _Bounds:
    """What is known of the shifts of a few clocks: `least[u][v]` bounds v's minus u's."""

    def __init__(self, size: int) -> None:
        self._least = [[_UNBOUND] * size for _ in range(size)]
        for each in range(size):
            self._least[each][each] = 0.0

    def add(self, before: int, after: int, least: float) -> None:
        """Take that the shift of `after` is that of `before` and at least so much."""
        rows = self._least
        if least <= rows[before][after]:
            return
        for row in rows:
            through = row[before] + least
            for place, known in enumerate(rows[after]):
                row[place] = max(row[place], through + known)

    @property
    def possible(self) -> bool:
        """Whether any clocks agree with it."""
        return all(row[each] <= _ROUNDING_S for each, row in enumerate(self._least))

    def nearest(self, machine: int, wanted: float) -> float:
        """Return the possible shift that is nearest to a wanted one, of machine 0's clock."""
        least, most = self._least[0][machine], -self._least[machine][0]
        return max(least, min(most, wanted))

    def fix(self, machine: int, shift: float) -> None:
        """Take a possible shift as given."""
        self.add(0, machine, shift)
        self.add(machine, 0, -shift)


class _Clocks(NamedTuple):
    """What to add to the times of each part, and the clocks of machines for people."""

    shifts: dict[int, float]
    shown: dict[str, m.TraceClock]


def _compare(parts: Sequence[Part], chosen: Sequence[int], hops: Sequence[_Hop]) -> _Clocks:
    """Return clocks by which no message arrives before it was sent."""
    numbers: dict[str, int] = {}
    for place in chosen:
        numbers.setdefault(parts[place].machine, len(numbers))
    bounds = _Bounds(len(numbers))
    gaps = {hop: _gap(parts, hop) for hop in hops}
    for hop, gap in gaps.items():
        before, after = (numbers[parts[place].machine] for place in (hop.before, hop.after))
        if gap is not None and before != after:
            bounds.add(before, after, gap)
    first = parts[chosen[0]].machine
    known: dict[str, tuple[float, m.TraceClock]] = {first: (0.0, m.TraceClock(0.0, 0.0))}
    shifts = {chosen[0]: 0.0}
    for hop in hops:
        machine, gap = parts[hop.after].machine, gaps[hop]
        if machine not in known:
            shift, clock = known[parts[hop.before].machine]
            origin = parts[hop.after].trace.origin
            ahead = None if origin is None else origin.clock
            wanted = shift + (ahead or 0.0)
            margin = clock.margin + (0.0 if origin is None else origin.margin)
            if bounds.possible:
                used = bounds.nearest(numbers[machine], wanted)
                bounds.fix(numbers[machine], used)
            else:
                used = wanted
            measured = None if ahead is None or clock.measured is None else -wanted
            known[machine] = used, m.TraceClock(-used, measured, margin)
        shifts[hop.after] = known[machine][0]
        if gap is not None:
            # Only if records contradict each other, or by what rounding takes away.
            shifts[hop.after] = max(shifts[hop.after], shifts[hop.before] + gap)
    shown = {name: clock for name, (_, clock) in known.items() if name != first}
    return _Clocks(shifts, shown)


def _gap(parts: Sequence[Part], hop: _Hop) -> float | None:
    """Return by how much later a message must arrive than the clocks say; None if it has not."""
    before, after = parts[hop.before].trace, parts[hop.after].trace
    span = before.spans[hop.span]
    sent = max(span.sent, span.received or span.sent)
    arrived = [
        each.done if each.received is None else each.received
        for each in after.spans
        if each.parent is None
    ]
    times = [each for each in arrived if each is not None]
    return (before.start - after.start) + sent - min(times) if times else None


def _whole(parts: Sequence[Part], chosen: Sequence[int], hops: Sequence[_Hop]) -> m.Trace:
    clocks = _compare(parts, chosen, hops)
    over = {(hop.before, hop.span) for hop in hops}
    came = {hop.after: hop for hop in hops}
    begin = parts[chosen[0]].trace
    spans: list[m.Span] = []
    places: dict[tuple[int, int], int | None] = {}
    """The places in the whole trace, by part and place there; a link's is that of its cause."""
    ways: dict[tuple[int, int], float] = {}
    """When what went over a link was sent."""
    for number in chosen:
        machine, trace = parts[number]
        base = (trace.start - begin.start) + clocks.shifts[number]
        hop = came.get(number)
        for place, span in enumerate(trace.spans):
            parent = None
            sent = base + span.sent
            if span.parent is not None:
                parent = places[number, span.parent]
            elif hop is not None:
                parent = places[hop.before, hop.span]
                sent = ways[hop.before, hop.span]
            if (number, place) in over:
                places[number, place], ways[number, place] = parent, sent
                continue
            places[number, place] = len(spans)
            spans.append(_moved(span, base, sent, parent, machine))
    known = [parts[number].trace for number in chosen]
    end, path = _slowest(spans)
    return replace(
        begin,
        duration=end,
        path=path,
        span_count=sum(each.span_count for each in known) - len(hops),
        dropped=sum(each.dropped for each in known),
        failed=sum(each.failed for each in known),
        running=any(each.running for each in known),
        left_out=sum(each.left_out for each in known),
        spans=spans,
        clocks=clocks.shown,
    )


def _moved(span: m.Span, base: float, sent: float, parent: int | None, machine: str) -> m.Span:
    received = None if span.received is None else max(sent, base + span.received)
    done = None if span.done is None else max(received or sent, base + span.done)
    wait = 0.0
    if received is not None and span.wait:
        wait = min(received - sent, max(0.0, base + span.sent + span.wait - sent))
    return replace(
        span,
        sent=sent,
        parent=parent,
        received=received,
        done=done,
        wait=wait,
        machine=machine,
    )


def _slowest(spans: Sequence[m.Span]) -> tuple[float, str]:
    """Return when the last receiver was done, and the way there."""
    best = max((each for each in spans if each.received is not None), key=_end, default=None)
    if best is None:
        return 0.0, spans[0].topic if spans else ""
    end = _end(best)
    way = [best]
    while (parent := way[-1].parent) is not None:
        way.append(spans[parent])
    return end, ARROW.join([way[-1].topic, *(each.node for each in reversed(way))])


def _end(span: m.Span) -> float:
    """Return when a receiver was done, or had a message at least."""
    return (span.received or 0.0) if span.done is None else span.done


def paths(traces: Iterable[m.Trace]) -> list[m.TracePath]:
    """Return the figures of paths over several machines, of complete traces with their spans."""
    by_path: dict[tuple[str, str], list[m.Trace]] = defaultdict(list)
    for trace in traces:
        if trace.clocks and not (trace.cut or trace.running or trace.origin):
            by_path[trace.dataflow, trace.path].append(trace)
    return [_figures(each) for each in by_path.values()]


def _figures(traces: list[m.Trace]) -> m.TracePath:
    traces.sort(key=lambda each: each.duration)
    worst, count = traces[-1], len(traces)
    total = sum(each.duration for each in traces) or 1.0
    wait, work = map(sum, zip(*map(_shares, traces), strict=True))
    return m.TracePath(
        dataflow=worst.dataflow,
        path=worst.path,
        count=count,
        p50=traces[(count * 50 + 99) // 100 - 1].duration,
        p99=traces[(count * 99 + 99) // 100 - 1].duration,
        worst=worst.duration,
        wait=min(1.0, wait / total),
        work=min(1.0, work / total),
        transport=min(1.0, max(0.0, 1 - (wait + work) / total)),
        worst_id=worst.id,
        dataflow_name=worst.dataflow_name,
        kept_only=True,
    )


def _shares(trace: m.Trace) -> tuple[float, float]:
    """Return the seconds of waiting and of work on the slowest way of a trace."""
    spans = trace.spans
    place = max(
        (place for place, each in enumerate(spans) if each.received is not None),
        key=lambda place: _end(spans[place]),
    )
    wait = work = 0.0
    end = trace.duration
    at: int | None = place
    while at is not None:
        span = spans[at]
        wait += span.wait
        work += max(0.0, end - (end if span.received is None else span.received))
        end, at = span.sent, span.parent
    return wait, work
