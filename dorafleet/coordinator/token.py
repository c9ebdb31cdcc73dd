"""The token of a coordinator. A user who can read its file may command the coordinator.

Any user of a machine can connect to its loopback, so an address is no authentication. The file
belongs to the user of the coordinator and no other user can read it. Browsers cannot send the
header either, so no web page reaches the coordinator.
"""

import fcntl
import os
import secrets
import stat
from pathlib import Path

from dorad.control.errors import ControlError
from dorad.control.token import TOKEN_BYTES, read_token


def make_token(path: Path) -> str:
    """Return the token in the file at `path`; write a new one if there is none.

    A coordinator that was killed may have left its file empty.

    Raises:
        ControlError: the file can be read by others, or does not hold a token.
    """
    new = os.O_CREAT | os.O_EXCL
    try:
        if os.path.lexists(path):
            if not _is_unfinished(path.lstat()):
                return read_token(path)
            new = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | new, 0o600)
        try:
            # Another process may start now, and find the empty file.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_unfinished(os.fstat(descriptor)):
                os.write(descriptor, f"{secrets.token_hex(TOKEN_BYTES)}\n".encode())
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileExistsError:
        return make_token(path)
    except OSError as error:
        raise ControlError("refused", f"{path} cannot be written: {error.strerror}") from None
    return read_token(path)


def _is_unfinished(status: os.stat_result) -> bool:
    """Return True for an empty file that is this user's alone."""
    private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return stat.S_ISREG(status.st_mode) and private and not status.st_size
