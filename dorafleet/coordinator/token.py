"""The token of a coordinator: who can read its file may command it.

Any user of a machine can connect to its loopback, so an address is no authentication. The file
belongs to the user of the coordinator and nobody else can read it. Browsers cannot send the header
either, so no web page reaches the coordinator.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from pathlib import Path

_TOKEN = re.compile(r"[0-9a-f]{64}")
_BYTES = 32


def make_token(path: Path) -> str:
    """Return the token in the file at `path`; write a new one if there is no file.

    Raises:
        ControlError: the file can be read by others, or does not hold a token.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return read_token(path)
    except OSError as error:
        raise ControlError("refused", f"{path} cannot be written: {error.strerror}") from None
    token = secrets.token_hex(_BYTES)
    try:
        os.write(descriptor, f"{token}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return token


def read_token(path: Path) -> str:
    """Return the token in a file that only its owner, who is this user, can read.

    Raises:
        ControlError: it is not such a file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ControlError("refused", f"{path} cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ControlError("refused", f"{path} is not a file")
        if found.st_uid != os.geteuid():
            raise ControlError("refused", f"{path} belongs to user {found.st_uid}, not to you")
        if found.st_mode & 0o077:
            raise ControlError(
                "refused",
                f"others may use {path}: its mode is {stat.S_IMODE(found.st_mode):04o}",
                f"delete it, and restart the coordinator for a new token; or `chmod 600 {path}` if "
                "nobody can have read it",
            )
        text = os.read(descriptor, 2 * _BYTES + 2).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    if _TOKEN.fullmatch(text) is None:
        raise ControlError("refused", f"{path} holds no token", "delete it for a new one")
    return text
