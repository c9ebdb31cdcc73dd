"""A shared-memory segment mapped into this process."""

from __future__ import annotations

import mmap
import os


class Mapping:
    """A mapped segment: `memory` for copying bytes in and out, `words` for single 64-bit words.

    The memory stays mapped for as long as any view or array over it lives, whoever unlinks or
    closes the descriptor meanwhile. The descriptor handed in stays the caller's.
    """

    __slots__ = ("_address", "memory", "size", "words")

    def __init__(self, descriptor: int, *, writable: bool = True) -> None:
        """Map all of `descriptor`, its pages present.

        Raises:
            OSError: the descriptor cannot be mapped.
        """
        self.size = os.fstat(descriptor).st_size
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.memory = mmap.mmap(
            descriptor, self.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=access
        )
        self.words = memoryview(self.memory).cast("Q")
        self._address = 0

    def address(self) -> int:
        """Return where the segment lies in this process's memory."""
        if not self._address:
            # Python itself tells the address of writable memory only.
            import pyarrow as pa

            self._address = int(pa.py_buffer(self.memory).address)
        return self._address
