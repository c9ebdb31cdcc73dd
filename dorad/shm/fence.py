"""A sequentially consistent fence, behind one name.

The protocol needs one in two places: borrowing a sample against reclaiming it, and falling asleep
against ringing the doorbell. In both, each side stores its own word and then loads the other's.

On x86-64 every uncontended acquire of a Python lock runs a LOCK-prefixed instruction, which is a
full barrier (Intel SDM vol. 3, 9.2.3.9 "locked instructions have a total order"), and costs less
than a foreign call. Other machines call `atomic_thread_fence` of libatomic; there, loads and
stores are also weakly ordered, so `acquire` and `release` are real fences too.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable

LIBRARY = "libatomic.so.1"
"""GCC's library of atomic operations; needed where `STRONG_ORDER` is False."""

_SEQ_CST = 5

_MACHINE = os.uname().machine
STRONG_ORDER = _MACHINE in ("x86_64", "AMD64")
"""True if loads stay in order with loads, and stores with stores, without a fence."""


def _lock_fence() -> Callable[[], object]:
    lock = threading.Lock()
    acquire_lock, release_lock = lock.acquire, lock.release

    def fence() -> None:
        if acquire_lock(False):
            release_lock()
        else:
            # A failed acquire may be a plain load only. A new lock is free, so this one locks.
            threading.Lock().acquire(False)

    return fence


def _library_fence() -> Callable[[], object]:
    import ctypes  # here, because most machines need it for nothing else

    try:
        function = ctypes.CDLL(LIBRARY).atomic_thread_fence
    except OSError as error:
        raise ImportError(
            f"the data plane needs {LIBRARY} on {_MACHINE}; "
            "install it: sudo apt-get install libatomic1",
            name=LIBRARY,
        ) from error
    function.argtypes = [ctypes.c_int]
    function.restype = None
    return functools.partial(function, _SEQ_CST)


def _nothing() -> None:
    """Do nothing: the processor already keeps the order."""


fence: Callable[[], object] = _lock_fence() if STRONG_ORDER else _library_fence()
"""Order every earlier load and store before every later one."""

acquire: Callable[[], object] = _nothing if STRONG_ORDER else fence
"""Order earlier loads before later loads and stores."""

release: Callable[[], object] = _nothing if STRONG_ORDER else fence
"""Order earlier loads and stores before later stores."""
