"""Send notifications with descriptors to systemd, and receive the descriptors it has kept.

Notifications without descriptors go through the library `sdnotify`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import MutableMapping, Sequence

from dorad.launch.asyncsender import AsyncSender

_FIRST_FD = 3


class Notifier:
    """Sends datagrams to systemd, in order, without ever blocking.

    systemd reads a process's notifications before it handles its exit, so sent ones are not lost if
    this process is killed.
    """

    def __init__(self, address: str) -> None:
        """Connect to `address`, the value of NOTIFY_SOCKET. Raises OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError:
            self._socket.close()
            raise
        # While systemd executes itself again (daemon-reexec), its socket refuses packets. The
        # backlog stays, and is sent when the socket is back.
        self._sender = AsyncSender(self._socket, lambda _error: None)

    def send(self, text: str, fds: Sequence[int] = ()) -> None:
        """Send now or, with duplicates of the descriptors, as soon as systemd takes it.

        Raises:
            OSError: systemd has closed its socket, or no descriptor is left.
        """
        self._sender.send(text.encode(), fds)

    async def flushed(self) -> None:
        """Return when nothing waits to be sent."""
        await self._sender.drained()

    async def barrier(self) -> None:
        """Return when systemd has processed all earlier notifications."""
        await self.flushed()
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        loop.add_reader(read, _arrive, done)
        try:
            try:
                self.send("BARRIER=1", (write,))
            finally:
                os.close(write)
            await done
        finally:
            loop.remove_reader(read)
            os.close(read)

    def close(self) -> None:
        """Close the socket; unsent notifications are lost. Idempotent."""
        self._sender.clear()
        self._socket.close()


def take_descriptors(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Return the descriptors that systemd has passed to this process, with their names.

    Removes their variables from `environ`; children inherit neither.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "0")
    names = environ.pop("LISTEN_FDNAMES", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    descriptors = range(_FIRST_FD, _FIRST_FD + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    split = names.split(":") if names else []
    split += [""] * (len(descriptors) - len(split))
    return list(zip(split, descriptors, strict=False))


def _arrive(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
