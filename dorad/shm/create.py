"""Making segments: only the daemon does, so that only it could ever leave one behind."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import posix_ipc

PREFIX = "dorad-"

_log = logging.getLogger(__name__)


class ShmFullError(OSError):
    """/dev/shm has no room for a segment; `asked` and `free` are bytes."""

    def __init__(self, asked: int, free: int) -> None:
        self.asked = asked
        self.free = free
        super().__init__(
            f"/dev/shm is full: {asked} bytes asked, {free} free; "
            "make room there or send smaller messages"
        )


def create(size: int, *, room: int = 0) -> int:
    """Return the descriptor of a new zeroed segment of `size` bytes that has no name any more.

    All its pages are allocated here, so that no process meets a full /dev/shm (SIGBUS) later. Is
    `room` larger, then the segment is as long as that, and `extend` allocates the rest when it is
    needed.

    Raises:
        ShmFullError: there is no room.
        OSError: shared memory cannot be made at all.
    """
    # The pid in the name lets `sweep` find what a daemon killed right here has left.
    name = f"/{PREFIX}{os.getpid()}-{os.urandom(8).hex()}"
    segment = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    segment.unlink()
    try:
        if room > size:
            os.ftruncate(segment.fd, room)
        extend(segment.fd, 0, size)
    except OSError:
        segment.close_fd()
        raise
    return int(segment.fd)


def extend(segment: int, offset: int, size: int) -> None:
    """Allocate the pages of `size` bytes of a segment from `offset` on; what is there stays.

    Raises:
        ShmFullError: there is no room.
        OSError: it cannot be done at all.
    """
    try:
        os.posix_fallocate(segment, offset, size)
    except (OSError, OverflowError):
        usage = os.statvfs("/dev/shm")
        free = usage.f_bavail * usage.f_frsize
        if free < size:
            raise ShmFullError(size, free) from None
        raise


def sweep() -> None:
    """Unlink segments of this user's daemons that died between making and unlinking one.

    Anybody may put files into /dev/shm: those of others, and what is no segment, are passed over.
    """
    for path in Path("/dev/shm").glob(f"{PREFIX}*-*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if not pid.isdecimal() or Path(f"/proc/{pid}").exists():
            continue
        try:
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
                path.unlink()
            else:
                _log.debug("passing over %s, which is not ours", path)
        except OSError as error:
            _log.debug("%s stays: %s", path, error)
