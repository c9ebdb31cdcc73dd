"""The packets between the daemon or a run and the parent of its processes, a keeper or a guard.

Words with spaces between, one packet a message. A name or a tag is a word that begins with `=`.

To both: `spawn ID =TAG` with three descriptors (the packed command in a memfd, stdout, stderr)
and `signal PID NUMBER`. From both: `spawned ID PID STARTED CORES ERRNO`, `failed ID STAGE ERRNO`,
`exited PID STATUS` (as waitpid gives it). STARTED is field 22 of /proc/PID/stat; CORES are those it
cannot have, and ERRNO (or 0) is why it does not run as its schedule asks.

To a keeper: `store =NAME COUNT` with 1 to 3 descriptors, `drop =NAME`, `forget PID`, `end`.
From a keeper, once connected: `busy PID` and the end of the connection, if PID is attached; else
`hello VERSION PID`, then for all that it holds `entry =NAME` with descriptors and
`process PID STARTED STATUS =TAG` (STATUS `-` while it runs), then `ready`. Later also
`refused =NAME`: no descriptor is left to keep these with.

A command may be larger than a packet, hence the memfd; its parts are NUL-terminated, the one byte
that neither arguments nor environments can hold.

Imports little: guard and keeper pay for every import before the first node starts.
"""

from __future__ import annotations

import errno
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

VERSION = 2
"""Of the packets to and from a keeper, which may be older than the daemon."""

PACKET = 4096
"""Bytes no packet exceeds."""

LONGEST_NAME = 3000
"""Bytes a name or tag may have."""

_INT = struct.Struct("i")

MAX_FDS = 3
"""Descriptors that go with one packet."""

LATER = frozenset({errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""Why a packet cannot be sent before the other side has read some."""

STAGE_FOLDER = "folder"
STAGE_EXECUTE = "execute"


def pack_name(name: str) -> bytes:
    """Return a name or tag as one word.

    Raises:
        ValueError: it has white space in it, or is longer than LONGEST_NAME bytes.
    """
    word = name.encode()
    if len(word) > LONGEST_NAME or word.split() not in ([], [word]):
        raise ValueError(f"no name for a descriptor or process: {name[:80]!r}")
    return b"=" + word


def unpack_name(word: bytes) -> str:
    """Return what `pack_name` was given."""
    return word[1:].decode()


def pack_command(
    argv: Sequence[bytes],
    cwd: bytes,
    env: Mapping[bytes, bytes],
    cores: Iterable[int],
    schedule: Iterable[int] = (),
) -> bytes:
    """The content of a command's memfd.

    Raises:
        ValueError: an argument, the folder or a variable contains a NUL byte.
    """
    variables = [name + b"=" + value for name, value in env.items()]
    numbers = [join_numbers(cores), join_numbers(schedule), str(len(argv)).encode()]
    parts = [cwd, *numbers, *argv, *variables]
    if any(b"\0" in part for part in parts):
        raise ValueError("an argument or environment variable contains a NUL byte")
    return b"".join(part + b"\0" for part in parts)


def unpack_command(
    data: bytes,
) -> tuple[list[bytes], bytes, dict[bytes, bytes], tuple[int, ...], tuple[int, ...]]:
    """The argv, cwd, env, cores and schedule that `pack_command` was given."""
    cwd, cores, schedule, count, *rest = data.split(b"\0")[:-1]
    argv, variables = rest[: int(count)], rest[int(count) :]
    env = dict(variable.split(b"=", 1) for variable in variables)
    return argv, cwd, env, split_numbers(cores), split_numbers(schedule)


def join_numbers(numbers: Iterable[int]) -> bytes:
    """Numbers as one word: `0,2,5`; `-` when there are none."""
    return ",".join(map(str, numbers)).encode() or b"-"


def split_numbers(word: bytes) -> tuple[int, ...]:
    """The numbers of `join_numbers`."""
    return () if word == b"-" else tuple(map(int, word.split(b",")))


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Take a packet and its descriptors, which programs do not inherit; empty at the end.

    (`socket.recv_fds` passes no flags on, in Python 3.11.)

    Raises:
        OSError: as `recvmsg`.
    """
    room = socket.CMSG_SPACE(MAX_FDS * _INT.size)
    packet, extra, _, _ = sock.recvmsg(PACKET, room, socket.MSG_CMSG_CLOEXEC)
    fds = [
        number
        for level, kind, data in extra
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in _INT.iter_unpack(data[: len(data) - len(data) % _INT.size])
    ]
    return packet, fds
