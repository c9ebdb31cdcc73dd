"""Opening the socket of a daemon, in bounded time whatever state the daemon is in."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from dorad.control import faults
from dorad.control.errors import ControlError
from dorad.control.limits import LARGEST_REPLY
from dorad.control.listening import no_daemon
from dorad.control.peer import peer_of

if TYPE_CHECKING:
    from pathlib import Path

CONNECT_S = 2.0
"""Seconds from the first try to the daemon's welcome."""

CALL_S = 30.0
"""Seconds for a call that does not itself ask for more, and for sending a request."""

SILENCE_S = 0.3
"""Seconds without a frame while one is awaited; then the daemon is sent a ping, and so often is
looked whether it has answered."""

ANSWER_S = 2.0
"""Seconds that it has for an answer, or for any other frame."""

OPTIONS: Final[dict[str, Any]] = {
    "compression": None,
    "max_size": LARGEST_REPLY,
    "close_timeout": 0.3,
    # Clients ping when they wait, see SILENCE_S; one that is busy must not take that for silence.
    "ping_interval": None,
    # A reader that is slow has old messages before it; of large ones a few fill the memory.
    "max_queue": 2,
    "user_agent_header": None,
}
"""For websockets' `unix_connect`."""


def open_socket(paths: tuple[Path, ...]) -> tuple[Path, int, socket.socket]:
    """Return the first of the paths where a daemon listens, its process, and a connected socket.

    Raises:
        ControlError: with code `unavailable`, `refused`, or `deadline` for a daemon that has not
            taken its last connections.
    """
    for path in paths:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The kernel waits for room in the backlog as long as sending may take; a socket that
            # Python has given a timeout would not wait at all.
            _limit_sending(sock, CONNECT_S)
            sock.connect(str(path))
            _limit_sending(sock, CALL_S)
            return path, peer_of(sock).pid, sock
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
        except BlockingIOError:
            sock.close()
            raise faults.hung(path, None, CONNECT_S) from None
        except OSError as error:
            sock.close()
            raise ControlError(
                "refused",
                f"{path} cannot be opened: {error.strerror or error}",
                "be the user who started that dorad, or a member of the group `dorad` where it "
                "serves the whole machine",
            ) from None
    raise no_daemon(paths)


def _limit_sending(sock: socket.socket, seconds: float) -> None:
    timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
