"""A shared-memory segment mapped into this process."""

from __future__ import annotations

import contextlib
import mmap
import os

from dorad.shm.steps import twin

_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14
_BLOCK = 512  # unit of st_blocks


@twin
class MappingState:
    """The fields of a mapping."""

    __slots__ = ("_address", "memory", "size", "words")


class Mapping(MappingState):
    """A mapped segment: `memory` for copying bytes in and out, `words` for single 64-bit words.

    The memory stays mapped while there is a view or array over it, even if the segment is unlinked
    or the descriptor closed. The descriptor passed in stays the caller's.
    """

    __slots__ = ()

    def __init__(self, descriptor: int, *, writable: bool = True) -> None:
        """Map all of `descriptor`; if it is writable, fault in its allocated pages.

        Pages that a mailbox has in reserve are not allocated yet: they are left alone. Readers do
        not fault in what they may never read. When they read it, the kernel maps 16 pages at once.

        Raises:
            OSError: the descriptor cannot be mapped.
        """
        status = os.fstat(descriptor)
        self.size = status.st_size
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.memory = mmap.mmap(descriptor, self.size, flags=mmap.MAP_SHARED, prot=access)
        allocated = min(status.st_blocks * _BLOCK, self.size)
        if writable and allocated:
            # On an older kernel, each page is faulted in when it is first touched.
            with contextlib.suppress(OSError):
                self.memory.madvise(_POPULATE_WRITE, 0, allocated)
        self.words = memoryview(self.memory).cast("Q")
        self._address = 0

    def address(self) -> int:
        """Return the address of the segment in this process."""
        if not self._address:
            # Python itself gives the address of writable memory only.
            import pyarrow as pa

            self._address = int(pa.py_buffer(self.memory).address)
        return self._address
