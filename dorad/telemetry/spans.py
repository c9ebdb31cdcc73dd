"""From traces of messages to spans of OpenTelemetry, as functions of data.

A message has a span `send` in its sender, and in each receiver `receive` until it was taken and
`process` while the node worked on it. What a node sends is a child of what it processes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from dorad.telemetry.resources import SCOPE, Resources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.util.types import AttributeValue

    from dorad.control import messages as m

SYSTEM = "dora"
OUTCOMES = {
    "dropped": "its queue was full",
    "failed": "the process of the node failed while it worked on the message",
}
_KINDS = {"send": SpanKind.PRODUCER, "receive": SpanKind.CLIENT, "process": SpanKind.CONSUMER}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NS = 1e9


class _Sent(NamedTuple):
    """What the spans of a message's receivers begin with."""

    trace_id: int
    parent: SpanContext | None
    carried: str
    """The context that the message carries."""


def spans_of(trace: m.Trace, resources: Resources) -> list[ReadableSpan]:
    """Return the spans of a trace, each after its parent.

    A message that carries a trace context belongs to that trace, from which on the rest follows;
    one that only passes on the context of the message before is a child of its own sender.
    """
    spans: list[ReadableSpan] = []
    sent: dict[tuple[str, int], _Sent] = {}
    processed: list[tuple[SpanContext | None, str]] = []
    """By place in the trace: what processed the message, and the context that this carried."""
    begin = round(trace.start * _NS)
    for span in trace.spans:
        cause, carried = (None, "") if span.parent is None else processed[span.parent]
        key = (span.topic, span.stamp)
        if key not in sent:
            sent[key] = _send(trace, span, begin, cause, carried, resources, spans)
        processed.append(_take(trace, span, begin, sent[key], resources, spans))
    return spans


def _send(
    trace: m.Trace,
    span: m.Span,
    begin: int,
    cause: SpanContext | None,
    passed: str,
    resources: Resources,
    spans: list[ReadableSpan],
) -> _Sent:
    parent, links = cause, []
    if span.context and span.context != passed:
        parent = _carried(span.context)
        if cause is not None and parent is not None and parent.trace_id != cause.trace_id:
            links.append(Link(cause))
    trace_id = (int(trace.id, 16) or 1) if parent is None else parent.trace_id
    if span.tick:
        return _Sent(trace_id, parent, "")
    if span.remote and span.context:
        # Its sender's machine makes the span `send`, in the same trace.
        sender = SpanContext(
            trace_id,
            _id("send", trace.dataflow, span.topic, span.stamp),
            is_remote=True,
            trace_flags=_SAMPLED,
        )
        return _Sent(trace_id, sender, span.context)
    node = span.topic.partition("/")[0]
    attributes: dict[str, AttributeValue] = {}
    if parent is None or parent is not cause:
        attributes = {"dora.trace.id": trace.id, "dora.trace.path": trace.path}
    resource = resources.of(trace.dataflow, trace.dataflow_name, node, remote=span.remote)
    at = begin + round(span.sent * _NS)
    made = _span("send", trace, span, trace_id, parent, resource, (at, at), attributes, links)
    spans.append(made)
    return _Sent(trace_id, made.context, span.context or passed)


def _take(
    trace: m.Trace,
    span: m.Span,
    begin: int,
    sent: _Sent,
    resources: Resources,
    spans: list[ReadableSpan],
) -> tuple[SpanContext | None, str]:
    """Append the spans of one receiver of a message; return what it processed it in."""
    taken = span.done if span.received is None else span.received
    if not span.node or taken is None:
        return sent.parent, sent.carried  # nobody has received it
    resource = resources.of(trace.dataflow, trace.dataflow_name, span.node)
    at = begin + round(span.sent * _NS)
    until = begin + round(taken * _NS)
    attributes: dict[str, AttributeValue] = {
        "dora.edge.queue.depth": span.queued,
        "dora.message.wait": span.wait,
    }
    if sent.parent is None or sent.parent.is_remote:
        attributes |= {"dora.trace.id": trace.id, "dora.trace.path": trace.path}
    received = _span(
        "receive", trace, span, sent.trace_id, sent.parent, resource, (at, until), attributes
    )
    spans.append(received)
    if span.received is None:
        return received.context, sent.carried
    done = trace.duration if span.done is None else span.done
    links = [
        Link(_context(int(link.trace_id, 16), _id("send", trace.dataflow, link.topic, link.stamp)))
        for link in span.links
        if link.trace_id
    ]
    times = (until, max(until, begin + round(done * _NS)))
    made = _span(
        "process", trace, span, sent.trace_id, received.context, resource, times, {}, links
    )
    spans.append(made)
    return made.context, sent.carried


def _span(
    operation: str,
    trace: m.Trace,
    span: m.Span,
    trace_id: int,
    parent: SpanContext | None,
    resource: Resource,
    times: tuple[int, int],
    attributes: dict[str, AttributeValue],
    links: Sequence[Link] = (),
) -> ReadableSpan:
    receiver = "" if operation == "send" else f"{span.node}/{span.input}"
    attributes |= {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": span.topic,
        "messaging.message.body.size": span.bytes,
    }
    if receiver:
        attributes["dora.edge.target"] = receiver
    status = Status(StatusCode.UNSET)
    # What was dropped was not received, what failed was.
    if span.outcome == {"receive": "dropped", "process": "failed"}.get(operation):
        attributes["error.type"] = span.outcome
        status = Status(StatusCode.ERROR, OUTCOMES[span.outcome])
    span_id = _id(operation, trace.dataflow, span.topic, span.stamp, receiver)
    begin, end = times
    return ReadableSpan(
        name=f"{operation} {span.topic}",
        context=_context(trace_id, span_id),
        parent=parent,
        resource=resource,
        attributes=attributes,
        links=links,
        kind=_KINDS[operation],
        status=status,
        start_time=begin,
        end_time=max(begin, end),
        instrumentation_scope=SCOPE,
    )


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)


def _carried(text: str) -> SpanContext | None:
    trace_id, _, span_id = text.partition("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_SAMPLED)


def _id(operation: str, dataflow: str, topic: str, stamp: int, receiver: str = "") -> int:
    """Return the id of a span, the same whoever makes it. Never 0."""
    text = f"{operation}\0{dataflow}\0{topic}\0{stamp}\0{receiver}"
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) or 1
