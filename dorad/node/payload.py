"""Bytes that are too many for a packet, in an anonymous file whose descriptor travels beside it."""

from __future__ import annotations

import os
import stat


def pack(value: bytes) -> int:
    """Return the descriptor of a new file with these bytes.

    Raises:
        OSError: there is no memory, or no descriptor, left for it.
    """
    descriptor = os.memfd_create("dorad-value", os.MFD_CLOEXEC)
    try:
        rest = memoryview(value)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unpack(descriptor: int, limit: int) -> bytes:
    """Return the bytes of such a file; the descriptor stays open.

    Never blocks: nothing but a file in memory or on a disk is read.

    Raises:
        ValueError: it is no such file, or larger than `limit` bytes.
        OSError: it cannot be read.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("the descriptor is of no file")
    if status.st_size > limit:
        raise ValueError(f"{status.st_size} bytes are more than the {limit} allowed")
    parts = []
    offset = 0
    while offset < status.st_size:
        part = os.pread(descriptor, status.st_size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
