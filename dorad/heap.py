"""How a process that handles large messages, or many, manages its memory."""

from __future__ import annotations

import ctypes
import gc
import logging

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, see malloc.h."""

MAX_BLOCK = 32 << 20
"""The largest block from the heap that glibc accepts on 64 bits."""

_NEW_OBJECTS = 50_000
"""New objects after which the youngest are searched; Python's own value is 700."""

_log = logging.getLogger(__name__)


def keep_freed(kept: int) -> None:
    """Keep up to `kept` bytes of freed memory, where the C library allows it.

    Else it goes back to the kernel after each large message, and faulting it in again for the next
    one costs as much as copying it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        _log.debug("this C library has no mallopt")
        return
    for parameter, value in ((_MMAP_THRESHOLD, MAX_BLOCK), (_TRIM_THRESHOLD, kept)):
        if not mallopt(parameter, value):
            _log.debug("mallopt refuses %d for parameter %d", value, parameter)


def collect_rarely() -> None:
    """Search for cycles of objects less often.

    Messages are tuples by the thousand and in no cycle, but each 700 of them start a search: a
    sixth of a recorder's time for a small message.
    """
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
