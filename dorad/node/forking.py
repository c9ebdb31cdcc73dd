"""What a forked child has of its parent's nodes: nothing that it could disturb them with.

After a fork both processes hold the same socket, doorbells and mailbox, and the child's copies of
messages would clear the parent's hazard slots as they are collected. So in the child, at once, the
descriptors are closed, the mailbox is replaced by private memory, and the node refuses to be used.
The parent pays nothing for it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from dorad.shm.mapping import Mapping

_MAP_FIXED = 0x10

_mmap = ctypes.CDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)


class Forkable(Protocol):
    """Something that a forked child has to let go of."""

    def abandon(self) -> None:
        """Let go of it, in the child, without a word to anyone."""


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(item: Forkable) -> None:
    """Have the item abandoned in children forked from now on, for as long as it lives."""
    _watched.add(item)


def _in_child() -> None:
    for item in list(_watched):
        item.abandon()
    _watched.clear()


os.register_at_fork(after_in_child=_in_child)


class _Parents:
    """What an object of the parent's becomes in the child."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(
            "this Node belongs to its parent process and cannot be used in a forked child; "
            "send and receive in the parent, or start the child with the method 'spawn'"
        )


def refuse(item: Any) -> None:
    """Make every method of the item raise RuntimeError; other references to it see that too."""
    object.__setattr__(item, "__class__", _Parents)


def detach(mapping: Mapping) -> None:
    """Put private zeroes in the place of a writable segment, under all views of it.

    Raises:
        OSError: the kernel refuses.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping.memory))
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    access = mmap.PROT_READ | mmap.PROT_WRITE
    if _mmap(address, mapping.size, access, private, -1, 0) != address:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
