"""Reading the output pipes of one process: bytes in, lines in the file and records out."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING

from dorad.logrecord import LogRecord, Stream
from dorad.logs.excerpt import MAX_CHARACTERS
from dorad.logs.record import parse_line
from dorad.logs.staging import MAX_LINE, Cut, Stage, Staging, cut_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dorad.logs.journal.forward import NodeJournal
    from dorad.logs.journal.writer import Journal
    from dorad.logs.nodelog import NodeLog

TAIL_LINES = 500
TRACEBACK_WAIT_S = 0.1
"""Seconds that the beginning of a traceback waits for the rest, to form one journal entry."""


class Capture:
    """Reads both pipes of one process until they end. Needs a running event loop."""

    def __init__(
        self,
        stdout: int,
        stderr: int,
        staging: Staging,
        log: NodeLog,
        *,
        adopted: bool = False,
        unit: str | None = None,
    ) -> None:
        """Take ownership of the pipes (their read ends) and of `staging`.

        `adopted` means that a previous process read these pipes and may have died halfway; its log
        is repaired before anything is appended. `unit` is the process's systemd unit.
        """
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """The beginnings of the last 500 lines of stderr; for the failure report."""
        self._log = log
        self._recalled_until: float | None = None
        """When this capture began, while earlier lines are still only in the journal."""
        self._staging = staging
        self._closed = asyncio.Event()
        self._open = 2
        if adopted:
            _recover(staging.stdout, "stdout", log)
            _recover(staging.stderr, "stderr", log)
            if log.journal is None:
                self.tail.extend(log.last_errors(TAIL_LINES))
            else:
                self._recalled_until = time.time()
        self._streams = (
            _Reader(stdout, staging.stdout, "stdout", log, self._on_closed, None, unit),
            _Reader(stderr, staging.stderr, "stderr", log, self._on_closed, self.tail, unit),
        )

    async def wait_closed(self) -> None:
        """Wait until every writer has closed the pipes and all lines have been passed on."""
        await self._closed.wait()

    async def drain(self) -> None:
        """Read what is in the pipes now, then close them, even if they have other writers.

        Call this when the process has ended: a grandchild may keep the pipes open forever. At most
        one pipe's capacity is read, so a grandchild that keeps writing does not delay the end.
        """
        for reader in self._streams:
            for _ in reader.drain():
                await reader.unblocked()

    def finish(self) -> None:
        """Do the same as `drain`, but block the event loop meanwhile. Idempotent."""
        for reader in self._streams:
            reader.stop_waiting()
            for _ in reader.drain():
                continue

    def _on_closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._staging.close()
            self._closed.set()

    async def recall(self) -> None:
        """Prepend to `tail` the stderr lines that a previous process read.

        Call this only when the tail is needed: reading the journal starts a program.
        """
        until, self._recalled_until = self._recalled_until, None
        room = TAIL_LINES - len(self.tail)
        if until is None or not room:
            return
        loop = asyncio.get_running_loop()
        lines = await loop.run_in_executor(None, self._log.last_errors, room, until)
        self.tail.extendleft(reversed(lines))


def _recover(stage: Stage, stream: Stream, log: NodeLog) -> None:
    """Finish the interrupted write of a process that died: undo it, or discard what it sent."""
    size = stage.recover()
    if size is not None:
        log.file.cut_to(size)
        stage.forget_batch()
    if log.journal is not None:
        log.journal.settle(stage, stream)
    else:
        stage.settle(arrived=False)


class _Reader:
    """Reads one pipe."""

    def __init__(
        self,
        pipe: int,
        stage: Stage,
        stream: Stream,
        log: NodeLog,
        on_closed: Callable[[], None],
        tail: deque[str] | None,
        unit: str | None,
    ) -> None:
        self._pipe = pipe
        self._stage = stage
        self._stream = stream
        self._log = log
        self._on_closed = on_closed
        self._tail = tail
        self._unit = unit
        self._warned = False
        self._final = False
        """Whether there is nothing left to read."""
        self._files_only = False
        self._free = asyncio.Event()
        """Cleared while lines wait for the journal; reading pauses then."""
        self._free.set()
        self._held: asyncio.TimerHandle | None = None
        """Set while the beginning of a traceback waits for the rest of it."""
        if log.journal is not None:
            log.journal.record_last(stage, stream)
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read_once)
        # Lines that a dead process has read must not wait for the node's next line.
        self._more = self._loop.call_soon(self._move_on) if stage.filled else None
        """Set while the staging memory may hold complete lines; reading pauses then."""

    def drain(self) -> Iterator[None]:
        """Read the rest step by step, and end. After each step, wait for `unblocked`."""
        budget = _pipe_size(self._pipe) if self._pipe >= 0 else 0
        while self._pipe >= 0:
            if self._more is not None:
                self._move_on()
            elif self._free.is_set():
                count = self._read_once() if budget > 0 else 0
                budget -= count
                if not count:
                    self._end()
            yield

    async def unblocked(self) -> None:
        """Yield to other tasks, and wait until the journal takes lines again or is given up."""
        await asyncio.sleep(0)
        await self._free.wait()

    def stop_waiting(self) -> None:
        """Write to the file what the journal does not take now."""
        self._files_only = True
        if not self._free.is_set():
            self._unblock()

    def _read_once(self) -> int:
        """Read once, so that a node that writes without pause does not starve others.

        Returns the number of bytes; 0 if there are none now, or at the end.
        """
        if self._pipe < 0 or self._more is not None or self._final or not self._free.is_set():
            return 0
        try:
            count = self._stage.read(self._pipe)
        except BlockingIOError:
            return 0
        if not count:
            self._end()
        elif self._stage.newest_has_newline(count) or self._stage.filled > MAX_LINE:
            self._move_on()
        return count

    def _move_on(self) -> None:
        """Move lines, and schedule the move of the remaining ones."""
        self._cancel()
        more = self._move()
        if more:
            self._more = self._loop.call_soon(self._move_on)
        elif self._final and self._free.is_set():
            self._close()

    def _end(self) -> None:
        """Stop reading, move what is in the staging memory, then close the pipe."""
        if self._pipe >= 0 and not self._final:
            self._final = True
            self._loop.remove_reader(self._pipe)
            self._move_on()

    def _close(self) -> None:
        self._cancel()
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        self._pipe = -1
        self._free.set()
        self._on_closed()

    def _cancel(self) -> None:
        for handle in (self._more, self._held):
            if handle is not None:
                handle.cancel()
        self._more = self._held = None

    def _block(self, journal: Journal) -> None:
        """Pause reading until the journal takes lines, or is given up."""
        self._free.clear()
        if not self._final:
            self._loop.remove_reader(self._pipe)
        journal.when_writable(self._unblock)

    def _unblock(self) -> None:
        if self._pipe < 0 or self._free.is_set():
            return
        self._free.set()
        if not self._final:
            self._loop.add_reader(self._pipe, self._read_once)
        self._move_on()

    def _move(self, *, hold: bool = True) -> bool:
        """Move complete lines from the staging memory to the journal or the file.

        Returns True if more lines can be moved now.
        """
        cut = cut_lines(self._stage.data(), self._stage.skipping, final=self._final)
        if not cut.lines:
            if cut.used:
                self._stage.commit(cut.used, skipping=cut.skipping)
            return False
        now = time.time()
        node = self._log.node
        records = [parse_line(line, node, self._stream, now) for line in cut.lines]
        warning = None if self._warned else self._encoding_warning(cut.lines, records, now)
        journal = None if self._files_only else self._log.journal
        if journal is not None and journal.usable():
            hold = hold and not self._final
            return self._move_to_journal(journal, cut, records, warning, hold=hold)
        written = self._log.encode(records, warning)
        if self._log.file.max_size is None:
            self._write(written, cut.used, skipping=cut.skipping)
        else:
            self._write_in_parts(written, cut.ends(), cut.used, skipping=cut.skipping)
        self._pass_on(records, cut.lines, warning)
        return cut.more

    def _move_to_journal(
        self,
        journal: NodeJournal,
        cut: Cut,
        records: list[LogRecord],
        warning: LogRecord | None,
        *,
        hold: bool,
    ) -> bool:
        went = journal.forward(
            self._stage, cut, records, self._log.passes, unit=self._unit, hold=hold
        )
        if went.lines:
            self._pass_on(records[: went.lines], cut.lines[: went.lines], None)
        if warning is not None:
            self._log.report(warning)
        if went.full and not journal.journal.given_up():
            self._block(journal.journal)
            return False
        if went.held:
            self._held = self._loop.call_later(TRACEBACK_WAIT_S, self._release)
            return False
        return went.full or cut.more

    def _release(self) -> None:
        """Move an incomplete traceback whose rest did not come in time."""
        self._held = None
        if self._free.is_set() and self._more is None and self._move(hold=False):
            self._more = self._loop.call_soon(self._move_on)

    def _pass_on(
        self, records: list[LogRecord], lines: list[bytes], warning: LogRecord | None
    ) -> None:
        if self._tail is not None:
            recent = lines[-TAIL_LINES:]
            self._tail.extend(
                line[: 4 * MAX_CHARACTERS].decode("utf-8", "replace")[:MAX_CHARACTERS]
                for line in recent
            )
        if warning is not None:
            records.append(warning)
        self._log.deliver(records, lines)

    def _write(self, lines: Sequence[bytes], used: int, *, skipping: bool) -> None:
        """Append lines to the file, then release their bytes in the staging memory."""
        data = b"".join(lines)
        if data:
            file = self._log.file
            size = file.begin()
            if size is None:
                file.skip(data.count(b"\n"))
            else:
                self._stage.begin(size)
                file.append(data, data.count(b"\n"))
        self._stage.commit(used, skipping=skipping)

    def _write_in_parts(
        self, lines: Sequence[bytes], ends: Sequence[int], used: int, *, skipping: bool
    ) -> None:
        """Append lines in parts, each as large as fits before the next rotation."""
        file = self._log.file
        assert file.max_size is not None
        done = at = 0
        while at < len(lines):
            room = file.max_size - (file.begin() or 0)
            sizes = accumulate(len(line) for line in lines[at:])
            count = next((n for n, size in enumerate(sizes, 1) if size >= room), len(lines) - at)
            last = at + count == len(lines)
            end = used if last else ends[at + count - 1]
            self._write(lines[at : at + count], end - done, skipping=last and skipping)
            at += count
            done = end

    def _encoding_warning(
        self, lines: Sequence[bytes], records: Sequence[LogRecord], now: float
    ) -> LogRecord | None:
        """Return a warning the first time that a stream has invalid UTF-8."""
        if not any("\ufffd" in record.message for record in records):
            return None
        try:
            b"\n".join(lines).decode()
        except UnicodeDecodeError:
            self._warned = True
            text = f"{self._stream} is not UTF-8; invalid bytes are shown as \ufffd"
            return LogRecord(now, "warn", self._log.node, text, self._stream, "dora")
        return None


def _pipe_size(pipe: int) -> int:
    import fcntl

    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
