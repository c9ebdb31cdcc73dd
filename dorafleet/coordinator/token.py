"""The token of a coordinator: who can read its file may command it.

Any user of a machine can connect to its loopback, so an address is no authentication. The file
belongs to the user of the coordinator and nobody else can read it. Browsers cannot send the header
either, so no web page reaches the coordinator.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.peer import Peer
from dorad.control.token import TOKEN_BYTES, read_token

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request as HttpRequest

_log = logging.getLogger(__name__)


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


class TokenCheck:
    """Admits clients that send the token as `Authorization: Bearer TOKEN`."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def __call__(self, connection: ServerConnection, request: HttpRequest) -> Peer:
        """Return the user of the coordinator, as whom a client with the token acts.

        Raises:
            ControlError: the token is missing or wrong.
        """
        given = request.headers.get_all("Authorization")
        # The library keeps bytes that are not ASCII as surrogates.
        sent = given[0].encode("utf-8", "surrogateescape") if len(given) == 1 else b""
        if not hmac.compare_digest(sent, self._expected):
            _log.warning("refused a client at %s: no valid token", connection.remote_address)
            raise ControlError(
                "refused",
                "the token is wrong" if given else "no token was sent",
                "send the content of the coordinator's token file as `Authorization: Bearer TOKEN`",
            )
        return Peer(0, os.geteuid(), os.getegid())
