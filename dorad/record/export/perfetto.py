"""Traces of messages as a file that ui.perfetto.dev opens: Perfetto's protobuf format.

Each dataflow is a process, each node a track with a slice for each message that it works on. Each
message is an arrow, from an instant in the slice of its sender to the slice of its receiver. See
`protos/perfetto/trace/` of Perfetto for the numbers of fields.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, NamedTuple

from dorad.record.encoding.protobuf import delimited, fixed64, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.control.messages import Span, Trace

_END, _BEGIN, _INSTANT = 0, 1, 2
_TYPES = {_BEGIN: 1, _END: 2, _INSTANT: 3}
"""TrackEvent.Type by the order of events with equal times."""
_SEQUENCE = 1
_SLACK_NS = 1000
"""Slices of one node that overlap by less do so because of rounding."""
_MASK = (1 << 64) - 1


class _Event(NamedTuple):
    """An event of a track, in the order of tracks, times and kinds."""

    track: int
    at: int
    kind: int
    body: bytes


class _Lanes:
    """The tracks of a node: its own, and further ones for messages that overlap in time."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def place(self, begin: int, end: int | None) -> tuple[int, int]:
        """Return the lane for a slice, and its beginning there."""
        until = _MASK if end is None else end
        for lane, free in enumerate(self.ends):
            if free - _SLACK_NS < begin:
                self.ends[lane] = until
                return lane, max(begin, free)
        self.ends.append(until)
        return len(self.ends) - 1, begin


class _Tracks:
    """The tracks of all nodes, and the packets that describe them."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self._known: dict[tuple[str, ...], int] = {}

    def process(self, name: str) -> int:
        """Return the track of a dataflow."""
        return self._track((name,), delimited(3, number(1, len(self._known) + 1) + _text(6, name)))

    def node(self, dataflow: str, node: str, lane: int) -> int:
        """Return a track of a node."""
        parent = number(5, self.process(dataflow))
        return self._track((dataflow, node, str(lane)), _text(2, node) + parent)

    def _track(self, key: tuple[str, ...], body: bytes) -> int:
        track = self._known.get(key)
        if track is None:
            track = self._known[key] = len(self._known) + 1
            self.packets.append(_packet(delimited(60, number(1, track) + body)))
        return track


def perfetto(traces: Sequence[Trace]) -> Iterator[bytes]:
    """Yield the parts of a file with traces that have their spans."""
    tracks = _Tracks()
    events: list[_Event] = []
    slices = [
        (round((trace.start + span.received) * 1e9), place, trace, span)
        for trace in traces
        for place, span in enumerate(trace.spans)
        if span.received is not None
    ]
    lanes: dict[tuple[str, str], _Lanes] = {}
    of_spans: dict[int, dict[int, int]] = {id(trace): {} for trace in traces}
    """By trace: the track of each span."""
    for begin, place, trace, span in sorted(slices, key=lambda each: each[0]):
        name = _process_name(trace)
        end = None if span.done is None else round((trace.start + span.done) * 1e9)
        end = None if end is None else max(end, begin + 1)
        lane, begin = lanes.setdefault((name, span.node), _Lanes()).place(begin, end)
        track = tracks.node(name, span.node, lane)
        of_spans[id(trace)][place] = track
        events += _slice_events(trace, place, span, track, begin, end)
    for trace in traces:
        events += _instants(trace, of_spans[id(trace)], tracks)
    yield _packet(number(13, 1))  # SEQ_INCREMENTAL_STATE_CLEARED
    yield from tracks.packets
    for event in sorted(events, key=lambda each: each[:3]):
        kind = number(9, _TYPES[event.kind]) + number(11, event.track)
        yield _packet(number(8, event.at) + delimited(11, kind + event.body))


def _slice_events(
    trace: Trace, place: int, span: Span, track: int, begin: int, end: int | None
) -> Iterator[_Event]:
    body = _text(23, f"{span.input} ← {span.topic}" if not span.tick else span.input)
    body += _annotation("trace", trace.id) + _annotation("queued", span.queued)
    body += _annotation("wait_ms", round(span.wait * 1e3, 6))
    for link in span.links:
        body += _annotation("also", link.topic)
    if not span.tick:
        body += fixed64(48, _flow(trace, place))
    yield _Event(track, begin, _BEGIN, body)
    if end is not None:
        yield _Event(track, max(end, begin + 1), _END, b"")


def _instants(trace: Trace, of_span: dict[int, int], tracks: _Tracks) -> Iterator[_Event]:
    """Yield the sending of each message, with its arrows, and what was dropped or has failed."""
    name = _process_name(trace)
    sent: dict[tuple[str, float], list[int]] = {}
    for place, span in enumerate(trace.spans):
        if not span.tick:
            sent.setdefault((span.topic, span.sent), []).append(place)
        if span.outcome == "dropped":
            track = tracks.node(name, span.node, 0)
            body = _text(23, f"dropped {span.topic}") + fixed64(48, _flow(trace, place))
            when = span.sent if span.done is None else span.done
            yield _Event(track, round((trace.start + when) * 1e9), _INSTANT, body)
        elif span.outcome == "failed" and span.received is not None:
            body = _text(23, f"failed at {span.topic}")
            at = round((trace.start + span.received) * 1e9) + 1
            yield _Event(of_span[place], at, _INSTANT, body)
    for (topic, when), places in sent.items():
        parent = trace.spans[places[0]].parent
        track = of_span.get(-1 if parent is None else parent, 0)
        track = track or tracks.node(name, topic.partition("/")[0], 0)
        body = _text(23, f"send {topic}")
        for place in places:
            body += fixed64(47, _flow(trace, place))
        yield _Event(track, round((trace.start + when) * 1e9), _INSTANT, body)


def _process_name(trace: Trace) -> str:
    name = trace.dataflow_name or trace.dataflow
    return f"{trace.machine}/{name}" if trace.machine else name


def _flow(trace: Trace, place: int) -> int:
    """Return the id of the arrow that ends at a span."""
    text = f"{trace.machine}\0{trace.id}\0{place}".encode(errors="replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _annotation(name: str, value: str | float) -> bytes:
    if isinstance(value, str):
        content = _text(6, value)
    elif isinstance(value, int):
        content = number(3, max(0, value))
    else:
        content = fixed64(5, int.from_bytes(struct.pack("<d", value), "little"))
    return delimited(4, _text(10, name) + content)


def _text(field: int, text: str) -> bytes:
    return delimited(field, text.encode(errors="replace"))


def _packet(body: bytes) -> bytes:
    return delimited(1, body + number(10, _SEQUENCE))
