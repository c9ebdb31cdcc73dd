"""`dora topic echo`: the messages that outputs send, as text."""

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

from dorad.cli.durations import Duration
from dorad.cli.select import connect, dataflow_option, select
from dorad.cli.session import tell
from dorad.cli.tables import format_option
from dorad.cli.topic_hz import topics_argument
from dorad.terminal import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from dorad.control.client import Arrays
    from dorad.control.messages import TopicHeader

EPILOG = """\b
Examples:
  dora topic echo camera/meta
  dora topic echo camera/meta imu/data --format json
  dora topic echo --count 1 --duration 5

\b
It receives what the outputs send as one more subscriber, and is gone when it ends; it never slows
a node down. Messages that it could not read in time are counted, and the count is told at the end.
"""

SHOWN = 16
"""Elements of an array that a line for people shows."""


@click.command(epilog=EPILOG)
@topics_argument
@dataflow_option
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("--duration", type=Duration(least=0.1), metavar="DURATION", help="End after so long.")
@format_option
def echo(
    topics: tuple[str, ...],
    *,
    dataflow: str | None,
    count: int | None,
    duration: float | None,
    style: str,
) -> None:
    """Show what each TOPIC, `node/output`, sends; without one, all of the dataflow."""
    displaced: dict[str, int] = {}
    with (
        connect() as client,
        client.echo(topics, dataflow=select(client, dataflow)) as stream,
        contextlib.suppress(KeyboardInterrupt),  # the usual way to end it
    ):
        # Meanwhile the daemon starts the process that receives; both take as long.
        importlib.import_module("pyarrow")
        end = None if duration is None else time.monotonic() + duration
        for header, data in itertools.islice(until(stream, end), count):
            displaced[header.topic] = header.dropped
            click.echo(_line(header, data, style))
            sys.stdout.flush()
    for topic, number in displaced.items():
        if number:
            messages = "message was" if number == 1 else "messages were"
            tell("note:", "cyan", f"{number} {messages} displaced on {topic}: read too slowly")


def until(stream: Arrays, end: float | None) -> Iterator[tuple[TopicHeader, pa.Array | None]]:
    """Yield messages until the stream ends, or the monotonic clock says `end`."""
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
        values = None if data is None else data.to_pylist()
        message = {"timestamp": milliseconds(sent), "name": header.topic}
        return to_json(message | {"data": values, "metadata": metadata})
    return f"{visible(header.topic)}\tdata={brief(data)} metadata={to_json(metadata)}"


def brief(data: pa.Array | None) -> str:
    """Return an array as JSON, a long one cut."""
    if data is None:
        return "null"
    if len(data) <= SHOWN:
        return to_json(data.to_pylist())
    return f"{to_json(data[:SHOWN].to_pylist())[:-1]},...] ({len(data)} values of {data.type})"


def milliseconds(sent: object) -> int:
    """Return the time of a message in ms since 1970; now for one without."""
    if isinstance(sent, str):
        return round(datetime.fromisoformat(sent).timestamp() * 1000)
    if isinstance(sent, int | float):
        return round(sent * 1000)
    return round(time.time() * 1000)


def to_json(value: object) -> str:
    """Return JSON on one line; what it has no word for is written as Arrow's JSON writer does.

    All control characters are escaped.
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
