"""Bytes that are too many for a packet, in an anonymous file whose descriptor travels beside it."""

from __future__ import annotations

import fcntl
import os


def pack(value: bytes) -> int:
    """Return the descriptor of a new file with these bytes.

    Raises:
        OSError: there is no memory, or no descriptor, left for it.
    """
    descriptor = os.memfd_create("dorad-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(value)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def seal(descriptor: int) -> None:
    """Let nobody change such a file any more. Raises OSError if it is mapped writable."""
    fcntl.fcntl(
        descriptor,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
    )


def unpack(descriptor: int, limit: int) -> bytes:
    """Return the bytes of such a file; the descriptor stays open.

    Never blocks: nothing but a file in memory is read, no pipe, and no file of a file system that
    may wait for a disk, a network or a process (FUSE).

    Raises:
        ValueError: it is no such file, or larger than `limit` bytes.
        OSError: it cannot be read.
    """
    try:
        # Only files in memory have seals.
        fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ValueError("the descriptor is of no file in memory") from error
    status = os.fstat(descriptor)
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
