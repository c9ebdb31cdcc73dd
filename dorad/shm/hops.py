"""What a node does with messages, recorded in its mailbox: receive, done, send, drop.

The newest `HOPS` records of a node lie in its mailbox, which the daemon keeps: they survive the
node's death. `dorad.shm.hoplog` reads them. A message is known by its ring, or its output, and its
timestamp. Each thread's sends have the message as parent that the thread took last.

The extension always records, which costs 10 ns. In pure Python a record costs some us, so only
`DORAD_HOPS=1` turns them on; each function here is None if nothing is recorded.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from collections.abc import Callable

from dorad.shm import native
from dorad.shm.layout import (
    BOX_HOP_RECORDS,
    BOX_HOPS,
    HOP_CONTEXT,
    HOP_DONE,
    HOP_DROP,
    HOP_RECEIVE,
    HOP_SEND,
    HOP_THREAD,
    HOP_TURN,
    HOP_WORDS,
    HOPS,
    OUTPUT_KEY_BASIS,
    OUTPUT_KEY_PRIME,
    WORD,
)

VARIABLE = "DORAD_HOPS"

_CONTEXT = re.compile(rb'"open_telemetry_context":"([^"]+)"')
_TRACEPARENT = re.compile(rb'"traceparent":"([^"]+)"')
_IDS = re.compile(rb"00-([0-9a-f]{16})([0-9a-f]{16})-([0-9a-f]{16})-[0-9a-f]{2}")

_MASK = (1 << 64) - 1
_time_ns = time.time_ns


def output_key(output: str) -> int:
    """Return the non-zero word that stands for an output in a record."""
    key = OUTPUT_KEY_BASIS
    for byte in output.encode(errors="surrogatepass"):
        key = (key ^ byte) * OUTPUT_KEY_PRIME & _MASK
    return key or 1


def check_of(index: int, fields: tuple[int, ...]) -> int:
    """Return the check of a record: only all words of one record give it, whatever was mixed."""
    check = index + 1 & _MASK
    for field in fields:
        check = (check << HOP_TURN & _MASK | check >> 64 - HOP_TURN) ^ field
    return check


Taken = tuple[int, int, bool]
"""Ring and timestamp of a message; whether its receiver has not asked for the next one."""

NOTHING: Taken = (0, 0, False)


class _Taken(threading.local):
    """The message that a thread took last; `open` until it asks for the next one."""

    box: Callable[[], memoryview | None] = staticmethod(lambda: None)
    """A weak reference: the thread may outlive the node."""
    place = 0
    stamp = 0
    open = False


def _ids(traceparent: bytes) -> tuple[int, ...] | None:
    """Return the two words of the trace id and the span id of a `traceparent`, None if invalid."""
    if (match := _IDS.fullmatch(traceparent)) is None:
        return None
    high, low, span = (int(digits, 16) for digits in match.groups())
    return (high, low, span) if (high or low) and span else None


class _Writer:
    """The records in pure Python."""

    def __init__(self) -> None:
        """Load the atomic addition.

        Raises:
            ImportError: the machine lacks `libatomic`.
        """
        import ctypes

        from dorad.shm.fence import LIBRARY

        try:
            add = ctypes.CDLL(LIBRARY)["__atomic_fetch_add_8"]
        except OSError as error:
            raise ImportError(f"{VARIABLE}=1 needs {LIBRARY}: {error}", name=LIBRARY) from error
        add.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int]
        add.restype = ctypes.c_uint64
        self._add = add
        self._word = ctypes.c_uint64.from_buffer
        self._by_reference = ctypes.byref
        self._taken = _Taken()

    def _write(
        self,
        box: memoryview,
        kind: int,
        at: int,
        place: int,
        stamp: int,
        value: int,
        parent: tuple[int, int] = (0, 0),
    ) -> None:
        word = self._word(box, BOX_HOPS * WORD)
        index = self._add(self._by_reference(word), 1, 0)
        fields = (
            kind | threading.get_native_id() << HOP_THREAD,
            *(at, place, stamp, *parent, value),
        )
        to = BOX_HOP_RECORDS + index % HOPS * HOP_WORDS
        for number, field in enumerate(fields, to + 1):
            box[number] = field
        box[to] = check_of(index, fields)

    def received(self, box: memoryview, base: int, stamp: int, at: int, queued: int) -> None:
        """Record that this thread took a message from the ring at `base`, where `queued` stay."""
        self._write(box, HOP_RECEIVE, at, base, stamp, queued)
        taken = self._taken
        taken.box = weakref.ref(box)
        taken.place, taken.stamp, taken.open = base, stamp, True

    def done(self, box: memoryview) -> None:
        """Record that this thread is done with the message it took last, if it was not before."""
        taken = self._taken
        if taken.open and taken.box() is box:
            taken.open = False
            self._write(box, HOP_DONE, _time_ns(), taken.place, taken.stamp, 0)

    def sent(self, box: memoryview, output: int, stamp: int, at: int, size: int) -> None:
        """Record a message of `size` bytes that was sent on the output with a key."""
        if output:
            self._write(box, HOP_SEND, at, output, stamp, size, self.taken(box)[:2])

    def context(self, box: memoryview, output: int, stamp: int, metadata: bytes) -> None:
        """Record the trace context of OpenTelemetry that the metadata of a sent message carry.

        It is 0 if it is not valid; without any there is no record.
        """
        carried = _CONTEXT.search(metadata)
        plain = _TRACEPARENT.search(metadata)
        if not output or (carried is None and plain is None):
            return
        ids = None
        if carried is not None:
            parts = (part.partition(b":") for part in carried[1].split(b";"))
            ids = _ids(next((value for key, _, value in parts if key == b"traceparent"), b""))
        if ids is None and plain is not None:
            ids = _ids(plain[1])
        *trace, span = ids or (0, 0, 0)
        self._write(box, HOP_CONTEXT, stamp, output, stamp, span, (trace[0], trace[1]))

    def resume(self, box: memoryview, base: int, stamp: int, is_open: bool) -> None:
        """Make this thread go on with a message that was taken before; `base` 0 for none."""
        taken = self._taken
        taken.box = weakref.ref(box)
        taken.place, taken.stamp, taken.open = base, stamp, is_open

    def taken(self, box: memoryview) -> Taken:
        """Return what this thread took last from a mailbox."""
        taken = self._taken
        return (taken.place, taken.stamp, taken.open) if taken.box() is box else NOTHING

    def dropped(self, box: memoryview, base: int, number: int, count: int) -> None:
        """Record that `count` messages of a ring, from that with a number on, were dropped."""
        self._write(box, HOP_DROP, _time_ns(), base, number, count)


class Tasks:
    """Keeps the message of each task of asyncio, since tasks take turns on one thread."""

    def __init__(
        self,
        resume: Callable[[memoryview, int, int, bool], None],
        taken: Callable[[memoryview], Taken],
        current_task: Callable[[], object],
    ) -> None:
        from contextvars import ContextVar

        self._resume = resume
        self._taken = taken
        self._current_task = current_task
        self._own: ContextVar[tuple[object, Taken]] = ContextVar("hop")
        self._local = threading.local()

    def enter(self, box: memoryview) -> None:
        """Make this thread go on with the message of the present task.

        A task that has not taken any has that of the task that created it.
        """
        task, (base, stamp, is_open) = self._own.get((None, NOTHING))
        if base:
            is_open = is_open and task is self._present()
            self._resume(box, base, stamp, is_open)
        elif getattr(self._local, "of_task", False):
            self._resume(box, *NOTHING)
        self._local.of_task = bool(base)

    def leave(self, box: memoryview) -> None:
        """Keep what the thread took as that of the present task."""
        self._own.set((self._present(), self._taken(box)))
        self._local.of_task = True

    def _present(self) -> object:
        try:
            return self._current_task()
        except RuntimeError:  # this thread has no event loop
            return None


tasks: Tasks | None = None
"""None before a task receives."""


def begin_tasks(current_task: Callable[[], object]) -> Tasks | None:
    """Return the messages of tasks, None if nothing is recorded. A task is about to receive.

    `current_task` returns it, or raises RuntimeError in a thread without tasks.
    """
    global tasks
    if tasks is None and received is not None:
        if native.module is not None:
            tasks = Tasks(native.module.hop_resume, native.module.hop_taken, current_task)
            native.module.use_tasks(tasks.enter)
        else:
            tasks = Tasks(_writer.resume, _writer.taken, current_task)
    return tasks


received: Callable[[memoryview, int, int, int, int], None] | None = None
done: Callable[[memoryview], None] | None = None
sent: Callable[[memoryview, int, int, int, int], None] | None = None
context: Callable[[memoryview, int, int, bytes], None] | None = None
dropped: Callable[[memoryview, int, int, int], None] | None = None

if native.module is not None:
    received, done = native.module.hop_received, native.module.hop_done
    sent, context = native.module.hop_sent, native.module.hop_context
    dropped = native.module.hop_dropped
elif os.environ.get(VARIABLE) == "1":
    _writer = _Writer()
    received, done = _writer.received, _writer.done
    sent, context, dropped = _writer.sent, _writer.context, _writer.dropped
