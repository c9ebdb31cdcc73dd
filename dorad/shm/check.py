"""Checks of descriptors that come from another process, which is not trusted.

Nothing here can block: a file's size is read only when the file is known to be in memory, because
a file on a user's own file system (FUSE) answers whenever that user likes.
"""

from __future__ import annotations

import fcntl
import os

F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; not in `fcntl` before Python 3.13
_EVENTFD = "anon_inode:[eventfd]"
_PIPE = "pipe:["


def seals(descriptor: int) -> int | None:
    """Return the seals of a file in memory (a memfd, or one in /dev/shm), None for other files."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        return None


def check_memory(what: str, descriptor: int, size: int) -> None:
    """Check that a descriptor refers to `size` bytes of memory that cannot be shrunk.

    Raises:
        ValueError: it does not; the text begins with `what`.
    """
    has = seals(descriptor)
    if not has or not has & fcntl.F_SEAL_SHRINK:
        raise ValueError(f"{what} is not sealed memory")
    _check_size(what, descriptor, size)


def check_bell(descriptor: int) -> None:
    """Check that a descriptor refers to a doorbell.

    Raises:
        ValueError: it does not.
    """
    target = _target(descriptor)
    if target != _EVENTFD:
        raise ValueError(f"its doorbell is {target}")


def check_pipe(descriptor: int) -> None:
    """Check that a descriptor is the read end of a pipe.

    Raises:
        ValueError: it is not.
    """
    target = _target(descriptor)
    if not target.startswith(_PIPE) or not _only_reads(descriptor):
        raise ValueError(f"its output is {target}")


def check_segment(descriptor: int, size: int) -> None:
    """Check that a descriptor refers to a segment of `size` bytes and cannot write to it.

    Raises:
        ValueError: it does not.
    """
    sealed = seals(descriptor)
    if sealed is None or not (_only_reads(descriptor) or sealed & F_SEAL_FUTURE_WRITE):
        raise ValueError("a segment of its samples is not read-only memory")
    _check_size("a segment of its samples", descriptor, size)


def _target(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - not a path


def _only_reads(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def _check_size(what: str, descriptor: int, size: int) -> None:
    actual = os.fstat(descriptor).st_size
    if actual != size:
        raise ValueError(f"{what} has {actual} bytes instead of {size}")
