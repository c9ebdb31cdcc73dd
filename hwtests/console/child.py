"""The program on the terminal: `python -m hwtests.console.child WHAT SOCKET REPORT SECONDS`.

WHAT is `fleet`, `logs`, `datatable` or `richlog`; the last two are Textual's own widgets with the
same data, without a server. After so many seconds it writes the lag of its event loop and ends.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from textual.app import App
from textual.widgets import DataTable, RichLog

from dorad.control.target import UnixSocket
from dorafleet.console.app import ConsoleApp
from dorafleet.console.driver import PacedDriver
from dorafleet.console.link.server import Server
from dorafleet.console.options import ConsoleOptions

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from dorad.control.target import Targets

ROWS = 20_000
CHANGES = 500
"""Cells that change a second."""
LINES = 10_000
"""Log lines a second."""
WARM_S = 3.0
STEP_S = 0.02


class Table(App[None]):
    """Textual's table with as many rows as there are nodes."""

    def compose(self) -> ComposeResult:
        yield DataTable()

    def on_mount(self) -> None:
        table: DataTable[Any] = self.query_one(DataTable)
        for name in ("node", "status", "cpu", "memory", "queue"):
            table.add_column(name, key=name)
        for row in range(ROWS):
            table.add_row(
                f"arm{row // 40:03}/node{row % 40:02}", "running", "3.0", "50", "0", key=str(row)
            )
        self.set_interval(0.1, self.change)

    def change(self) -> None:
        table: DataTable[Any] = self.query_one(DataTable)
        for _ in range(CHANGES // 10):
            table.update_cell(str(random.randrange(ROWS)), "cpu", f"{random.random() * 100:.1f}")


class Log(App[None]):
    """Textual's log, with a tenth of the lines: it cannot do more."""

    def compose(self) -> ComposeResult:
        yield RichLog(max_lines=10_000)

    def on_mount(self) -> None:
        self.number = 0
        self.set_interval(0.1, self.more)

    def more(self) -> None:
        log = self.query_one(RichLog)
        for _ in range(LINES // 100):
            self.number += 1
            log.write(f"15:00:00.000 INFO camera line {self.number} of many that come")


def app_for(what: str, socket: str) -> App[None]:
    if what == "datatable":
        return Table()
    if what == "richlog":
        return Log()

    async def opened() -> Targets:
        return (UnixSocket(Path(socket)),)

    start = {"logs": "logs pick", "picture": "topic pick camera/image"}.get(what, what)
    return ConsoleApp(Server(opened), ConsoleOptions(start=start), PacedDriver)


async def measure(app: App[None], report: Path, seconds: float) -> None:
    """Write the lag and the processor time of the seconds after the warm-up."""
    await asyncio.sleep(WARM_S)
    lags: list[float] = []
    process = psutil.Process()
    used, began = process.cpu_times(), time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        await asyncio.sleep(STEP_S)
        lags.append(time.monotonic() - now - STEP_S)
    after, wall = process.cpu_times(), time.monotonic() - began
    spent = after.user + after.system - used.user - used.system
    lags.sort()
    found = {
        "cpu": 100 * spent / wall,
        "lag_p99_ms": 1e3 * lags[int(len(lags) * 0.99)],
        "lag_max_ms": 1e3 * lags[-1],
        "rss_mb": process.memory_info().rss / 1e6,
    }
    await asyncio.to_thread(report.write_text, json.dumps(found))
    app.exit()


async def main() -> None:
    what, socket, report, seconds = sys.argv[1:]
    app = app_for(what, socket)
    measuring = asyncio.create_task(measure(app, Path(report), float(seconds)))
    await app.run_async()
    await measuring


if __name__ == "__main__":
    asyncio.run(main())
