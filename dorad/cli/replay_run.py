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
from dorad.cli.options import shown_lines
from dorad.cli.reporting import print_note
from dorad.record.control import HELLO, NOT_YET, is_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from dorad.daemon.run import DataflowRun
    from dorad.dataflow.model import Dataflow
    from dorad.record.config import ReplayConfig

KEYS = {" ": "toggle", "s": "step", "+": "faster", "-": "slower"}
POLL_S = 0.0005
MAX_ASKED = 100
"""Commands that may wait for an answer."""

_log = logging.getLogger(__name__)


def run_replay(
    dataflow: Dataflow, config: ReplayConfig, *, uv: bool, allow_shell: bool, env: Mapping[str, str]
) -> int:
    """Run until the recording is over and the nodes have ended; return the exit code."""
    with early_holder() as holder:
        ended = run_dataflow(
            dataflow,
            holder,
            shown_lines(None, None),
            uv=uv,
            allow_shell=allow_shell,
            env=env,
            finish_flag=True,
            beside=lambda run: _Remote(run, config.control).served(),
        )
    report_result(ended, verbose=False)
    return 0 if ended.ok else 1


class _Remote:
    """The command's end of the connection to the replayer; see `dorad.record.control`."""

    def __init__(self, run: DataflowRun, path: str) -> None:
        self._run = run
        self._path = path
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
            if self._replayer is writer:
                self._replayer = None
            writer.close()

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
        elif not is_command(text):
            writer.write(f"{text[:100]!r} is not a command\n".encode())
        elif not self._command(text, writer):
            writer.write(NOT_YET)

    async def _wait_until_quiet(self) -> None:
        """Wait until two looks in succession find all nodes asleep, and nothing changed."""
        from dorad.record.rewire import REPLAYER

        stats = self._run.broker.stats
        before = None
        while True:
            found = stats.at_rest((REPLAYER,))
            if found is not None and found == before:
                return
            before = found
            await asyncio.sleep(POLL_S if found is None else 0)

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
