"""What a trace says: its spans, the ways through it, and where the time went."""

import hashlib
from collections.abc import Iterator

import msgspec

from dorad.control import messages as m
from dorad.int64 import clamped
from dorad.trace.model import Arrival, Message, Receiver, Tree, root_of

MAX_SPANS = 1000
"""Spans of one trace."""
ARROW = " → "

_NS = 1e9

Steps = tuple["Receiver", ...]
"""A path: its receivers, from the beginning of a trace to one of its ends."""


class Way(msgspec.Struct, frozen=True):
    """One way through a trace, from its beginning to a node that sent nothing more. In ns.

    What is not `wait` and not `work` is the time between sending and receiving in which the
    receiver was not busy.
    """

    steps: Steps
    total: int
    wait: int
    work: int
    complete: bool
    """Whether every receiver on it is known, and the last one was done and sent nothing."""


def way_to(last: Arrival) -> Way:
    """Return the way to the last receiver."""
    steps = []
    wait = work = 0
    complete = bool(last.done) and not last.outcome and not last.sent
    arrival: Arrival | None = last
    end = total_end = last.done or last.at
    while arrival is not None:
        message = arrival.message
        steps.append(arrival.receiver)
        begin = message.sent
        if at := arrival.at:
            # As `Arrival.wait`, without its calls: this is the loop of a busy daemon.
            free = arrival.free
            waited = (free if free < at else at) - begin
            if waited > 0:
                wait += waited
            if end > at:
                work += end - at
        else:
            complete = False
        end = begin
        arrival = message.cause
    complete = complete and not message.begins_unknown
    steps.reverse()
    return Way(tuple(steps), max(0, total_end - begin), wait, work, complete)


def ways(tree: Tree) -> Iterator[Way]:
    """Return the ways to all receivers after which nobody has received anything."""
    return map(way_to, tree.ends)


def path_text(steps: Steps, *, inputs: bool = False) -> str:
    """Return a path for people; with `inputs` it also names the input of each receiver."""
    names = [f"{node}/{name}" if inputs else node for _, node, name in steps]
    return ARROW.join([steps[0][0], *names])


def trace_id(dataflow: str, topic: str, stamp: int) -> str:
    """Return the id of the trace that begins with a message: 32 hexadecimal digits."""
    text = f"{dataflow}\0{topic}\0{stamp}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def id_of(tree: Tree, dataflow: str) -> str:
    """Return the id of a trace."""
    return trace_id(dataflow, *tree.messages[0].key)


def as_trace(tree: Tree, dataflow: str) -> m.Trace:
    """Return a trace of a dataflow with all its spans."""
    first = tree.messages[0]
    slowest = max(ways(tree), key=lambda way: way.total, default=None)
    trace = m.Trace(
        id=id_of(tree, dataflow),
        dataflow=dataflow,
        start=first.sent / _NS,
        duration=0.0 if slowest is None else slowest.total / _NS,
        path=first.topic if slowest is None else path_text(slowest.steps),
        span_count=0,
        cut=first.begins_unknown,
        running=tree.working,
    )
    todo = [*_received(first, None)]
    while todo:
        message, arrival, parent = todo.pop()
        trace.span_count += 1
        place = len(trace.spans)
        if place < MAX_SPANS:
            trace.spans.append(_span(message, first.sent, parent, arrival, dataflow))
        else:
            trace.left_out += 1
            place = MAX_SPANS - 1 if parent is None else parent
        if arrival is not None:
            trace.dropped += arrival.outcome == "dropped"
            trace.failed += arrival.outcome == "failed"
            for sent in sorted(arrival.sent, key=lambda each: -each.sent):
                todo += _received(sent, place)
    return trace


def _received(
    message: Message, parent: int | None
) -> Iterator[tuple[Message, Arrival | None, int | None]]:
    """Yield what a message becomes spans of, the last first."""
    if not message.arrivals:
        yield message, None, parent
    for arrival in sorted(message.arrivals, key=lambda each: -(each.at or each.done)):
        yield message, arrival, parent


def _span(
    message: Message, start: int, parent: int | None, arrival: Arrival | None, dataflow: str
) -> m.Span:
    span = m.Span(
        topic=message.topic,
        node="",
        input="",
        sent=(message.sent - start) / _NS,
        parent=parent,
        tick=message.tick,
        bytes=clamped(max(0, message.size)),
        stamp=message.stamp,
        context=message.context,
        remote=not message.local,
    )
    if arrival is not None:
        _, span.node, span.input = arrival.receiver
        span.received = (arrival.at - start) / _NS if arrival.at else None
        span.done = (arrival.done - start) / _NS if arrival.done else None
        span.wait = arrival.wait() / _NS if arrival.at else 0.0
        span.queued = clamped(arrival.queued)
        span.outcome = arrival.outcome
        span.links = [
            m.TraceLink(
                topic=each.message.topic,
                age=(message.sent - each.message.sent) / _NS,
                trace_id=trace_id(dataflow, *root_of(each.message)),
                stamp=each.message.stamp,
            )
            for each in arrival.group or ()
            if each is not arrival
        ]
    return span
