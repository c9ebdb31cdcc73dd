"""Detach a forked child from the nodes of its parent.

After a fork both processes hold the same socket, doorbells and mailbox. When the child collects its
copies of messages, it would clear hazard slots of the parent. So the child closes the descriptors
at once, replaces the mailbox by private memory, and refuses to use the node. The parent pays
nothing for this.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import TYPE_CHECKING, Any, Protocol

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
    """An object that a forked child must abandon."""

    def abandon(self) -> None:
        """Release the object in the child, without notifying any process."""


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(item: Forkable) -> None:
    """Call `item.abandon()` in children forked from now on, while the item exists."""
    _watched.add(item)


def _in_child() -> None:
    for item in list(_watched):
        item.abandon()
    _watched.clear()


os.register_at_fork(after_in_child=_in_child)


def _get_abandoned(item: object, name: str) -> Any:
    if name.startswith("__"):
        return object.__getattribute__(item, name)
    raise RuntimeError(
        "this Node belongs to its parent process and cannot be used in a forked child; "
        "send and receive in the parent, or start the child with the method 'spawn'"
    )


def refuse(item: Any) -> None:
    """Make every method of the item raise RuntimeError, through all references to it.

    Only a change of its class reaches references that other code already holds, such as the
    receiver inside a `Node`. The new class has the same fields, so that Python permits the change.
    """
    body = {"__slots__": (), "__getattribute__": _get_abandoned}
    object.__setattr__(item, "__class__", type("Abandoned", (type(item),), body))


def detach(mapping: Mapping) -> None:
    """Replace a writable mapping, under all views of it, by private memory of zeroes.

    Raises:
        OSError: the kernel refuses.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping.memory))
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    access = mmap.PROT_READ | mmap.PROT_WRITE
    if _mmap(address, mapping.size, access, private, -1, 0) != address:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
