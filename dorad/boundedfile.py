"""Read files that a user names, or that a folder of a stranger holds.

A pipe without a writer would never open, a device never end, a large file fill the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_bounded(path: Path, limit: int, *, pipes: bool = False) -> bytes:
    """Return the content of a regular file that has at most `limit` bytes.

    With `pipes` it may be a pipe that this process has open, such as `/dev/stdin` or the shell's
    `<(command)`: only for paths on a command line.

    Raises:
        OSError: it cannot be read, is larger (EFBIG), or is something else (EINVAL).
        ValueError: no file can have this path.
    """
    # Without waiting for the writer of a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode) and not (pipes and _is_own_pipe(path, mode)):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        size = f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit} bytes"
        raise OSError(errno.EFBIG, f"larger than {size}", str(path))
    return data


def _is_own_pipe(path: Path, mode: int) -> bool:
    return stat.S_ISFIFO(mode) and os.path.realpath(path).startswith("/proc/")
