"""Closing descriptors that a node has sent, without blocking.

A node chooses the file behind a descriptor, so closing it can block forever: a TCP socket lingers,
a FUSE file system answers late, a serial line drains. Such descriptors are closed in threads.
"""

import contextlib
import fcntl
import logging
import os
import queue
import stat
import threading
from collections.abc import Sequence

MAX_THREADS = 32
"""Maximum number of closing threads. Hostile nodes may block some; the others continue."""

IDLE_S = 1.0
"""How long a closing thread waits for the next descriptor."""

_NULL = os.makedev(1, 3)

_log = logging.getLogger(__name__)


class _Closer:
    """Closes descriptors in daemon threads, which do not delay the end of the process."""

    def __init__(self) -> None:
        # Not a SimpleQueue: with several readers its `get` may wait without end after its timeout.
        self._descriptors: queue.Queue[int] = queue.Queue()
        self._lock = threading.Lock()
        self._waiting = 0
        """Number of descriptors that are not closed yet."""
        self._threads = 0

    def close(self, descriptor: int) -> None:
        """Close a descriptor soon."""
        with self._lock:
            self._waiting += 1
            more = self._threads < min(self._waiting, MAX_THREADS)
            self._threads += more
        self._descriptors.put(descriptor)
        if more:
            _log.debug("closing thread %d starts", self._threads)
            threading.Thread(target=self._work, name="closing", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                descriptor = self._descriptors.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._descriptors.empty():
                        self._threads -= 1
                        return
                continue
            with contextlib.suppress(OSError):  # the file system of a stranger may fail
                os.close(descriptor)
            with self._lock:
                self._waiting -= 1


_closer = _Closer()


def close_foreign(descriptors: Sequence[int]) -> None:
    """Close descriptors; those that could block are closed in a thread."""
    for descriptor in descriptors:
        if _is_harmless(descriptor):
            os.close(descriptor)
        else:
            _closer.close(descriptor)


def close_in_thread(descriptor: int) -> None:
    """Close a descriptor in a thread."""
    _closer.close(descriptor)


def _is_harmless(descriptor: int) -> bool:
    """Return True if closing cannot block: a pipe, an eventfd, a file in memory."""
    status = os.fstat(descriptor)
    match stat.S_IFMT(status.st_mode):
        case 0 | stat.S_IFIFO:
            return True
        case stat.S_IFCHR:
            return status.st_rdev == _NULL
        case stat.S_IFREG:
            return _is_in_memory(descriptor)
        case _:
            return False


def _is_in_memory(descriptor: int) -> bool:
    try:
        # Only files in memory have seals.
        fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True
