"""`dora topic echo`: show the messages of outputs as text."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
import sys
import time
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.select import connect, dataflow_option, select
from dorad.cli.topic_hz import topics_argument
from dorad.commandline.durations import Duration
from dorad.commandline.reports import print_note
from dorad.commandline.tables import format_option
from dorad.control.arrayvalues import to_python_within
from dorad.terminal import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from dorad.control.messages import TopicHeader
    from dorad.control.stream import ArrayMessage, Stream

EPILOG = """\b
Examples:
  dora topic echo camera/meta
  dora topic echo camera/meta imu/data --format json
  dora topic echo --count 1 --duration 5

\b
It is one more subscriber of the outputs until it ends, and never slows a node down. It counts the
messages that it could not read in time, and reports them at the end.
"""

SHOWN = 16
"""Maximum number of array elements in a line for people."""

MAX_BRIEF, MAX_JSON = 4 << 20, 1 << 30
"""Maximum bytes that the values of a line take as Python objects: for people, in JSON. A message
of a few bytes can have any number of values."""


@click.command(epilog=EPILOG)
@topics_argument
@dataflow_option
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option(
    "--duration", type=Duration(minimum=0.1), metavar="DURATION", help="End after this time."
)
@format_option
def echo(
    topics: tuple[str, ...],
    *,
    dataflow: str | None,
    count: int | None,
    duration: float | None,
    style: str,
) -> None:
    """Show the messages of each TOPIC, by default of all in the dataflow.

    A TOPIC is `node/output`, or `node` for all outputs of a node.
    """
    displaced: dict[str, int] = {}
    with (
        connect() as client,
        client.echo(topics, dataflow=select(client, dataflow)) as stream,
        contextlib.suppress(KeyboardInterrupt),  # the usual way to end it
    ):
        # Import now, while the daemon starts the receiving process, which takes as long.
        importlib.import_module("pyarrow")
        end = None if duration is None else time.monotonic() + duration
        for header, data in itertools.islice(until(stream, end), count):
            displaced[header.topic] = header.dropped
            click.echo(_line(header, data, style))
            sys.stdout.flush()
    for topic, number in displaced.items():
        if number:
            messages = "message was" if number == 1 else "messages were"
            print_note(f"{number} {messages} displaced on {topic}: read too slowly")


def until(stream: Stream[ArrayMessage], end: float | None) -> Iterator[ArrayMessage]:
    """Yield messages until the stream ends or the monotonic clock reaches `end`."""
    while True:
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            return
        try:
            yield stream.next(left)
        except (StopIteration, TimeoutError):
            return


def _line(header: TopicHeader, data: pa.Array | None, style: str) -> str:
    metadata = dict(header.metadata)
    sent = metadata.pop("timestamp", None)
    if style == "json":
        message: dict[str, Any] = {"timestamp": milliseconds(sent), "name": header.topic}
        values = None if data is None else to_python_within(data, MAX_JSON)
        message |= {"data": values, "metadata": metadata}
        if data is not None and values is None:
            message["omitted"] = _summary(data)
        return to_json(message)
    return f"{visible(header.topic)}\tdata={brief(data)} metadata={to_json(metadata)}"


def brief(data: pa.Array | None) -> str:
    """Return an array as JSON, shortened if it is long."""
    if data is None:
        return "null"
    values = to_python_within(data[:SHOWN], MAX_BRIEF)
    if values is None:
        return f"[...] ({_summary(data)})"
    text = to_json(values)
    return text if len(data) <= SHOWN else f"{text[:-1]},...] ({_summary(data)})"


def _summary(data: pa.Array) -> str:
    return f"{len(data)} values of {data.type}"


def milliseconds(sent: object) -> int:
    """Return the time of a message in ms since 1970, the current time if it has none."""
    if isinstance(sent, str):
        return round(datetime.fromisoformat(sent).timestamp() * 1000)
    if isinstance(sent, int | float):
        return round(sent * 1000)
    return round(time.time() * 1000)


def to_json(value: object) -> str:
    """Return JSON on one line, with control characters escaped.

    Values that JSON cannot express are written as Arrow's JSON writer does.
    """
    try:
        return visible_json(_dumps(value))
    except ValueError:
        return visible_json(_dumps(_without_nan(value)))


def _dumps(value: object) -> str:
    return json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_as_text
    )


def _as_text(value: object) -> str | float:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
