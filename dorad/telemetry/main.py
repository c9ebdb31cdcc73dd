"""The `dorad-telemetry` program: sends metrics, logs and traces over OpenTelemetry."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
import msgspec

from dorad.notify import ServiceNotifier
from dorad.program import log_level, run_program
from dorad.telemetry.feed import Report
from dorad.telemetry.settings import (
    TelemetryError,
    TelemetrySettings,
    load_section,
    settings_of,
)
from dorad.version import version_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics.export import MetricsData

    from dorad.telemetry.exporter import Exporter
    from dorad.telemetry.sender import Delivery

EPILOG = """\b
Examples:
  dorad-telemetry --config /etc/dorad/dorad.toml
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 dorad-telemetry

\b
`dora run` starts it by itself if one of the variables OTEL_EXPORTER_OTLP_ENDPOINT,
DORA_OTLP_ENDPOINT and DORA_JAEGER_TRACING is set. On a robot it is dorad-telemetry.service.
"""

_log = logging.getLogger("dorad.telemetry")


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with a section [telemetry]; variables go before its keys.",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="DORA_SOCKET",
    help="Control socket of dorad; default: the daemon that `dora` finds.",
)
@click.option("--fed", is_flag=True, hidden=True, help="Read frames from standard input.")
@click.option("-v", "--verbose", is_flag=True, help="Log every decision (DORAD_LOG_LEVEL=debug).")
@version_option("dorad-telemetry")
def command(*, config: Path | None, socket: Path | None, fed: bool, verbose: bool) -> int:
    """Send metrics, logs and traces of this machine's dataflows over OpenTelemetry."""
    from dorad import ownlog

    ownlog.setup(log_level(verbose=verbose) or ("warning" if fed else "info"))
    # What exporters of OpenTelemetry log is reported with the counts of what was lost.
    logging.getLogger("opentelemetry").propagate = verbose
    settings = settings_of(os.environ, None if config is None else load_section(config))
    if settings.idle:
        return end_idle(
            "neither OTEL_EXPORTER_OTLP_ENDPOINT nor `endpoint` or `scrape` in [telemetry] of "
            "dorad.toml is set"
        )
    exporter = _exporter(settings, fed=fed)
    os.chdir("/")
    return asyncio.run(_run_fed(exporter) if fed else _run(exporter, settings, socket))


def end_idle(why: str) -> int:
    """Report that there is nothing to send, and return the exit code."""
    click.echo(f"nothing to send: {why}", err=True)
    notifier = ServiceNotifier()
    notifier.ready("nothing to send")  # systemd takes an end before that for a failure
    notifier.close()
    return 0


def _exporter(settings: TelemetrySettings, *, fed: bool) -> Exporter:
    with opentelemetry():
        from dorad.telemetry.exporter import Exporter
        from dorad.telemetry.service import log_change
    return Exporter(settings, os.environ, _write_report if fed else log_change)


@contextmanager
def opentelemetry() -> Iterator[None]:
    """Import in this block what needs OpenTelemetry.

    Raises:
        TelemetryError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        if not (error.name or "").startswith(("opentelemetry", "google", "grpc")):
            raise
        raise TelemetryError(
            f"OpenTelemetry is not installed: {error}", "pip install 'dorad[telemetry]'"
        ) from error


def _write_report(name: str, delivery: Delivery, *, last: bool = False) -> None:
    report = Report(name, *delivery, last)
    with suppress(OSError):  # `dora run` was killed
        os.write(sys.stdout.fileno(), msgspec.json.encode(report) + b"\n")


async def _run_fed(exporter: Exporter) -> int:
    """Send what `dora run` feeds, until it ends."""
    from dorad.telemetry.feed import read_frame
    from dorad.telemetry.service import END_S

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the end of the input ends us
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    with suppress(asyncio.IncompleteReadError):
        while True:
            fed = await read_frame(reader)
            if fed.top is not None:
                exporter.measured(fed.top)
            if fed.lines is not None:
                exporter.logged(fed.lines, fed.name)
            if fed.traces is not None:
                exporter.traced(fed.traces, fed.name)
    deliveries = exporter.close(END_S)
    for name, delivery in deliveries.items():
        _write_report(name, delivery, last=True)
    return 1 if any(each.dropped for each in deliveries.values()) else 0


async def _run(exporter: Exporter, settings: TelemetrySettings, socket: Path | None) -> int:
    """Follow the daemon of this machine until a signal."""
    from dorad.telemetry.robot import RobotSource
    from dorad.telemetry.service import Work, serve

    metrics = "metrics" in settings.endpoints
    source = RobotSource(
        socket,
        exporter,
        interval=settings.interval if metrics else None,
        logs="logs" in settings.endpoints,
        warn=_log.warning,
    )

    async def page() -> MetricsData | None:
        top = await source.top()
        return None if top is None else exporter.collect(top)

    async def last() -> None:
        if metrics and (top := await source.top()) is not None:
            exporter.measured(top)

    await serve(exporter, settings, Work(source.run, page, last))
    return 0


def main() -> NoReturn:
    """Run the program `dorad-telemetry`."""
    run_program(command, "dorad-telemetry")


if __name__ == "__main__":
    main()
