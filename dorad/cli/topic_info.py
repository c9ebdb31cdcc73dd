"""`dora topic list` and `dora topic info`: outputs, their subscribers, types and rates."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dorad.cli.curves import edge_json, edge_lines, read_history
from dorad.cli.lineuse import Lines, bandwidth_text
from dorad.cli.select import connect, dataflow_option, select, warn_missing
from dorad.cli.topic_echo import until
from dorad.cli.topic_hz import topics_argument
from dorad.commandline.durations import Duration
from dorad.commandline.tables import (
    format_option,
    in_ms,
    milliseconds,
    print_lines,
    print_table,
)
from dorad.phrases import first_of
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.control.client import Client
    from dorad.control.messages import EdgeStats, History, TopicInfo, TopicRate

EPILOG = """\b
Examples:
  dora topic info camera/image
  dora topic info camera/image --duration 1 --format json

\b
It measures rate and bandwidth for some seconds, with counters in shared memory. The type is the
declared one, else that of the next message.
"""

LIST_EPILOG = """\b
Examples:
  dora topic list
  dora topic list -d demo --format json
"""


@click.command("list", epilog=LIST_EPILOG)
@dataflow_option
@format_option
def list_topics(*, dataflow: str | None, style: str) -> None:
    """List the outputs of a dataflow and their subscribers."""
    with connect() as client:
        topics = client.topics(select(client, dataflow)).topics
    rows = [(t.node, t.output, [f"{to.node}/{to.input}" for to in t.subscribers]) for t in topics]
    if style == "json":
        print_lines({"node": node, "name": name, "subscribers": to} for node, name, to in rows)
    else:
        table = ((node, name, ", ".join(to)) for node, name, to in rows)
        print_table(("Node", "Name", "Subscribers"), table)


TYPE_S = 10.0
"""Seconds to wait for a message from each sending output with an undeclared type."""


@click.command(epilog=EPILOG)
@topics_argument
@dataflow_option
@click.option(
    "--duration",
    type=Duration(minimum=1),
    default=5,
    metavar="DURATION",
    help="Time to measure; default 5.",
)
@format_option
def info(topics: tuple[str, ...], *, dataflow: str | None, duration: float, style: str) -> None:
    """Show type, rate and subscribers of each TOPIC, by default of all in the dataflow.

    A TOPIC is `node/output`, or `node` for all outputs of a node.
    """
    with connect() as client:
        uuid = select(client, dataflow)
        known = {f"{topic.node}/{topic.output}": topic for topic in client.topics(uuid).topics}
        _progress(f"measures for {duration:g} s")
        rates = measure(client, uuid, topics, duration)
        edges = [edge for edge in client.top().edges if edge.dataflow == uuid]
        history = read_history(client, uuid)
        untyped = [
            rate.topic
            for rate in rates.values()
            if rate.count and (topic := known.get(rate.topic)) and topic.type is None
        ]
        if untyped:
            _progress(f"waits for a message of {first_of(untyped, 3)}")
        types = seen_types(client, uuid, untyped) if untyped else {}
    lines = Lines(link for topic in known.values() for link in topic.links)
    rows = [
        _Found(
            known[name],
            rate,
            types.get(name) or _Type(known[name].type),
            lines,
            {edge.target: edge for edge in edges if edge.source == name},
            history,
        )
        for name, rate in rates.items()
        if name in known
    ]
    if style == "json":
        print_lines(map(_Found.as_json, rows))
        return
    for place, one in enumerate(rows):
        if place:
            click.echo()
        for line in one.lines():
            click.echo(visible(line))


def _progress(text: str) -> None:
    """Tell a person at a terminal what takes its time."""
    if sys.stderr.isatty():
        click.echo(f"{visible(text)} ...", err=True)


def measure(
    client: Client, uuid: str, topics: Sequence[str], duration: float
) -> dict[str, TopicRate]:
    """Return the rates of topics, measured for `duration` seconds."""
    end = time.monotonic() + duration
    rates: list[TopicRate] = []
    missing: dict[str, str] = {}
    for event in client.watch_topics(topics, dataflow=uuid, window=max(1, round(duration))):
        rates, missing = event.rates, event.missing
        if time.monotonic() >= end:
            break
    warn_missing(missing)
    return {rate.topic: rate for rate in rates}


class _Type(NamedTuple):
    """An Arrow type as text, None if it is unknown; `stream` if its arrays travel as a stream."""

    text: str | None
    stream: bool | None = None


def seen_types(client: Client, uuid: str, topics: Sequence[str]) -> dict[str, _Type]:
    """Return the Arrow type of the next message of each topic that sends one soon."""
    from dorad.shm.typedescription import describe

    types: dict[str, _Type] = {}
    with client.echo(topics, dataflow=uuid, queue_size=1) as stream:
        for header, data in until(stream, time.monotonic() + TYPE_S):
            types[header.topic] = (
                _Type("null", stream=False)
                if data is None
                else _Type(str(data.type), describe(data.type) is None)
            )
            if len(types) == len(topics):
                break
    return types


class _Found:
    """A topic with its rate and type, as text and as JSON."""

    def __init__(
        self,
        topic: TopicInfo,
        rate: TopicRate,
        kind: _Type,
        lines: Lines,
        edges: dict[str, EdgeStats],
        history: History | None,
    ) -> None:
        """`lines` are those of the whole dataflow, `edges` those of the topic by their target."""
        self._step = 0.0 if history is None else history.step
        self._curves = [
            each for each in (history.edges if history else ()) if each.source == rate.topic
        ]
        self._lines = lines
        self._topic = topic
        self._rate = rate
        self._kind = kind
        self._subscribers = [f"{to.node}/{to.input}" for to in topic.subscribers]
        self._edges = edges

    def lines(self) -> Iterator[str]:
        yield f"Topic: {self._rate.topic}"
        form = ", which travels as an Arrow stream" if self._kind.stream else ""
        yield from ("", f"Type: {self._kind.text or 'unknown, nothing was sent'}{form}")
        yield from ("", "Publisher:", f"  * {self._topic.node} ({self._rate.hz:.1f} Hz)")
        yield from ("", "Subscribers:", *(f"  * {name}" for name in self._subscribers or ["none"]))
        for link in self._topic.links:
            counts = f"{link.messages} messages, {link.lost} lost, {link.queued} on the way"
            problem = f": no link, {link.problem}" if link.problem else ""
            yield f"  * machine {link.machine} ({counts}){problem}"
            yield from (f"      {line}" for line in self._lines.text(link))
        yield from ("", "Statistics:", f"  Total messages: {self._rate.count}")
        yield f"  Bandwidth: {bandwidth_text(self._mbps)}"
        for target, edge in self._edges.items():
            if edge.latency_worst is not None:
                figures = (edge.latency_p50, edge.latency_p99, edge.latency_worst)
                p50, p99, worst = map(milliseconds, figures)
                yield f"  Latency to {target}: p50 {p50} ms, p99 {p99} ms, worst {worst} ms"
            if any(_missing(edge)):
                yield (
                    f"  Not received by {target}: {edge.lost} lost before {self._topic.node} had"
                    f" them, {edge.dropped} dropped, {edge.unreadable} could not be read"
                )
        for curves in self._curves:
            if lines := list(edge_lines(curves)):
                yield from ("", f"Last ten minutes to {curves.target}:")
                yield from (f"  {line}" for line in lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "topic": self._rate.topic,
            "type": self._kind.text,
            "stream": self._kind.stream,
            "publisher": self._topic.node,
            "hz": self._rate.hz,
            "subscribers": self._subscribers,
            "latencies": {
                name: {
                    "p50_ms": in_ms(edge.latency_p50),
                    "p99_ms": in_ms(edge.latency_p99),
                    "worst_ms": in_ms(edge.latency_worst),
                }
                for name, edge in self._edges.items()
            },
            "missing": {
                name: dict(zip(("lost", "dropped", "unreadable"), _missing(edge), strict=True))
                for name, edge in self._edges.items()
            },
            "history": {each.target: edge_json(each, self._step) for each in self._curves},
            "machines": [
                {
                    "machine": link.machine,
                    "messages": link.messages,
                    "lost": link.lost,
                    "queued": link.queued,
                    "problem": link.problem or None,
                    "line": self._lines.as_json(link),
                }
                for link in self._topic.links
            ],
            "messages": self._rate.count,
            "mbps": self._mbps,
        }

    @property
    def _mbps(self) -> float:
        return self._rate.bandwidth * 8 / 1e6


def _missing(edge: EdgeStats) -> tuple[int, int, int]:
    """Return the messages that the input lacks: lost before the sender, dropped, unreadable."""
    return edge.lost, edge.dropped, edge.unreadable
