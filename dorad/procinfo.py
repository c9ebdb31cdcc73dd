"""What the kernel reports about processes: /proc/PID/stat, and the peer of a Unix socket.

Few imports, because a process holder pays for each one before it starts the first node.
"""

from __future__ import annotations

import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")
_STATE, _PARENT, _START_TIME = 0, 1, 19
"""Indices into what `stat_fields` returns."""


def stat_fields(pid: int | str) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the third (state) on; None if it does not exist.

    `pid` may also be `PID/task/TID`, for one thread.
    """
    try:
        # It never blocks; O_NONBLOCK is for tools that watch for blocking calls.
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):  # PermissionError: another user's, and hidden
        return None
    try:
        text = os.read(file, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(file)
    # The second field, the command's name in brackets, may contain any character.
    return text[text.rindex(b")") + 1 :].split()


def start_time(pid: int) -> int | None:
    """Return the clock ticks from boot to the start of a process; None if it does not exist.

    Pid and start time together identify a process until the machine reboots.
    """
    fields = stat_fields(pid)
    return None if fields is None else int(fields[_START_TIME])


def parent_of(pid: int) -> int | None:
    """Return the pid of a process's parent; None if the process does not exist."""
    fields = stat_fields(pid)
    return None if fields is None else int(fields[_PARENT])


def is_alive(pid: int, started: int | None = None) -> bool:
    """Return True if a process runs (a zombie does not), and has the start time `started`."""
    fields = stat_fields(pid)
    if fields is None or fields[_STATE] in b"ZX":
        return False
    return started is None or int(fields[_START_TIME]) == started


def is_sigstopped(pid: int) -> bool:
    """Return True if a signal or a tracer has stopped a process; False if it does not exist.

    Costs about ten microseconds, and does not wake the process.
    """
    try:
        fields = stat_fields(pid)
    except OSError:  # no descriptor left
        return False
    return fields is not None and fields[_STATE] in (b"T", b"t")


def is_busy(pid: int) -> bool:
    """Return True if a thread of a process computes, or waits for a processor or a disk."""
    try:
        with os.scandir(f"/proc/{pid}/task") as threads:
            of_threads = [stat_fields(f"{pid}/task/{thread.name}") for thread in threads]
    except OSError:  # it has ended, belongs to another user, or no descriptor is left
        return False
    return any(fields is not None and fields[_STATE] in (b"R", b"D") for fields in of_threads)


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of the process that connected to, or listens at, the other end.

    Raises:
        OSError: it is not a connected Unix socket.
    """
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid
