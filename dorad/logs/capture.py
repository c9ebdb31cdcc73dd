"""Reading the output pipes of one process: bytes in, lines in the file and records out."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING

from dorad.logs.lines import MAX_LINE, Cut, cut_lines
from dorad.logs.record import LogRecord, Stream, parse_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dorad.logs.journal.forward import NodeJournal
    from dorad.logs.journal.writer import Journal
    from dorad.logs.nodelog import NodeLog
    from dorad.logs.staging import Stage, Staging

TAIL_LINES = 500
HOLD_S = 0.1
"""Seconds that the beginning of a traceback waits for the rest, to be one entry of the journal."""


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
        """Own the pipes (their read ends) and `staging` from here on, and close them.

        `adopted` says that another process read here before and may have died in the middle of it;
        its log is put right here, before anything is appended. `unit` is systemd's for the process.
        """
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """The last 500 lines of stderr, as the process wrote them; for the failure report."""
        self._log = log
        self._recalled_until: float | None = None
        """When we came, while what was read before lies in the journal alone."""
        self._staging = staging
        self._closed = asyncio.Event()
        self._open = 2
        if adopted:
            _put_right(staging.stdout, "stdout", log)
            _put_right(staging.stderr, "stderr", log)
            if log.journal is None:
                self.tail.extend(log.last_errors(TAIL_LINES))
            else:
                self._recalled_until = time.time()
        self._streams = (
            _Reader(stdout, staging.stdout, "stdout", log, self._on_closed, None, unit),
            _Reader(stderr, staging.stderr, "stderr", log, self._on_closed, self.tail, unit),
        )

    async def wait_closed(self) -> None:
        """Until every writer has closed the pipes and all of it has been passed on."""
        await self._closed.wait()

    async def drain(self) -> None:
        """Read what is in the pipes now, then close them, whoever still holds their other ends.

        To be called when the process has ended: a grandchild may keep the pipes open for ever. What
        fits into a pipe at most is read, so a grandchild that keeps writing does not hold it up.
        """
        for reader in self._streams:
            for _ in reader.drain():
                await reader.unblocked()

    def finish(self) -> None:
        """Do what `drain` does at once, whoever has to wait meanwhile. Idempotent."""
        for reader in self._streams:
            reader.wait_no_more()
            for _ in reader.drain():
                continue

    def _on_closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._staging.close()
            self._closed.set()

    async def recall(self) -> None:
        """Put what an earlier process read from stderr before what has been read since.

        Only for who needs it: reading the journal takes a program of its own.
        """
        until, self._recalled_until = self._recalled_until, None
        room = TAIL_LINES - len(self.tail)
        if until is None or not room:
            return
        loop = asyncio.get_running_loop()
        lines = await loop.run_in_executor(None, self._log.last_errors, room, until)
        self.tail.extendleft(reversed(lines))


def _put_right(stage: Stage, stream: Stream, log: NodeLog) -> None:
    """Undo what was written, or let go of it, whichever the one who died has not come to."""
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
        """Not set while lines wait for the journal; nothing is read then."""
        self._free.set()
        self._held: asyncio.TimerHandle | None = None
        """Set while the beginning of a traceback waits for the rest of it."""
        if log.journal is not None:
            log.journal.note(stage, stream)
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read_once)
        # What was read before somebody died must not wait for the node's next line.
        self._more = self._loop.call_soon(self._go_on) if stage.filled else None
        """Set while there may be complete lines in the staging memory; nothing is read then."""

    def drain(self) -> Iterator[None]:
        """Read all there is in steps, and end. Where lines wait for the journal, so must one."""
        budget = _pipe_size(self._pipe) if self._pipe >= 0 else 0
        while self._pipe >= 0:
            if self._more is not None:
                self._go_on()
            elif self._free.is_set():
                count = self._read_once() if budget > 0 else 0
                budget -= count
                if not count:
                    self._end()
            yield

    async def unblocked(self) -> None:
        """Let others do something, and wait until the journal takes lines again or is given up."""
        await asyncio.sleep(0)
        await self._free.wait()

    def wait_no_more(self) -> None:
        """What the journal does not take now goes to the file."""
        self._files_only = True
        if not self._free.is_set():
            self._unblock()

    def _read_once(self) -> int:
        """Read once, so that a node that writes without pause leaves time to others.

        Returns the number of bytes, 0 when there are none now or any more.
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
            self._go_on()
        return count

    def _go_on(self) -> None:
        """Move lines, and see to it that those that are left follow."""
        self._cancel()
        more = self._move()
        if more:
            self._more = self._loop.call_soon(self._go_on)
        elif self._final and self._free.is_set():
            self._let_go()

    def _end(self) -> None:
        """What is in the staging memory is all: move it, then let go."""
        if self._pipe >= 0 and not self._final:
            self._final = True
            self._loop.remove_reader(self._pipe)
            self._go_on()

    def _let_go(self) -> None:
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
        """Read nothing more until the journal takes lines, or is given up."""
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
        self._go_on()

    def _move(self, *, hold: bool = True) -> bool:
        """Move complete lines from the staging memory to where they belong.

        Returns whether there are more of them to be moved now.
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
            self._log.say(warning)
        if went.full and not journal.journal.given_up():
            self._block(journal.journal)
            return False
        if went.held:
            self._held = self._loop.call_later(HOLD_S, self._release)
            return False
        return went.full or cut.more

    def _release(self) -> None:
        """The rest of the traceback has not come in time."""
        self._held = None
        if self._free.is_set() and self._more is None and self._move(hold=False):
            self._more = self._loop.call_soon(self._go_on)

    def _pass_on(
        self, records: list[LogRecord], lines: list[bytes], warning: LogRecord | None
    ) -> None:
        if self._tail is not None:
            recent = lines[-TAIL_LINES:]
            self._tail.extend(line.decode("utf-8", "replace") for line in recent)
        if warning is not None:
            records.append(warning)
        self._log.deliver(records, lines)

    def _write(self, lines: Sequence[bytes], used: int, *, skipping: bool) -> None:
        """Append lines to the file, then let go of the bytes they were made of."""
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
        """Append as many lines at a time as the file takes before it has to be rotated."""
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
        """Once for each stream: its bytes are not what is shown."""
        if not any("\ufffd" in record.message for record in records):
            return None
        try:
            b"\n".join(lines).decode()
        except UnicodeDecodeError:
            self._warned = True
            text = f"{self._stream} is not UTF-8; what cannot be read is shown as \ufffd"
            return LogRecord(now, "warn", self._log.node, text, self._stream, "dora")
        return None


def _pipe_size(pipe: int) -> int:
    import fcntl

    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
