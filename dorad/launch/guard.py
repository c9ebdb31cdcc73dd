"""The guard process: parent of all processes of a run, and their end when the run ends.

It lives in a session of its own, so a terminal's Ctrl-C reaches neither it nor the nodes. It does
what it is asked over its socket (see `wire`), and when that socket ends, because the run closed
it or died of whatever cause, it kills every descendant and ends too.
"""

from __future__ import annotations

import os
import socket

from dorad.launch.parent import Parent


def main(fd: int) -> None:
    """Serve the run at the other end of the SOCK_SEQPACKET socket `fd` until it is gone."""
    os.set_inheritable(fd, False)
    guard = _Guard()
    guard.join(socket.socket(fileno=fd))
    guard.serve()


class _Guard(Parent):
    def hung_up(self) -> None:
        self.over = True
