"""A socket on loopback for viewers of this machine."""

from __future__ import annotations

import errno
import socket

LOOPBACK = "127.0.0.1"


def listen(port: int | None, usual: int) -> socket.socket:
    """Listen at a port; without one at the usual one, or at a free one if that is in use.

    Raises:
        OSError: the port that was given is in use.
    """
    try:
        return socket.create_server((LOOPBACK, usual if port is None else port))
    except OSError as error:
        if port is not None or error.errno != errno.EADDRINUSE:
            raise
        return socket.create_server((LOOPBACK, 0))
