"""Attach to a dataflow that runs under the daemon: show its log, handle Ctrl-C, report its end."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from dorad.cli.interrupts import Interrupts, from_thread
from dorad.cli.live import LiveLog, writer
from dorad.commandline.reports import print_line, print_note, print_warning, report_end
from dorad.commandline.startprogress import show_start
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.logs.filter import LogFilter
from dorad.logs.format import formatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.messages import DataflowState

LAST_LINES_S = 5.0
"""Seconds to wait for the last log lines after the end of the dataflow."""


class Attached:
    """Stops a dataflow through the daemon, for `Interrupts`."""

    def __init__(self, client: AsyncClient, uuid: str) -> None:
        self.forced = False
        """Whether the user had the nodes killed."""
        self._client = client
        self._uuid = uuid
        self._stops: list[asyncio.Task[DataflowState]] = []

    def stop(self) -> None:
        """Ask every node to stop."""
        self._stop(force=False)

    def kill(self, why: str) -> None:
        """Kill every node."""
        del why
        self.forced = True
        self._stop(force=True)

    def abandon(self) -> None:
        """Do nothing: the daemon stops the rest."""

    def _stop(self, *, force: bool) -> None:
        stopping = self._client.stop(self._uuid, force=force)
        self._stops.append(asyncio.get_running_loop().create_task(stopping))

    async def finish(self) -> None:
        """Wait until the daemon has answered all requests to stop."""
        await asyncio.gather(*self._stops)


def follow(uuid: str, nodes: Sequence[str]) -> int:
    """Show what the nodes print until the dataflow has ended; return the exit code.

    Raises:
        ControlError: the connection to the daemon was lost; the dataflow may still run.
    """
    state, forced = asyncio.run(_follow(uuid, nodes))
    return 0 if report_end(state) and not forced else 1


async def _follow(uuid: str, nodes: Sequence[str]) -> tuple[DataflowState, bool]:
    loop = asyncio.get_running_loop()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    line = formatter("pretty", dataflow_id=uuid, nodes=nodes, color=colour)
    live = LiveLog(writer(sys.stdout), line, LogFilter(), quiet="DORA_QUIET" in os.environ)
    async with AsyncClient() as client:
        attached = Attached(client, uuid)
        Interrupts(attached, lambda text: print_line("dora:", "cyan", text)).install(loop)
        live.on_broken = from_thread(loop, attached.stop)
        with live:
            lines = loop.create_task(_show_lines(client, uuid, live))
            # Its errors are those that `wait` below reports.
            start = loop.create_task(show_start(client, uuid))
            try:
                state = await client.wait(uuid, until="ended")
                await asyncio.wait({lines}, timeout=LAST_LINES_S)
            finally:
                lines.cancel()
                start.cancel()
                await asyncio.gather(lines, start, return_exceptions=True)
        await attached.finish()
    return state, attached.forced


async def _show_lines(client: AsyncClient, uuid: str, live: LiveLog) -> None:
    """Show log lines until the dataflow has ended. If reading them fails, only warn."""
    try:
        async for lines in client.logs(uuid, follow=True):
            live.take(lines.lines)
            if lines.left_out:
                print_note(f"{lines.left_out} lines left out: the output is too slow")
    except ControlError as error:
        if error.code != "unavailable":  # `wait` reports that one
            print_warning(f"no more log lines: {error}")
