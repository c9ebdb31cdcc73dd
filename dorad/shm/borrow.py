"""A message as its receiver gets it: copied out, or still in the sender's shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.shm.fence import STRONG_ORDER, release
from dorad.shm.steps import twin

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.shm.mapping import Mapping


@twin
class Borrow:
    """A sample in use by this process.

    Arrow buffers over the sample keep this object, and through it the mapping, alive. When the last
    of them is freed, the hazard slot is cleared.
    """

    __slots__ = ("_free", "_slot", "_words", "mapping")

    def __init__(self, words: memoryview, slot: int, free: list[int], mapping: Mapping) -> None:
        self._words = words
        self._slot = slot
        self._free = free
        self.mapping = mapping

    def __del__(self, strong: bool = STRONG_ORDER, release: Callable[[], object] = release) -> None:
        # Defaults, because at exit the names of a module may be gone before its objects are.
        if not strong:
            release()  # the last reads of the sample come before the store, as in borrow.c
        self._words[self._slot] = 0
        self._free.append(self._slot)


Taken = tuple[int, int, int, int, int, bytes | None, Borrow | None, int, bytes]
"""A message taken from a ring: timestamp in ns since 1970, type code, array length, null count,
payload size in bytes, the payload if it was copied out, else the borrow of its sample, its offset
in the segment, and the metadata. A plain tuple, because one is made for each message."""

Copied = tuple[int, int, tuple[int, int, int, bytes | memoryview, bytes]]
"""A message whose payload was copied: timestamp in ns since 1970, its number on its edge, and type
code, array length, null count, payload and metadata."""
