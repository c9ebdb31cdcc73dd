"""`dora topic list` and `dora topic info`: outputs, their subscribers, types and rates."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.durations import Duration
from dorad.cli.lineuse import Lines, bandwidth_text
from dorad.cli.select import connect, dataflow_option, select, warn_missing
from dorad.cli.tables import format_option, print_lines, print_table
from dorad.cli.topic_echo import until
from dorad.cli.topic_hz import topics_argument
from dorad.phrases import first_of
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.control.client import Client
    from dorad.control.messages import TopicInfo, TopicRate

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
        untyped = [
            rate.topic
            for rate in rates.values()
            if rate.count and (topic := known.get(rate.topic)) and topic.type is None
        ]
        if untyped:
            _progress(f"waits for a message of {first_of(untyped, 3)}")
        types = seen_types(client, uuid, untyped) if untyped else {}
    lines = Lines(link for topic in known.values() for link in topic.links)
    found = [
        _Found(known[name], rate, known[name].type or types.get(name), lines)
        for name, rate in rates.items()
        if name in known
    ]
    if style == "json":
        print_lines(map(_Found.as_json, found))
        return
    for place, one in enumerate(found):
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


def seen_types(client: Client, uuid: str, topics: Sequence[str]) -> dict[str, str]:
    """Return the Arrow type of the next message of each topic that sends one soon."""
    found: dict[str, str] = {}
    with client.echo(topics, dataflow=uuid, queue_size=1) as stream:
        for header, data in until(stream, time.monotonic() + TYPE_S):
            found[header.topic] = "null" if data is None else str(data.type)
            if len(found) == len(topics):
                break
    return found


class _Found:
    """A topic with its rate and type, as text and as JSON."""

    def __init__(self, topic: TopicInfo, rate: TopicRate, kind: str | None, lines: Lines) -> None:
        """`lines` are those of the whole dataflow."""
        self._lines = lines
        self._topic = topic
        self._rate = rate
        self._kind = kind
        self._subscribers = [f"{to.node}/{to.input}" for to in topic.subscribers]

    def lines(self) -> Iterator[str]:
        yield f"Topic: {self._rate.topic}"
        yield from ("", f"Type: {self._kind or 'unknown, nothing was sent'}")
        yield from ("", "Publisher:", f"  * {self._topic.node} ({self._rate.hz:.1f} Hz)")
        yield from ("", "Subscribers:", *(f"  * {name}" for name in self._subscribers or ["none"]))
        for link in self._topic.links:
            counts = f"{link.messages} messages, {link.lost} lost, {link.queued} on the way"
            problem = f": no link, {link.problem}" if link.problem else ""
            yield f"  * machine {link.machine} ({counts}){problem}"
            yield from (f"      {line}" for line in self._lines.text(link))
        yield from ("", "Statistics:", f"  Total messages: {self._rate.count}")
        yield f"  Bandwidth: {bandwidth_text(self._mbps)}"

    def as_json(self) -> dict[str, Any]:
        return {
            "topic": self._rate.topic,
            "type": self._kind,
            "publisher": self._topic.node,
            "hz": self._rate.hz,
            "subscribers": self._subscribers,
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
