"""Write live log lines to standard output in a thread.

A paused terminal or a slow reader must not delay the handling of signals and deadlines. Lines wait
in a queue. A full queue first slows the nodes down; after that, lines are dropped and counted. So
are lines that a full disk refuses: the nodes do not stop because nobody can read about them.
"""

from __future__ import annotations

import io
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, TextIO

from dorad.commandline.reports import print_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.logrecord import LogRecord
    from dorad.logs.filter import LogFilter
    from dorad.logs.format import Formatter

BACKLOG = 20_000
"""Maximum number of lines that wait for the reader."""
ROOM_TIMEOUT_S = 0.2
"""Seconds that a batch waits for room before it is dropped."""
CLOSE_S = 5.0
"""Seconds that the last lines wait for the reader."""


def writer(stream: TextIO) -> Callable[[str], None]:
    """Return a function that writes to the file descriptor of `stream`, if it has one.

    This bypasses the stream's lock: a thread stuck in a write would hold it, and the interpreter
    could not exit.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, io.UnsupportedOperation):
        return lambda text: _write_through(stream, text)
    stream.flush()

    def write(text: str) -> None:
        rest = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # another process made it non-blocking
                select.select([], [descriptor], [])

    return write


def _write_through(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


class LiveLog:
    """Queues records that pass the filter, and writes them in a thread. A context manager."""

    def __init__(
        self,
        write: Callable[[str], None],
        line: Formatter,
        shown: LogFilter,
        *,
        quiet: bool = False,
    ) -> None:
        """`quiet` writes nothing at all."""
        self.on_broken: Callable[[], None] | None = None
        """Called once, in the writing thread, when the reader has closed the stream."""
        self._write = write
        self._line = line
        self._shown = shown
        self._quiet = quiet
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False
        self._left_out = 0
        self._unwritten = 0
        """Number of lines that did not fit on the disk."""
        self._thread = threading.Thread(target=self._work, name="live log", daemon=True)

    def __enter__(self) -> LiveLog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)
        if self._unwritten:
            print_warning(f"lines of the output that could not be written: {self._unwritten}")

    @property
    def stuck(self) -> bool:
        """Whether the last lines could not be written in time."""
        return self._closing and self._thread.is_alive()

    def take(self, records: Sequence[LogRecord]) -> None:
        """Queue the lines of `records`. Blocks for a moment if the queue is full."""
        if self._quiet:
            return
        lines = [self._line(record) + "\n" for record in records if self._shown.passes(record)]
        if not lines:
            return
        with self._changed:
            self._changed.wait_for(self._has_room, ROOM_TIMEOUT_S)
            if self._broken:
                return
            if not self._has_room():
                self._left_out += len(lines)
                return
            if self._left_out:
                self._lines.append(f"... {self._left_out} lines left out: output is too slow ...\n")
                self._left_out = 0
            self._lines.extend(lines)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._broken or len(self._lines) < BACKLOG

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closing)
                if not self._lines:
                    return
                text = "".join(self._lines)
                self._lines.clear()
                self._changed.notify_all()
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # the reader or the stream has closed
                if isinstance(error, OSError) and _is_full(error):
                    self._drop(text, error)
                    continue
                with self._changed:
                    self._broken = True
                    self._changed.notify_all()
                if self.on_broken is not None:
                    self.on_broken()
                return

    def _drop(self, text: str, error: OSError) -> None:
        if not self._unwritten:
            print_warning(f"cannot write the output: {error.strerror}; the dataflow runs on")
        self._unwritten += text.count("\n")


def _is_full(error: OSError) -> bool:
    from dorad.atomicfile import DISK_FULL  # here, because few runs need it

    return error.errno in DISK_FULL
