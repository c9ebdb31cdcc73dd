"""`dora trace start` and `dora trace stop`: how many traces exporters of telemetry send."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from dorad.cli.trace import servers
from dorad.commandline.complete import node_names
from dorad.commandline.reports import print_note

if TYPE_CHECKING:
    from dorad.control.messages import TraceSampling

START_EPILOG = """\b
Examples:
  dora trace start                           one a second of each source, the default
  dora trace start --rate 10
  dora trace start --source camera --rate 0.1
  dora trace stop && dora trace start --source camera      those of the camera only

\b
A source is what a trace begins with: a timer, or an output that a node sends of its own accord.
Slow traces, and those with a dropped message or a failed node, are sent besides, at any rate.
It holds for all exporters of this daemon and of each `dora run`, until those end. Nodes record
all messages in any case, and `dora trace list` does not depend on it.
"""

STOP_EPILOG = """\b
Examples:
  dora trace stop
  dora trace stop --source camera
  dora trace stop --source camera/image

\b
`dora trace start` undoes it.
"""

source_option = click.option(
    "--source",
    metavar="NODE|TOPIC",
    default="",
    shell_complete=node_names,
    help="Only traces that begin with this node, or with its output or timer as `node/name`.",
)


@click.command(epilog=START_EPILOG)
@click.option(
    "--rate",
    type=click.FloatRange(0, 10_000),
    default=1.0,
    help="Traces a second of each source; default 1. With 0 only those that are slow or failed.",
)
@source_option
def start(*, rate: float, source: str) -> None:
    """Let exporters of telemetry send traces, so many a second of each source."""
    if not math.isfinite(rate):
        raise click.UsageError("--rate must be a number")
    _sample(source, rate)


@click.command(epilog=STOP_EPILOG)
@source_option
def stop(*, source: str) -> None:
    """Let exporters of telemetry send no more traces."""
    _sample(source, None)


def _sample(source: str, rate: float | None) -> None:
    with servers() as clients:
        answers = [client.sample_traces(source, rate=rate) for client in clients]
    for answer in answers:
        click.echo(sampling_text(answer))
    if not any(answer.exporters for answer in answers):
        print_note(
            "no exporter of telemetry runs: `dorad-telemetry` is one, and `dora run` has one with "
            "OTEL_EXPORTER_OTLP_ENDPOINT"
        )


def sampling_text(sampling: TraceSampling) -> str:
    """Return how many traces exporters send, in one sentence."""
    parts = [
        f"{_rate_text(rate)} of {f'`{source}`' if source else 'each source'}"
        for source, rate in sorted(sampling.rates.items(), key=lambda each: (each[0] == "", each))
    ]
    return "exporters send " + ", ".join(parts)


def _rate_text(rate: float | None) -> str:
    if rate is None:
        return "nothing"
    return "slow and failed traces" if rate == 0 else f"{rate:g} traces a second"
