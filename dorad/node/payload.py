"""Payloads too large for a packet: sealed memory, whose descriptor is sent with the packet."""

from __future__ import annotations

import fcntl
import os

from dorad.shm.check import seals

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def pack(value: bytes) -> int:
    """Return the descriptor of new sealed memory with these bytes.

    Raises:
        OSError: the process or the machine is out of memory or descriptors.
    """
    descriptor = os.memfd_create("dorad-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(value)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unpack(descriptor: int, limit: int) -> bytes:
    """Return the bytes of sealed memory; the descriptor stays open.

    It refuses any other file before reading it, so it never blocks and the bytes never change
    meanwhile.

    Raises:
        ValueError: the file is not sealed memory, or larger than `limit` bytes.
        OSError: it cannot be read.
    """
    has = seals(descriptor)
    if has is None or has & _SEALS != _SEALS:
        raise ValueError("the descriptor does not refer to sealed memory")
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
