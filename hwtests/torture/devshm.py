"""A private /dev/shm, and what is left in it."""

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
FOLDER = "/dev/shm"


def mount_private(size: int) -> bool:
    """Mount a /dev/shm of `size` bytes for this process and its children.

    Return False if that is not permitted.

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
        (b"tmpfs", FOLDER.encode(), b"tmpfs", 0, f"size={size}".encode()),
    ):
        if libc.mount(*arguments) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), FOLDER)
    return True


def used() -> int:
    """Return the bytes of /dev/shm in use."""
    usage = os.statvfs(FOLDER)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def segments() -> list[str]:
    """Return segments of this process's broker that it still maps or has open."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split(maxsplit=5)[-1] for line in maps] + list(_open().values())
    return [path for path in found if f"dorad-{os.getpid()}-" in path]


def descriptors() -> set[str]:
    """Return the open descriptors of this process with their targets."""
    return {f"{number} {target}" for number, target in _open().items()}


def _open() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the listing's own
    return found
