"""Reading a node's output pipe: bytes in, records out, nothing lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from dorad.logs.lines import LineSplitter
from dorad.logs.record import LogRecord, Stream, parse_line

Sink = Callable[[Sequence[LogRecord]], None]
"""Gets the records of one read at a time, in order; must not block."""

TAIL_LINES = 500
_READ_BYTES = 1 << 16


class Capture:
    """Reads one pipe of one node until it ends. Needs a running event loop."""

    def __init__(self, fd: int, node: str, stream: Stream, sink: Sink) -> None:
        """Owns `fd` (the read end) from here on and closes it."""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """The last 500 lines, as written by the node; for the failure report."""
        self._fd = fd
        self._node = node
        self._stream = stream
        self._sink = sink
        self._lines = LineSplitter()
        self._warned = False
        self._closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read_once)

    async def wait_closed(self) -> None:
        """Until every writer has closed the pipe and all of it has reached the sink."""
        await self._closed.wait()

    def finish(self) -> None:
        """Read what is in the pipe now, then close it, whoever still holds its other end.

        To be called when the node has ended: a grandchild may keep the pipe open for ever. What
        fits into a pipe at most is read, so a grandchild that keeps writing does not hold it up.
        """
        budget = _pipe_size(self._fd) if not self._closed.is_set() else 0
        while budget > 0 and (count := self._read_once()):
            budget -= count
        self._close()

    def _read_once(self) -> int:
        """One read, so that a node that writes without pause leaves time to others.

        Returns the number of bytes, 0 when there are none now or any more.
        """
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return 0
        if data:
            self._emit(self._lines.feed(data))
        else:
            self._close()
        return len(data)

    def _close(self) -> None:
        if self._closed.is_set():
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._closed.set()
        self._emit(self._lines.end())

    def _emit(self, lines: list[bytes]) -> None:
        if not lines:
            return
        now = time.time()
        records = [parse_line(line, self._node, self._stream, now) for line in lines]
        recent = islice(lines, max(0, len(lines) - TAIL_LINES), None)
        self.tail.extend(line.decode("utf-8", "replace") for line in recent)
        if not self._warned and any("\ufffd" in record.message for record in records):
            records += self._encoding_warning(lines, now)
        self._sink(records)

    def _encoding_warning(self, lines: list[bytes], now: float) -> list[LogRecord]:
        """Once for each stream: its bytes are not what is shown."""
        try:
            b"\n".join(lines).decode()
        except UnicodeDecodeError:
            self._warned = True
            text = f"{self._stream} is not UTF-8; what cannot be read is shown as \ufffd"
            return [LogRecord(now, "warn", self._node, text, self._stream, "dora")]
        return []


def _pipe_size(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
