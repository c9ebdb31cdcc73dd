"""`dora topic hz`: measure how often and how regularly outputs send."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.select import connect, dataflow_option, select, warn_missing
from dorad.commandline.complete import topic_names
from dorad.commandline.durations import Duration
from dorad.commandline.tables import format_option, print_lines, screen_lines, table_lines
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dorad.control.messages import TopicRate, TopicRates

COLUMNS = ("topic", "avg_ms", "avg_hz", "min_ms", "max_ms", "std_ms", "samples")

EPILOG = """\b
Examples:
  dora topic hz                        all outputs, until Ctrl-C
  dora topic hz camera/image imu/data --window 5
  dora topic hz camera --duration 10   all outputs of a node

\b
It reads counters in shared memory, without copying messages or slowing the dataflow. The row ALL
measures the messages of all topics as one stream; of topics on several machines it has the sum of
the rates, and minimum, maximum and deviation of all intervals.
"""

topics_argument = click.argument(
    "topics", metavar="[TOPIC]...", nargs=-1, shell_complete=topic_names
)


@click.command(epilog=EPILOG)
@topics_argument
@dataflow_option
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=10,
    metavar="SECONDS",
    help="Time over which to measure; default 10.",
)
@click.option(
    "--duration",
    type=Duration(minimum=1),
    metavar="DURATION",
    help="Measure for this time, print the figures and exit; required without a terminal.",
)
@format_option
def hz(
    topics: tuple[str, ...],
    *,
    dataflow: str | None,
    window: int,
    duration: float | None,
    style: str,
) -> None:
    """Measure how often each TOPIC sends, by default all in the dataflow.

    A TOPIC is `node/output`, or `node` for all outputs of a node.
    """
    if duration is None and not sys.stdout.isatty():
        raise click.UsageError("--duration is required without a terminal")
    with connect() as client:
        uuid = select(client, dataflow)
        with client.watch_topics(topics, dataflow=uuid, window=window) as stream:
            last = _follow(stream) if duration is None else _last(stream, duration)
    if last is None:
        raise click.ClickException("the dataflow ended before anything was measured")
    warn_missing(last.missing)
    if style == "json":
        print_lines(map(_as_json, last.rates))
    else:
        for row in (COLUMNS, *rows(last)):
            click.echo("\t".join(map(visible, row)))


def _last(stream: Iterator[TopicRates], duration: float) -> TopicRates | None:
    """Return the last figures that arrive within `duration` seconds."""
    end = time.monotonic() + duration
    last = None
    for rates in stream:
        last = rates
        if time.monotonic() >= end:
            break
    return last


def _follow(stream: Iterator[TopicRates]) -> TopicRates | None:
    """Show the figures live until Ctrl-C or the end of the dataflow; return the last."""
    from rich.console import Console
    from rich.live import Live

    last = None
    try:
        with Live(console=Console(markup=False), auto_refresh=False, transient=True) as live:
            for rates in stream:
                last = rates
                live.update(screen_lines(table_lines(COLUMNS, rows(rates)), head=1), refresh=True)
    except KeyboardInterrupt:
        pass  # the usual way to end it
    return last


def rows(rates: TopicRates) -> list[tuple[str, ...]]:
    """Return the rows under `COLUMNS`: all topics together, then each."""
    merged = total(rates.rates) if rates.merged is None else _row(rates.merged)
    return [("ALL", *merged[1:]), *map(_row, rates.rates)]


def total(rates: Sequence[TopicRate]) -> tuple[str, ...]:
    """Return the row of all topics together, which several machines measure."""
    hz = sum(rate.hz for rate in rates)
    samples = sum(rate.samples for rate in rates)
    deviation = None
    if samples:
        spread = sum(rate.samples * (rate.std_ms or 0.0) ** 2 for rate in rates)
        deviation = math.sqrt(spread / samples)
    return (
        "ALL",
        _number(1000 / hz if hz else None),
        _number(hz),
        _number(min(_known(rate.min_ms for rate in rates), default=None)),
        _number(max(_known(rate.max_ms for rate in rates), default=None)),
        _number(deviation),
        str(samples),
    )


def _row(rate: TopicRate) -> tuple[str, ...]:
    numbers = (rate.mean_ms, rate.hz, rate.min_ms, rate.max_ms, rate.std_ms)
    return (rate.topic, *map(_number, numbers), str(rate.samples))


def _as_json(rate: TopicRate) -> dict[str, Any]:
    numbers = (rate.mean_ms, rate.hz, rate.min_ms, rate.max_ms, rate.std_ms)
    return dict(zip(COLUMNS, (rate.topic, *numbers, rate.samples), strict=True))


def _known(numbers: Iterable[float | None]) -> list[float]:
    return [number for number in numbers if number is not None]


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"
