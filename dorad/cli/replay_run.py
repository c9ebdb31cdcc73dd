"""Run a replay: the dataflow with its replayer, keys of the terminal, and the check for rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import termios
import tty
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.cli.foreground import early_holder, report_result, run_dataflow
from dorad.cli.options import Launch, shown_lines
from dorad.commandline.reports import print_note
from dorad.daemon.broker.stepper import SteppingError
from dorad.record.replay.control import HELLO, NOT_YET, is_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from dorad.daemon.run import DataflowRun
    from dorad.dataflow.model import Dataflow
    from dorad.record.replay.config import ReplayConfig

KEYS = {" ": "toggle", "s": "step", "+": "faster", "-": "slower"}
POLL_S = 0.0005
MAX_ASKED = 100
"""Commands that may wait for an answer."""

END_POLL_S = 0.02
REST_S = 5.0
"""How long nodes that do not end by themselves may still send to each other, in seconds after the
replayer, and all nodes that do, have ended."""

_log = logging.getLogger(__name__)


def run_replay(
    dataflow: Dataflow, config: ReplayConfig, launch: Launch, endless: Collection[str]
) -> int:
    """Run until the recording is over and the nodes have ended; return the exit code.

    `endless` nodes do not end by themselves: they are stopped once the others have ended.
    """
    remotes: list[_Remote] = []

    def beside(run: DataflowRun) -> contextlib.AbstractAsyncContextManager[None]:
        remotes.append(_Remote(run, config.control, endless))
        return remotes[0].served()

    with early_holder() as holder:
        ended = run_dataflow(
            dataflow,
            holder,
            shown_lines(None, None),
            launch,
            stepped=config.step,
            beside=beside,
        )
    report_result(ended, verbose=False)
    return 0 if ended.ok and not any(each.failed for each in remotes) else 1


class _Remote:
    """The command's end of the connection to the replayer; see `dorad.record.replay.control`."""

    def __init__(self, run: DataflowRun, path: str, endless: Collection[str]) -> None:
        self._run = run
        self._path = path
        self._endless = frozenset(endless)
        self.failed = False
        """Whether the nodes could not be stepped to the end."""
        self._replayer: asyncio.StreamWriter | None = None
        self._asked: deque[asyncio.StreamWriter | None] = deque()
        """Who has sent each command that is not answered; None for a key."""

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve the replayer, and pass on keys, while the block runs."""
        self._remove()
        server = await asyncio.start_unix_server(self._serve, self._path)
        try:
            with self._keys():
                yield
        finally:
            server.close()
            self._remove()

    def _remove(self) -> None:
        Path(self._path).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await self._handle(line.decode("utf-8", "replace").strip(), writer)
        except (ConnectionError, ValueError) as error:  # ValueError: a line without an end
            _log.debug("a connection has ended: %s", error)
        finally:
            writer.close()
            if self._replayer is writer:
                self._replayer = None
                await self._end_nodes()

    async def _handle(self, text: str, writer: asyncio.StreamWriter) -> None:
        word, _, rest = text.partition(" ")
        if word == HELLO:
            self._replayer = writer
        elif word == "report":
            print_note(rest)
        elif word == "state" and self._asked:
            print_note(rest)
            if (asker := self._asked.popleft()) is not None:
                asker.write(f"{rest}\n".encode())
        elif word == "quiet":
            await self._wait_until_quiet()
            writer.write(f"quiet {rest}\n".encode())
            await writer.drain()
        elif word == "advance":
            number, _, time_ns = rest.partition(" ")
            answer = await self._advance(int(time_ns))
            writer.write((f"restless {answer}\n" if answer else f"quiet {number}\n").encode())
            await writer.drain()
        elif not is_command(text):
            writer.write(f"{text[:100]!r} is not a command\n".encode())
        elif not self._command(text, writer):
            writer.write(NOT_YET)

    async def _wait_until_quiet(self) -> None:
        """Wait until two looks in succession find all nodes asleep, and nothing changed."""
        from dorad.record.replay.plan import REPLAYER

        stats = self._run.broker.stats
        before = None
        while True:
            counters = stats.at_rest((REPLAYER,))
            if counters is not None and counters == before:
                return
            before = counters
            await asyncio.sleep(POLL_S if counters is None else 0)

    async def _advance(self, time_ns: int) -> str:
        """Step the nodes on to a time; return why that is not possible, or nothing."""
        stepper = self._run.broker.stepper
        if stepper is None:
            return "only `dora replay --step` steps nodes"
        try:
            await stepper.advance(time_ns)
        except SteppingError as error:
            self.failed = True
            return str(error)
        return ""

    async def _end_nodes(self) -> None:
        """Let all nodes finish, now that the replayer has ended, and stop those that run on."""
        stepper = self._run.broker.stepper
        if stepper is None and not self._endless:
            return  # each ends when its inputs close
        if stepper is None:
            await self._wait_for_ends()
        elif not self.failed:
            try:
                await stepper.finish()
            except SteppingError as error:
                self.failed = True
                self._run.report("error", None, str(error))
        if not self._run.supervisor.finished:
            _log.debug("the replay has ended: what still runs is stopped")
            self._run.stop()

    async def _wait_for_ends(self) -> None:
        """Wait until all nodes but endless ones have ended, and those rest, or REST_S later."""
        from dorad.dataflow.recording import records_or_replays

        loop, stats = asyncio.get_running_loop(), self._run.broker.stats
        tools = {node.id for node in self._run.dataflow.nodes if records_or_replays(node)}
        while not stats.connected() <= self._endless | tools:  # noqa: ASYNC110
            await asyncio.sleep(END_POLL_S)
        deadline, before = loop.time() + REST_S, None
        while loop.time() < deadline:
            counters = stats.at_rest(tools)
            if counters is not None and counters == before:
                return
            before = counters
            await asyncio.sleep(END_POLL_S)

    @contextlib.contextmanager
    def _keys(self) -> Iterator[None]:
        """Pass on the keys of a terminal."""
        if not sys.stdin.isatty() or os.getpgrp() != os.tcgetpgrp(sys.stdin.fileno()):
            yield
            return
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        loop = asyncio.get_running_loop()
        print_note("space pauses, s sends one message, + and - change the speed")
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, self._read_key, descriptor)
        try:
            yield
        finally:
            loop.remove_reader(descriptor)
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    def _read_key(self, descriptor: int) -> None:
        for key in os.read(descriptor, 64).decode("utf-8", "replace"):
            if key in KEYS:
                self._command(KEYS[key], None)

    def _command(self, text: str, asker: asyncio.StreamWriter | None) -> bool:
        """Pass a command on; return False if there is no replayer, or it is far behind."""
        if self._replayer is None or len(self._asked) >= MAX_ASKED:
            return False
        self._asked.append(asker)
        self._replayer.write(f"{text}\n".encode())
        return True
