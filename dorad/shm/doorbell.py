"""Doorbells: how a process is woken, and how it waits for one with its other descriptors."""

from __future__ import annotations

import ctypes
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NANOS = 1_000_000_000


def create() -> int:
    """Return a new doorbell's descriptor."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def ring(descriptor: int) -> None:
    """Wake whoever waits on the doorbell, now or at its next wait."""
    try:
        os.eventfd_write(descriptor, 1)
    except BlockingIOError:
        # The counter is at its limit: it has been rung 2^64 times and will wake its owner anyway.
        return


def hush(descriptor: int) -> None:
    """Forget the rings so far."""
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanos", ctypes.c_long))


_ppoll = ctypes.CDLL(None).ppoll


class Waiter:
    """Waits for any of a few descriptors with a deadline finer than a millisecond.

    `select.poll` rounds up to whole milliseconds, which a 1 kHz timer cannot bear; the call lets
    go of the interpreter lock, and a signal ends it early.
    """

    __slots__ = ("_count", "_fds", "_timeout", "_timeout_ref")

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._count = len(descriptors)
        self._fds = (_PollFd * self._count)(*(_PollFd(fd, select.POLLIN, 0) for fd in descriptors))
        self._timeout = _TimeSpec()
        self._timeout_ref = ctypes.byref(self._timeout)

    def wait(self, nanos: int | None) -> bool:
        """Wait up to `nanos`, or for ever; tell whether the first descriptor is ready.

        False also means that another one is ready, that the time is over or a signal came: the
        caller looks again at everything in either case.
        """
        if nanos is None:
            ready = _ppoll(self._fds, self._count, None, None)
        else:
            self._timeout.seconds, self._timeout.nanos = divmod(max(nanos, 0), _NANOS)
            ready = _ppoll(self._fds, self._count, self._timeout_ref, None)
        return bool(ready > 0 and self._fds[0].revents)
