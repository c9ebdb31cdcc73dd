"""The `dorafleet-telemetry` program: metrics of a fleet over OpenTelemetry, or to be scraped."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from dorad.dataflow import toml
from dorad.dataflow.problems import Problems, in_order
from dorad.program import log_level, run_program
from dorad.telemetry.main import end_idle, opentelemetry
from dorad.telemetry.settings import (
    SECTION,
    Section,
    TelemetryError,
    TelemetrySettings,
    read_section,
    settings_of,
)
from dorad.version import version_option

if TYPE_CHECKING:
    from dorad.control.target import Targets

INTERVAL_S = 30.0
"""Time between two measurements. Each asks all robots."""
MAX_LABELS = 8

EPILOG = """\b
Examples:
  dorafleet-telemetry --config /etc/dorafleet/telemetry.toml
  dorafleet-telemetry --config telemetry.toml --settings viewer.yml

\b
It adds up what robots, instances and cells use and carry, as `dorafleet top` does. Nodes and edges
are in the metrics of each robot's dorad-telemetry. It needs the role viewer.
"""


class FleetSection(NamedTuple):
    """The section `[telemetry]` of a fleet."""

    section: Section
    labels: tuple[str, ...] = ()
    """Keys of labels by which load is added up."""


def load_section(path: Path) -> FleetSection:
    """Return the section of the file at `path`.

    Raises:
        TelemetryError: there is no such file, it cannot be read, or has mistakes.
    """
    problems = Problems(str(path))
    result = FleetSection(Section())
    if (block := toml.read_section(path, SECTION, problems)) is not None:
        labels = block.texts("labels")
        if len(labels) > MAX_LABELS:
            problems.error(block.name_of("labels"), f"has more than {MAX_LABELS} keys")
        result = FleetSection(read_section(block), labels)
        block.finish()
    if problems.errors:
        raise TelemetryError("; ".join(map(str, in_order(problems.errors))))
    return result


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File with a section [telemetry]; variables go before its keys.",
)
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the coordinator and a token, instead of this user's settings of `dora`.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every decision (DORAD_LOG_LEVEL=debug).")
@version_option("dorafleet-telemetry")
def command(*, config: Path, settings: Path | None, verbose: bool) -> int:
    """Send metrics of a fleet's robots, instances and cells over OpenTelemetry."""
    from dorad import ownlog
    from dorad.control.choosing import chosen
    from dorad.control.target import Tcp

    ownlog.setup(log_level(verbose=verbose) or "info")
    # What exporters of OpenTelemetry log is reported with the counts of what was lost.
    logging.getLogger("opentelemetry").propagate = verbose
    section, labels = load_section(config)
    wanted = settings_of(os.environ, replace(section, interval=section.interval or INTERVAL_S))
    if wanted.scrape is None and "metrics" not in wanted.endpoints:
        return end_idle(f"neither an endpoint for metrics nor `scrape` in {config} is set")
    settings = None if settings is None else settings.absolute()
    targets = tuple(each for each in chosen(settings) if isinstance(each, Tcp))
    if not targets:
        raise TelemetryError(
            "no coordinator is known", "name a file with `coordinator:` with --settings"
        )
    return asyncio.run(_run(targets, wanted, labels))


async def _run(targets: Targets, settings: TelemetrySettings, labels: tuple[str, ...]) -> int:
    with opentelemetry():
        from dorad.telemetry.service import Work, serve
        from dorafleet.telemetry.source import FleetExporter
    exporter = FleetExporter(targets, settings, labels, os.environ)
    os.chdir("/")

    async def last() -> None:
        """Measure nothing: gauges do not grow until the end."""

    await serve(exporter, settings, Work(exporter.follow, exporter.page, last))
    return 0


def main() -> NoReturn:
    """Run the program `dorafleet-telemetry`."""
    run_program(command, "dorafleet-telemetry")


if __name__ == "__main__":
    main()
