"""Shared memory between the pipes of a node's process and its log file.

Bytes are read from a pipe straight into it, and stay until they are in the file. The host keeps the
memory beside the pipes. So a daemon that is killed at any moment, even during a read or a write,
leaves everything that its successor needs: no line is lost or duplicated.

    a page of words | stdout: bank 0, bank 1 | stderr: bank 0, bank 1

A bank is slightly larger than 1 MiB, but uses only the memory that its lines need. One bank of a
stream is active: it holds FILLED bytes that are not in the file, then zeros, where the next read
goes. Lines move to the file in three steps:

1. BATCH is set to the file's size.
2. The lines are appended.
3. The incomplete rest is copied to the other bank, and one store of a word makes that bank active.
   This is the commit.

After a death between 1 and 3, the file is cut to BATCH and the same lines are appended again. After
a death inside a read, the zeros show how much was read.

Entries for the journal are sent one by one. SENDING is set to where the next entry ends in the
bank; the entry is sent; SENT is set to the same end and the number of entries, in one word. After
a death between these steps, only the journal knows whether it got the entry: it is searched for
the entry's number.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from itertools import accumulate
from typing import NamedTuple

from dorad.shm.check import check_memory

MAX_LINE = 1 << 20
"""Maximum number of bytes kept of a line; the rest is dropped."""
MAX_LINES = 1000
"""Maximum number of lines cut off at a time, so that one node does not delay others."""
CUT_MARKER = " … [line cut at 1 MiB]".encode()


class Cut(NamedTuple):
    """The complete lines at the beginning of some bytes, and where they end."""

    lines: list[bytes]
    """Lines without newlines and carriage returns."""
    used: int
    """Number of bytes that these lines took."""
    more: bool
    """Whether more complete lines follow."""
    skipping: bool
    """Whether the next byte belongs to the dropped rest of a line that was cut."""
    start: int
    """Where the first line begins, after the dropped rest of an earlier one."""
    pieces: list[bytes]
    """The lines before shortening, without newlines."""

    def ends(self) -> list[int]:
        """Return where each line ends, its newline included."""
        sizes = (len(piece) + 1 for piece in self.pieces)
        return [min(end, self.used) for end in accumulate(sizes, initial=self.start)][1:]


def cut_lines(data: bytes, skipping: bool, *, final: bool = False) -> Cut:
    """Cut complete lines off `data`, at most 1000.

    `skipping` means that `data` begins inside the dropped rest of a line. A line longer than 1 MiB
    is returned at once, cut and marked. `final` means that no more data follows, so a last line
    without a newline is complete, too.
    """
    start = 0
    if skipping:
        start = data.find(b"\n") + 1
        if not start:
            return Cut([], len(data), False, not final, len(data), [])
    pieces = (data[start:] if start else data).split(b"\n", MAX_LINES)
    rest = pieces.pop()
    used = len(data) - len(rest)
    more = len(pieces) == MAX_LINES and b"\n" in rest
    too_long = not more and len(rest) > MAX_LINE
    if rest and not more and (final or too_long):
        pieces.append(rest)
        used = len(data)
    lines = pieces
    if len(data) > MAX_LINE or b"\r" in data:
        lines = [_complete(piece) for piece in pieces]
    return Cut(lines, used, more, too_long and not final, start, pieces)


def _complete(line: bytes) -> bytes:
    if len(line) > MAX_LINE:
        return line[:MAX_LINE] + CUT_MARKER
    return line.removesuffix(b"\r")


CHUNK = 16 << 10
"""Maximum size of one read, so that one node does not delay others."""

_PAGE = 4096
_BANK = MAX_LINE + 4 * CHUNK
_STREAMS = 2
_SIZE = _PAGE + _STREAMS * 2 * _BANK
_ZEROS = bytes(CHUNK)
_LARGE = 16 * CHUNK

# Word offsets of a stream within the page.
_ACTIVE = 0
_FIRST = 1  # the number before that of the first entry, microseconds since 1970
_BANK_WORDS = 8  # offset of bank 0's words; bank 1's are as far behind
_FILLED = 0
_SKIPPING = 1
_BATCH = 2  # size of the file before the batch, plus 1; 0 is no batch
_SENT = 3  # where the last entry ends in the bank (24 bits), and entries of this stream so far
_SENDING = 4  # where the next entry ends, times 2, and whether the rest of its line is dropped
_END_BITS = 24
_STREAM_WORDS = 64


def create() -> int:
    """Return the descriptor of new, empty staging memory. Raises OSError."""
    descriptor = os.memfd_create("dora-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, _SIZE)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Staging:
    """The memory of both streams, mapped; the descriptor stays the caller's.

    Raises:
        ValueError: the descriptor is not staging memory.
        OSError: it cannot be mapped.
    """

    def __init__(self, descriptor: int) -> None:
        check_memory("the staging memory of its log", descriptor, _SIZE)
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._view = memoryview(self._memory)
        words = self._view[:_PAGE].cast("Q")
        self._words = words
        self.stdout = Stage(self._memory, self._view, words[:_STREAM_WORDS], _PAGE)
        self.stderr = Stage(
            self._memory, self._view, words[_STREAM_WORDS : 2 * _STREAM_WORDS], _PAGE + 2 * _BANK
        )

    def close(self) -> None:
        """Unmap the memory. Idempotent."""
        if self._memory.closed:
            return
        for view in (self.stdout.words, self.stderr.words, self._words, self._view):
            view.release()
        self._memory.close()


class Stage:
    """The memory of one stream."""

    def __init__(self, memory: mmap.mmap, view: memoryview, words: memoryview, offset: int) -> None:
        self.words = words
        self._memory = memory
        self._view = view
        self._offset = offset
        if not words[_FIRST]:
            words[_FIRST] = time.time_ns() // 1000

    @property
    def filled(self) -> int:
        """Number of bytes that were read and are not in the file."""
        return int(self.words[self._bank() + _FILLED])

    @property
    def skipping(self) -> bool:
        """Whether these bytes begin inside the dropped rest of a line that was cut."""
        return bool(self.words[self._bank() + _SKIPPING])

    def read(self, pipe: int) -> int:
        """Read once from `pipe` and return the number of bytes, 0 at its end.

        Raises:
            BlockingIOError: there is nothing to read now.
        """
        filled = self.filled
        begin = self._base() + filled
        with self._view[begin : begin + CHUNK] as room:
            count = os.readv(pipe, [room])
        self._grow(filled, count)
        return count

    def newest_has_newline(self, count: int) -> bool:
        """Return True if there is a newline among the last `count` bytes."""
        end = self._base() + self.filled
        return self._memory.find(b"\n", end - count, end) >= 0

    def data(self) -> bytes:
        """Return a copy of the bytes that are not in the file."""
        begin = self._base()
        return self._memory[begin : begin + self.filled]

    def begin(self, file_size: int) -> None:
        """Record that lines are about to be appended to a file of this size."""
        self.words[self._bank() + _BATCH] = file_size + 1

    def commit(self, used: int, *, skipping: bool) -> None:
        """Release the first `used` bytes: their lines are in the file."""
        old = self._base()
        filled = self.filled
        rest = filled - used
        other = 1 - self.words[_ACTIVE]
        new = self._offset + other * _BANK
        self._memory[new : new + rest] = self._memory[old + used : old + filled]
        self._memory[new + rest : new + rest + CHUNK] = _ZEROS
        new_words = (1 + other) * _BANK_WORDS
        self.words[new_words + _SENT] = self._sent() >> _END_BITS << _END_BITS
        self.words[new_words + _SENDING] = 0
        self.words[new_words + _FILLED] = rest
        self.words[new_words + _SKIPPING] = int(skipping)
        self.words[new_words + _BATCH] = 0
        self.words[_ACTIVE] = other
        if filled > _LARGE:
            self._memory.madvise(mmap.MADV_REMOVE, old, _BANK)

    def recover(self) -> int | None:
        """Recover after the death of the process that read here.

        Returns the size to which to cut the file before appending to it; None if no batch was under
        way.
        """
        filled = self.filled
        begin = self._base() + filled
        read = self._memory[begin : begin + CHUNK].rstrip(b"\0")
        self._grow(filled, len(read))
        batch = self.words[self._bank() + _BATCH]
        return batch - 1 if batch else None

    def forget_batch(self) -> None:
        """Record that the file has been cut, so that it is not cut again."""
        self.words[self._bank() + _BATCH] = 0

    @property
    def number(self) -> int:
        """The number of the last journal entry; it rises over all processes of a node."""
        return int(self.words[_FIRST]) + (self._sent() >> _END_BITS)

    def sending(self, end: int, *, skipping: bool) -> None:
        """Record that an entry made of the bytes up to `end` is about to be sent."""
        self.words[self._bank() + _SENDING] = end << 1 | skipping

    def sent(self) -> None:
        """Record that it was sent."""
        end = self.words[self._bank() + _SENDING] >> 1
        count = (self._sent() >> _END_BITS) + 1
        self.words[self._bank() + _SENT] = count << _END_BITS | end

    def not_sent(self) -> None:
        """Record that it was not sent."""
        self.words[self._bank() + _SENDING] = 0

    def unconfirmed(self) -> int | None:
        """Return the number of the entry that a dead process may or may not have sent, if any."""
        if self.words[self._bank() + _SENDING] >> 1 > self._sent_end():
            return self.number + 1
        return None

    def settle(self, *, arrived: bool) -> None:
        """Release the entries that a dead process sent; `arrived` is about the unconfirmed one."""
        if self.unconfirmed() is not None:
            if arrived:
                self.sent()
            else:
                self.not_sent()
        end = self._sent_end()
        if end:
            last = self.words[self._bank() + _SENDING]
            self.commit(end, skipping=last >> 1 == end and bool(last & 1))

    def _sent(self) -> int:
        return int(self.words[self._bank() + _SENT])

    def _sent_end(self) -> int:
        return self._sent() & ((1 << _END_BITS) - 1)

    def _grow(self, filled: int, count: int) -> None:
        """Record `count` more bytes, after writing the zeros behind them."""
        behind = self._base() + filled + CHUNK
        self._memory[behind : behind + count] = _ZEROS[:count]
        self.words[self._bank() + _FILLED] = filled + count

    def _bank(self) -> int:
        return int(1 + self.words[_ACTIVE]) * _BANK_WORDS

    def _base(self) -> int:
        return self._offset + int(self.words[_ACTIVE]) * _BANK
