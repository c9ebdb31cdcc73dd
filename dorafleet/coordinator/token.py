"""The token of a coordinator. A user who can read its file may command the coordinator.

Any user of a machine can connect to its loopback, so an address is no authentication. The file
belongs to the user of the coordinator and no other user can read it. Browsers cannot send the
header either, so no web page reaches the coordinator.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.token import TOKEN_BYTES, read_token

if TYPE_CHECKING:
    from pathlib import Path


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
    token = secrets.token_hex(TOKEN_BYTES)
    try:
        os.write(descriptor, f"{token}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return token
