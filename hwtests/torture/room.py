"""Shared memory of our own, and what is left in it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
ROOM = "/dev/shm"


def enter(size: int) -> bool:
    """Give this process and its children a /dev/shm of `size` bytes; False where only root may.

    Raises:
        OSError: mounting failed though we are root.
    """
    if os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        return False  # a container may forbid it to its root
    for arguments in (
        (b"none", b"/", None, MS_REC | MS_PRIVATE, None),
        (b"tmpfs", ROOM.encode(), b"tmpfs", 0, f"size={size}".encode()),
    ):
        if libc.mount(*arguments) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), ROOM)
    return True


def used() -> int:
    """Bytes of /dev/shm in use."""
    usage = os.statvfs(ROOM)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def segments() -> list[str]:
    """Return the segments of this daemon's making that this process still maps or has open."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split(maxsplit=5)[-1] for line in maps] + list(_open().values())
    return [path for path in found if f"dorad-{os.getpid()}-" in path]


def descriptors() -> set[str]:
    """Return this process's open descriptors with what they are."""
    return {f"{number} {target}" for number, target in _open().items()}


def _open() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the listing's own
    return found
