"""Shared memory between the pipes of a node's process and its log file.

What is read from a pipe goes straight into it, and leaves it once it is in the file. The host keeps
the memory beside the pipes. So a daemon that is killed at any moment, even inside the reading or
the writing, leaves all its successor needs: no line is lost from the file or doubled.

    a page of words | stdout: bank 0, bank 1 | stderr: bank 0, bank 1

A bank is 1 MiB and a little, but memory is taken only for what lines need. One bank of a stream is
active: it holds FILLED bytes that are not in the file, and zeros after them, where the next read
goes. Lines move to the file in three steps: BATCH takes the file's size; the lines are appended;
the incomplete rest is copied to the other bank, and that one becomes active with one store of a
word, which is the commit. After a death in between BATCH tells where to cut the file before the
same lines are appended again. After a death inside a read, the zeros tell how much was read.

Entries for the journal go one by one. SENDING takes where the next one ends in the bank, and SENT
after it how far they are gone and how many there were, in one word. After a death in between only
the journal knows whether it got that one; the number that the entry carries is what it is asked
for.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time

from dorad.logs.lines import MAX_LINE
from dorad.shm.check import check_memory

CHUNK = 16 << 10
"""Bytes of one read: what one node may keep the others waiting for."""

_PAGE = 4096
_BANK = MAX_LINE + 4 * CHUNK
_STREAMS = 2
_SIZE = _PAGE + _STREAMS * 2 * _BANK
_ZEROS = bytes(CHUNK)
_LARGE = 16 * CHUNK

# Words of a stream, from its place in the page.
_ACTIVE = 0
_FIRST = 1  # the number before that of the first entry, microseconds since 1970
_BANK_WORDS = 8  # of bank 0; those of bank 1 are as far behind
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
        ValueError: it is something else.
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
        """Let go of the memory. Idempotent."""
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
        """Bytes that were read and are not in the file."""
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
        """Whether there is a newline among the last `count` bytes."""
        end = self._base() + self.filled
        return self._memory.find(b"\n", end - count, end) >= 0

    def data(self) -> bytes:
        """Return a copy of the bytes that are not in the file."""
        begin = self._base()
        return self._memory[begin : begin + self.filled]

    def begin(self, file_size: int) -> None:
        """Take note that lines are about to be appended to a file of this size."""
        self.words[self._bank() + _BATCH] = file_size + 1

    def commit(self, used: int, *, skipping: bool) -> None:
        """Let go of the first `used` bytes: what they hold is in the file."""
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
        """Go on after the death of the process that read here.

        Returns the size to which the file has to be cut before anything is appended to it, None if
        no batch was under way.
        """
        filled = self.filled
        begin = self._base() + filled
        read = self._memory[begin : begin + CHUNK].rstrip(b"\0")
        self._grow(filled, len(read))
        batch = self.words[self._bank() + _BATCH]
        return batch - 1 if batch else None

    def forget_batch(self) -> None:
        """Take note that the file has been cut: what others append to it now is not to be."""
        self.words[self._bank() + _BATCH] = 0

    # -- the journal -------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The number of the last entry; over all processes of a node they rise."""
        return int(self.words[_FIRST]) + (self._sent() >> _END_BITS)

    def sending(self, end: int, *, skipping: bool) -> None:
        """Take note that an entry is about to be sent, made of the bytes up to `end`."""
        self.words[self._bank() + _SENDING] = end << 1 | skipping

    def sent(self) -> None:
        """Take note that it was sent."""
        end = self.words[self._bank() + _SENDING] >> 1
        count = (self._sent() >> _END_BITS) + 1
        self.words[self._bank() + _SENT] = count << _END_BITS | end

    def not_sent(self) -> None:
        """Take note that it was not."""
        self.words[self._bank() + _SENDING] = 0

    def doubtful(self) -> int | None:
        """Return the number of the entry that may or may not have been sent before a death."""
        if self.words[self._bank() + _SENDING] >> 1 > self._sent_end():
            return self.number + 1
        return None

    def settle(self, *, arrived: bool) -> None:
        """Let go of all that was sent before a death; `arrived` is said of what is doubtful."""
        if self.doubtful() is not None:
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
        """Take note of `count` more bytes; the zeros behind them come first."""
        behind = self._base() + filled + CHUNK
        self._memory[behind : behind + count] = _ZEROS[:count]
        self.words[self._bank() + _FILLED] = filled + count

    def _bank(self) -> int:
        return int(1 + self.words[_ACTIVE]) * _BANK_WORDS

    def _base(self) -> int:
        return self._offset + int(self.words[_ACTIVE]) * _BANK
