"""Staying with a dataflow that runs under the daemon: its log, Ctrl-C, and its end."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from dorad.cli.interrupts import Interrupts, from_thread
from dorad.cli.live import LiveLog, writer
from dorad.cli.logsources import record_of
from dorad.cli.reporting import print_line, print_note, print_warning
from dorad.cli.stop import report_end
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.logs.filter import LogFilter
from dorad.logs.format import formatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.messages import DataflowState

LAST_LINES_S = 5.0
"""Seconds that the last log lines have to arrive after the end of the dataflow."""


class Attached:
    """Stops a dataflow from afar; what `Interrupts` acts on."""

    def __init__(self, client: AsyncClient, uuid: str) -> None:
        self.forced = False
        """Whether the user did not want to wait for the nodes."""
        self._client = client
        self._uuid = uuid
        self._stops: list[asyncio.Task[DataflowState]] = []

    def stop(self) -> None:
        """Ask every node to end."""
        self._stop(force=False)

    def kill(self, why: str) -> None:
        """Kill every node."""
        del why
        self.forced = True
        self._stop(force=True)

    def abandon(self) -> None:
        """Leave the rest to the daemon."""

    def _stop(self, *, force: bool) -> None:
        stopping = self._client.stop(self._uuid, force=force)
        self._stops.append(asyncio.get_running_loop().create_task(stopping))

    async def finish(self) -> None:
        """Wait until the daemon has answered every request to stop."""
        await asyncio.gather(*self._stops)


def follow(uuid: str, nodes: Sequence[str]) -> int:
    """Show what the nodes print until the dataflow has ended; return the exit code.

    Raises:
        ControlError: the daemon went away; the dataflow may still run.
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
            try:
                state = await client.wait(uuid, until="ended")
                await asyncio.wait({lines}, timeout=LAST_LINES_S)
            finally:
                lines.cancel()
                await asyncio.gather(lines, return_exceptions=True)
        await attached.finish()
    return state, attached.forced


async def _show_lines(client: AsyncClient, uuid: str, live: LiveLog) -> None:
    """Show lines until the dataflow has ended. That they cannot be had does not end it."""
    try:
        async for lines in client.logs(uuid, follow=True):
            live.take([record_of(line) for line in lines.lines])
            if lines.left_out:
                print_note(f"{lines.left_out} lines are left out: output is too slow")
    except ControlError as error:
        if error.code != "unavailable":  # of that `wait` tells as well
            print_warning(f"no more log lines: {error}")
