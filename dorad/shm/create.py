"""Making shared memory: only the daemon does, so that only it could ever leave some behind.

There are three kinds, and what each process can do with them follows from the kind:

    mailbox  a sealed memfd, written at every end. Nobody can shrink it, so the daemon may map it.
    pool     a segment in /dev/shm, whose size bounds what nodes use up. Its owner writes it;
             receivers have a descriptor that only reads. The daemon never maps it.
    texts    what the daemon itself sends: a sealed memfd that nobody else can write or shrink.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

import posix_ipc

from dorad.shm.check import F_SEAL_FUTURE_WRITE
from dorad.shm.mapping import Mapping

PREFIX = "dorad-"

_FOLDER = "/dev/shm"
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_LARGE = 1 << 26
"""Bytes from which on a mailbox is compared with the memory that is available."""
_log = logging.getLogger(__name__)


class ShmFullError(OSError):
    """There is no room for shared memory; `asked` and `free` are bytes."""

    def __init__(self, asked: int, free: int, where: str = _FOLDER) -> None:
        self.asked = asked
        self.free = free
        super().__init__(
            f"{where} is full: {asked} bytes asked, {free} free; "
            "make room there or send smaller messages"
        )


class PoolMemory(NamedTuple):
    """The two descriptors of a pool segment."""

    owner: int
    receiver: int
    """Only reads."""


def create_mailbox(size: int, *, room: int = 0) -> int:
    """Return the descriptor of new zeroed memory of `size` bytes whose size is sealed.

    Its pages are allocated here. If `room` is larger, the memory is as long as that, and `extend`
    allocates the rest when it is needed.

    Raises:
        ShmFullError: the machine has not so much memory.
        OSError: it cannot be made at all.
    """
    memory = os.memfd_create("dorad-mailbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, max(size, room))
        extend(memory, 0, size)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SIZE_SEALS | fcntl.F_SEAL_SEAL)
    except (OSError, OverflowError):
        os.close(memory)
        raise
    return memory


def extend(mailbox: int, offset: int, size: int) -> None:
    """Allocate the pages of `size` bytes of a mailbox from `offset` on; what is there stays.

    Raises:
        ShmFullError: the machine has not so much memory.
        OSError: it cannot be done at all.
    """
    if size >= _LARGE and size > (free := _available()):
        # The kernel would rather kill a process than refuse.
        raise ShmFullError(size, free, "the machine's memory")
    os.posix_fallocate(mailbox, offset, size)


def create_pool(size: int) -> PoolMemory:
    """Return the descriptors of a new zeroed segment of `size` bytes that has no name any more.

    All its pages are allocated here, so that no process meets a full /dev/shm (SIGBUS) later. The
    mode of the segment lets no other user open it anew for writing.

    Raises:
        ShmFullError: there is no room.
        OSError: shared memory cannot be made at all.
    """
    # The pid in the name lets `sweep` find what a daemon killed right here has left.
    name = f"/{PREFIX}{os.getpid()}-{os.urandom(8).hex()}"
    segment = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    try:
        try:
            receiver = posix_ipc.SharedMemory(name, read_only=True)
        finally:
            segment.unlink()
        try:
            os.fchmod(segment.fd, 0o400)
            _allocate(segment.fd, size)
        except BaseException:
            receiver.close_fd()
            raise
    except BaseException:
        segment.close_fd()
        raise
    return PoolMemory(int(segment.fd), int(receiver.fd))


def create_texts(size: int) -> tuple[int, Mapping]:
    """Return the descriptor and the mapping of memory that only this mapping can write.

    Raises:
        OSError: it cannot be made.
    """
    memory = os.memfd_create("dorad-texts", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, size)
        os.posix_fallocate(memory, 0, size)
        os.fchmod(memory, 0o400)
        mapping = Mapping(memory)
        seals = _SIZE_SEALS | F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    except (OSError, OverflowError):
        os.close(memory)
        raise
    return memory, mapping


def _allocate(segment: int, size: int) -> None:
    try:
        os.posix_fallocate(segment, 0, size)
    except (OSError, OverflowError):
        usage = os.statvfs(_FOLDER)
        free = usage.f_bavail * usage.f_frsize
        if free < size:
            raise ShmFullError(size, free) from None
        raise


def check_share(size: int, used: int) -> None:
    """Make sure that a node that has `used` bytes in /dev/shm may have `size` more.

    One node may have three quarters of it, and so leaves room for the others.

    Raises:
        ShmFullError: there is no room anyway.
        OSError: it may not.
    """
    usage = os.statvfs(_FOLDER)
    free, most = usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize // 4 * 3
    if size > free:
        raise ShmFullError(size, free)
    if used + size > most:
        raise OSError(
            f"{size} bytes asked, and this node has {used} of the {most} that one node may have "
            "(three quarters of /dev/shm); send smaller messages, or make /dev/shm larger"
        )


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    raise OSError("/proc/meminfo does not say how much memory is available")


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
