"""The file with a coordinator's token: who can read it may command the coordinator."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_BYTES = 32
"""Random bytes of a token, which is their hexadecimal form."""

_TOKEN = re.compile(r"[0-9a-f]{64}")


def is_token(text: str) -> bool:
    """Return True if a text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def read_token(path: Path) -> str:
    """Return the token in a file that only its owner can read, who is this user; root reads all.

    Raises:
        ControlError: it is not such a file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        hint = None
        if isinstance(error, FileNotFoundError):
            hint = "the coordinator makes it; if none runs here, another program uses its port: "
            hint += "`ss -tlnp` shows which"
        message = f"{path} cannot be read: {error.strerror}"
        raise ControlError("refused", message, hint) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ControlError("refused", f"{path} is not a file")
        # Root may be any user anyway, also that of the coordinator's service.
        if os.geteuid() not in (0, status.st_uid):
            raise ControlError("refused", f"{path} belongs to user {status.st_uid}, not to you")
        if status.st_mode & 0o077:
            raise ControlError(
                "refused",
                f"others may use {path}: its mode is {stat.S_IMODE(status.st_mode):04o}",
                f"delete it, and restart the coordinator for a new token; or `chmod 600 {path}` if "
                "no other user can have read it",
            )
        text = os.read(descriptor, 2 * TOKEN_BYTES + 2).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    if not is_token(text):
        raise ControlError("refused", f"{path} holds no token", "delete it for a new one")
    return text
