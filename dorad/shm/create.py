"""Creation of shared memory. Only the daemon creates it, so no other process can leave any behind.

There are three kinds, with different rights:

    mailbox  a sealed memfd that both ends write. It cannot be shrunk, so the daemon may map it.
    pool     a segment in a file system in memory, whose size limits what nodes use. Its owner
             writes it; receivers have a read-only descriptor. The daemon never maps it.
    texts    what the daemon itself sends: a sealed memfd that only the daemon can write.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

from dorad.shm.check import F_SEAL_FUTURE_WRITE
from dorad.shm.mapping import Mapping

try:
    import posix_ipc
except ImportError:  # it has no wheel for this Python, and the machine no compiler
    posix_ipc = None

PREFIX = "dorad-"

COMMON_FOLDER = "/dev/shm"
SERVICE_FOLDER = "/run/dorad/shm"
"""The service has a file system of its own, which no file of another user can fill. Systemd mounts
it (`run-dorad-shm.mount`), unless it cannot."""

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_LARGE = 1 << 26
"""Mailboxes of at least this many bytes are checked against the available memory."""
_log = logging.getLogger(__name__)


class ShmFullError(OSError):
    """There is not enough room for shared memory; `asked` and `free` are bytes."""

    def __init__(self, asked: int, free: int, where: str) -> None:
        self.asked = asked
        self.free = free
        super().__init__(
            f"{where} is full: {asked} bytes requested, {free} free; "
            "make room there or send smaller messages"
        )


class PoolMemory(NamedTuple):
    """The two descriptors of a pool segment."""

    owner: int
    receiver: int
    """Read-only."""


def create_mailbox(size: int, *, room: int = 0) -> int:
    """Return the descriptor of new zeroed memory of `size` bytes whose size is sealed.

    Its pages are allocated here. If `room` is larger, the memory is `room` bytes long, and `extend`
    allocates the rest when it is needed.

    Raises:
        ShmFullError: the machine does not have that much memory.
        OSError: it cannot be created for another reason.
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
    """Allocate the pages of `size` bytes of a mailbox from `offset` on; existing data stays.

    Raises:
        ShmFullError: the machine does not have that much memory.
        OSError: they cannot be allocated for another reason.
    """
    if size >= _LARGE and size > (free := _available()):
        # The kernel would rather kill a process than refuse.
        raise ShmFullError(size, free, "the machine's memory")
    os.posix_fallocate(mailbox, offset, size)


def folder() -> str:
    """Return the folder for the segments of this process."""
    if os.path.ismount(SERVICE_FOLDER) and os.access(SERVICE_FOLDER, os.W_OK):
        return SERVICE_FOLDER
    return COMMON_FOLDER


def create_pool(size: int) -> PoolMemory:
    """Return the descriptors of a new zeroed segment of `size` bytes, already unlinked.

    All its pages are allocated here, so that no process runs into a full disk (SIGBUS) later.
    The segment's mode prevents other users from reopening it for writing.

    Raises:
        ShmFullError: there is not enough room.
        OSError: it cannot be created for another reason.
    """
    # The pid in the name lets `unlink_stale` find the segment of a daemon that was killed here.
    opened = _open_segment(folder(), f"{PREFIX}{os.getpid()}-{os.urandom(8).hex()}")
    try:
        os.fchmod(opened.owner, 0o400)
        _allocate(opened.owner, size)
    except BaseException:
        os.close(opened.owner)
        os.close(opened.receiver)
        raise
    return opened


def _open_segment(where: str, name: str) -> PoolMemory:
    """Return the two descriptors of a new segment, which has no name any more."""
    if where == COMMON_FOLDER and posix_ipc is not None:
        segment = posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREX, mode=0o600)
        try:
            receiver = posix_ipc.SharedMemory(f"/{name}", read_only=True).fd
        except BaseException:
            segment.close_fd()
            raise
        finally:
            segment.unlink()
        return PoolMemory(int(segment.fd), int(receiver))
    # POSIX has no names for segments in another file system.
    path = Path(where, name)
    owner = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        receiver = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except BaseException:
        os.close(owner)
        raise
    finally:
        path.unlink()
    return PoolMemory(owner, receiver)


def create_texts(size: int) -> tuple[int, Mapping]:
    """Return the descriptor and the mapping of memory that only this mapping can write.

    Raises:
        OSError: it cannot be created.
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
        usage = os.fstatvfs(segment)
        free = usage.f_bavail * usage.f_frsize
        if free < size:
            raise ShmFullError(size, free, folder()) from None
        raise


def check_share(size: int, used: int, used_by_dataflow: int) -> None:
    """Check that a node with `used` bytes of segments may have `size` more.

    One node may have three quarters of their file system, and all nodes of a dataflow seven
    eighths: the rest is left to other nodes and to other dataflows.

    Raises:
        ShmFullError: there is not enough room.
        OSError: the node or its dataflow would exceed its share.
    """
    where = folder()
    usage = os.statvfs(where)
    free, all_bytes = usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize
    if size > free:
        raise ShmFullError(size, free, where)
    for owner, own, share, name in (
        ("node", used, all_bytes // 4 * 3, "three quarters"),
        ("dataflow", used_by_dataflow, all_bytes // 8 * 7, "seven eighths"),
    ):
        if own + size > share:
            raise OSError(
                f"{size} bytes requested, and this {owner} has {own} of the {share} that one "
                f"{owner} may have ({name} of {where}); send smaller messages, or make {where} "
                "larger"
            )


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    raise OSError("/proc/meminfo has no line MemAvailable")


def unlink_stale() -> None:
    """Unlink segments of this user's daemons that died between creating and unlinking one.

    All users may put files into /dev/shm: files of others and non-regular files are skipped.
    """
    for path in (
        *Path(COMMON_FOLDER).glob(f"{PREFIX}*-*"),
        *Path(SERVICE_FOLDER).glob(f"{PREFIX}*-*"),
    ):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if not pid.isdecimal() or Path(f"/proc/{pid}").exists():
            continue
        try:
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
                path.unlink()
            else:
                _log.debug("skipping %s: not a regular file of this user", path)
        except OSError as error:
            _log.debug("cannot unlink %s: %s", path, error)
