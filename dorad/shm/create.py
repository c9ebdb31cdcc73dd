"""Creation of shared memory. Only the daemon creates it, so no other process can leave any behind.

There are three kinds, with different rights:

    mailbox  a sealed memfd that both ends write. It cannot be shrunk, so the daemon may map it.
    pool     a segment in /dev/shm, whose size limits what nodes use. Its owner writes it;
             receivers have a read-only descriptor. The daemon never maps it.
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

_FOLDER = "/dev/shm"
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_LARGE = 1 << 26
"""Mailboxes of at least this many bytes are checked against the available memory."""
_log = logging.getLogger(__name__)


class ShmFullError(OSError):
    """There is not enough room for shared memory; `asked` and `free` are bytes."""

    def __init__(self, asked: int, free: int, where: str = _FOLDER) -> None:
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


def create_pool(size: int) -> PoolMemory:
    """Return the descriptors of a new zeroed segment of `size` bytes, already unlinked.

    All its pages are allocated here, so that no process runs into a full /dev/shm (SIGBUS) later.
    The segment's mode prevents other users from reopening it for writing.

    Raises:
        ShmFullError: there is not enough room.
        OSError: it cannot be created for another reason.
    """
    # The pid in the name lets `unlink_stale` find the segment of a daemon that was killed here.
    name = f"/{PREFIX}{os.getpid()}-{os.urandom(8).hex()}"
    opened = _open_segment(name) if posix_ipc is not None else _open_by_libc(name)
    try:
        os.fchmod(opened.owner, 0o400)
        _allocate(opened.owner, size)
    except BaseException:
        os.close(opened.owner)
        os.close(opened.receiver)
        raise
    return opened


def _open_segment(name: str) -> PoolMemory:
    """Return the two descriptors of a new segment, which has no name any more."""
    segment = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    try:
        try:
            receiver = posix_ipc.SharedMemory(name, read_only=True)
        finally:
            segment.unlink()
    except BaseException:
        segment.close_fd()
        raise
    return PoolMemory(int(segment.fd), int(receiver.fd))


def _open_by_libc(name: str) -> PoolMemory:
    """Do the same as `_open_segment` without posix_ipc."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "shm_open"):  # glibc before 2.34
        libc = ctypes.CDLL("librt.so.1", use_errno=True)
    libc.shm_open.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_uint)
    libc.shm_unlink.argtypes = (ctypes.c_char_p,)

    def checked(result: int) -> int:
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), name)
        return result

    encoded = name.encode()
    # The C library adds O_CLOEXEC.
    owner = checked(libc.shm_open(encoded, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        try:
            receiver = checked(libc.shm_open(encoded, os.O_RDONLY, 0))
        finally:
            checked(libc.shm_unlink(encoded))
    except BaseException:
        os.close(owner)
        raise
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
        usage = os.statvfs(_FOLDER)
        free = usage.f_bavail * usage.f_frsize
        if free < size:
            raise ShmFullError(size, free) from None
        raise


def check_share(size: int, used: int, used_by_dataflow: int) -> None:
    """Check that a node with `used` bytes in /dev/shm may have `size` more.

    One node may have three quarters of it, and all nodes of a dataflow seven eighths: the rest is
    left to other nodes and to other dataflows.

    Raises:
        ShmFullError: there is not enough room.
        OSError: the node or its dataflow would exceed its share.
    """
    usage = os.statvfs(_FOLDER)
    free, all_bytes = usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize
    if size > free:
        raise ShmFullError(size, free)
    for owner, own, share, name in (
        ("node", used, all_bytes // 4 * 3, "three quarters"),
        ("dataflow", used_by_dataflow, all_bytes // 8 * 7, "seven eighths"),
    ):
        if own + size > share:
            raise OSError(
                f"{size} bytes requested, and this {owner} has {own} of the {share} that one "
                f"{owner} may have ({name} of /dev/shm); send smaller messages, or make /dev/shm "
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
    for path in Path("/dev/shm").glob(f"{PREFIX}*-*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if not pid.isdecimal() or Path(f"/proc/{pid}").exists():
            continue
        try:
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
                path.unlink()
            else:
                _log.debug("skipping %s: not a regular file of this user", path)
        except OSError as error:
            _log.debug("cannot unlink %s: %s", path, error)
