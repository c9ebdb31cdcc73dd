"""Connect to a daemon's socket in bounded time, even if the daemon hangs."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from dorad.control import faults
from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REPLY
from dorad.control.listening import no_daemon
from dorad.control.peer import peer_of

if TYPE_CHECKING:
    from pathlib import Path

CONNECT_S = 2.0
"""Seconds from the first try to the daemon's welcome."""

CALL_S = 30.0
"""Seconds for a call whose parameters do not request more, and for sending a request."""

SILENCE_S = 0.3
"""Seconds without a frame before the client pings the daemon, and between checks for the answer."""

ANSWER_S = 2.0
"""Seconds that the daemon has to answer a ping, or to send any other frame."""

OPTIONS: Final[dict[str, Any]] = {
    "compression": None,
    "max_size": MAX_REPLY,
    "close_timeout": 0.3,
    # The client pings while it waits, see SILENCE_S. While it is busy, silence means nothing.
    "ping_interval": None,
    # Few, because a slow reader should get recent messages, and large ones fill the memory.
    "max_queue": 2,
    "user_agent_header": None,
}
"""Arguments for `unix_connect` of the `websockets` library."""


def open_socket(paths: tuple[Path, ...]) -> tuple[Path, int, socket.socket]:
    """Connect to the first path where a daemon listens; return path, process id and socket.

    Raises:
        ControlError: with code `unavailable`, `refused`, or `deadline` for a daemon that does not
            accept its pending connections.
    """
    for path in paths:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A full backlog blocks `connect` for as long as the send timeout. Python's own timeout
            # makes the socket non-blocking, which fails at once instead.
            _limit_sending(sock, CONNECT_S)
            sock.connect(str(path))
            _limit_sending(sock, CALL_S)
            return path, peer_of(sock).pid, sock
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
        except BlockingIOError:
            sock.close()
            raise faults.not_responding(path, None, CONNECT_S) from None
        except OSError as error:
            sock.close()
            raise ControlError(
                "refused",
                f"{path} cannot be opened: {error.strerror or error}",
                "use the account that started that dorad; for the machine's own dorad, join the "
                "group `dorad`",
            ) from None
    raise no_daemon(paths)


def _limit_sending(sock: socket.socket, seconds: float) -> None:
    timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
