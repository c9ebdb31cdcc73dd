"""An exporter as a service: its status for systemd, its scrape endpoint, and an end in time."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from dorad.notify import ServiceNotifier
from dorad.telemetry.feed import STATUS_FILE, Report
from dorad.telemetry.scrape import ScrapeServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from opentelemetry.sdk.metrics.export import MetricsData

    from dorad.telemetry.sender import Delivery
    from dorad.telemetry.settings import TelemetrySettings

END_S = 0.8
"""Seconds that the last items have to be sent."""
STATUS_S = 1.0
"""Time between two updates of the status."""

_log = logging.getLogger(__name__)


class Sending(Protocol):
    """What sends telemetry."""

    @property
    def deliveries(self) -> Mapping[str, Delivery]:
        """How the sending of each signal goes."""

    def close(self, seconds: float) -> Mapping[str, Delivery]:
        """Send what waits, for at most so long, and return how that went."""


class Work(NamedTuple):
    """What a service does until a signal ends it."""

    follow: Callable[[], Awaitable[None]]
    """Gives the exporter what there is to send, until cancelled."""
    page: Callable[[], Awaitable[MetricsData | None]]
    """Returns what is scraped; None while nothing can be measured."""
    last: Callable[[], Awaitable[None]]
    """Makes a last measurement; it is cancelled if it takes long."""


async def serve(exporter: Sending, settings: TelemetrySettings, work: Work) -> None:
    """Work until SIGINT or SIGTERM, then send what is left.

    Raises:
        TelemetryError: the scrape endpoint cannot be used.
    """
    ending = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, ending.set)
    async with AsyncExitStack() as stack:
        notifier = ServiceNotifier()
        stack.callback(notifier.close)
        if settings.scrape is not None:
            server = ScrapeServer(settings.scrape, settings.token, work.page)
            await server.start()
            stack.push_async_callback(server.close)
        tasks = [
            asyncio.ensure_future(work.follow()),
            asyncio.create_task(_show_status(exporter, notifier), name="status"),
            asyncio.create_task(ending.wait(), name="end"),
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        notifier.stopping("sending what is left")
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S / 4):
                await work.last()
        for task in tasks:
            task.cancel()
        deliveries = exporter.close(END_S)
        for name, delivery in deliveries.items():
            _log.info("%s: %d sent, %d dropped", name, delivery.sent, delivery.dropped)
        for task in done:
            task.result()  # an unexpected end is an error


async def _show_status(exporter: Sending, notifier: ServiceNotifier) -> None:
    """Keep the status line of systemd, and the file that `dora doctor` reads."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "")
    written = None
    notifier.ready("connecting")
    while True:
        deliveries = exporter.deliveries
        if deliveries != written:
            written = deliveries
            notifier.status(status_line(deliveries))
            if folder:
                _write_status(Path(folder, STATUS_FILE.name), deliveries)
        await asyncio.sleep(STATUS_S)


def status_line(deliveries: Mapping[str, Delivery]) -> str:
    """Return how the sending goes, in one line."""
    parts = [
        f"{name}: {each.sent} sent, {each.dropped} dropped"
        + (f" ({each.error})" if each.error else "")
        for name, each in deliveries.items()
    ]
    return "; ".join(parts) or "waiting for who scrapes"


def _write_status(path: Path, deliveries: Mapping[str, Delivery]) -> None:
    from dorad.atomicfile import atomic_file

    content = [Report(name, *each) for name, each in deliveries.items()]
    try:
        with atomic_file(path, mode=0o644, durable=False) as file:
            file.write(msgspec.json.encode(content))
    except OSError as error:
        _log.debug("cannot write %s: %s", path, error)


def log_change(name: str, delivery: Delivery) -> None:
    """Log that sending begins to fail, or works again."""
    if delivery.error:
        _log.warning("%s do not reach %s: %s", name, delivery.url, delivery.error)
    else:
        _log.info("%s reach %s again; %d dropped", name, delivery.url, delivery.dropped)
