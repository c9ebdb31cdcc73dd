"""Doorbells: how a process is woken, and how it waits for a doorbell and other descriptors.

All holders of a doorbell share its open file, and each of them can make writes to it block. So
only nodes ring doorbells; the daemon wakes a node over its socket (`BrokerState.wake`).
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Sequence

_NANOS = 1_000_000_000
_MAX_WAIT_NS = 1 << 50
"""13 days: about half of what the system calls accept."""


def create() -> int:
    """Return a new doorbell's descriptor."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def ring(descriptor: int) -> None:
    """Wake the owner of the doorbell, now or at its next wait."""
    try:
        os.eventfd_write(descriptor, 1)
    except BlockingIOError:
        # The counter is at its limit: it has been rung 2^64 times and will wake its owner anyway.
        return


def clear(descriptor: int) -> None:
    """Discard the rings so far. Never blocks, even if a peer made the open file blocking."""
    try:
        os.preadv(descriptor, [bytearray(8)], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanos", ctypes.c_long))


_ppoll = ctypes.CDLL(None).ppoll


class Waiter:
    """A wait for a doorbell, and for other descriptors to become readable.

    A ring since the last wait ends one wait; the doorbell need not be read. Waiting releases the
    interpreter lock, and a signal ends it early.
    """

    __slots__ = ("_epoll", "_fds", "_timeout", "_timeout_ref")

    def __init__(self, bell: int, others: Sequence[int] = ()) -> None:
        self._epoll = select.epoll()
        self._epoll.register(bell, select.EPOLLIN | select.EPOLLET)
        for descriptor in others:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._fds = (_PollFd * 1)(_PollFd(self._epoll.fileno(), select.POLLIN, 0))
        self._timeout = _TimeSpec()
        self._timeout_ref = ctypes.byref(self._timeout)

    @property
    def descriptor(self) -> int:
        """What becomes readable when one of the descriptors is ready."""
        return self._epoll.fileno()

    def wait(self, nanos: int | None, *, fine: bool = False) -> list[int]:
        """Wait up to `nanos`, or without limit if None; return the descriptors that are ready.

        Return none after the time, after 13 days, or after a signal. The time is exact to a
        millisecond; if `fine`, as exact as the machine can, which timers need and which costs a
        little.
        """
        if nanos is None:
            ready = self._epoll.poll()
        elif fine:
            nanos = min(max(nanos, 0), _MAX_WAIT_NS)
            self._timeout.seconds, self._timeout.nanos = divmod(nanos, _NANOS)
            _ppoll(self._fds, 1, self._timeout_ref, None)
            ready = self._epoll.poll(0)
        else:
            ready = self._epoll.poll(min(max(nanos, 0), _MAX_WAIT_NS) / _NANOS)
        return [descriptor for descriptor, _ in ready]
