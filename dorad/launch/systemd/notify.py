"""Send notifications with descriptors to systemd, and receive the descriptors it has kept.

Notifications without descriptors go through the library `sdnotify`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

_FIRST = 3
_LATER = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)


class Notifier:
    """Sends datagrams to systemd, in order, without ever blocking.

    systemd reads a process's notifications before it handles its exit: what was sent is not lost
    if this process is killed.
    """

    def __init__(self, address: str) -> None:
        """Connect to `address`, the value of NOTIFY_SOCKET. Raises OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError:
            self._socket.close()
            raise
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def send(self, text: str, fds: Sequence[int] = ()) -> None:
        """Send now or, with duplicates of the descriptors, as soon as systemd takes it.

        Raises:
            OSError: systemd is gone, or there are no more descriptors.
        """
        data = text.encode()
        if not self._queue and self._try(data, fds):
            return
        self._queue.append((data, [os.dup(fd) for fd in fds]))
        self._emptied.clear()
        asyncio.get_running_loop().add_writer(self._socket, self._flush)

    async def flushed(self) -> None:
        """Return when nothing is queued here any more."""
        await self._emptied.wait()

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
        """Send nothing any more. Idempotent."""
        if self._queue:
            asyncio.get_running_loop().remove_writer(self._socket)
        while self._queue:
            _close(self._queue.popleft()[1])
        self._socket.close()

    def _flush(self) -> None:
        while self._queue:
            data, fds = self._queue[0]
            try:
                if not self._try(data, fds):
                    return
            except ConnectionError:
                # systemd itself starts anew (daemon-reexec); its socket comes back with it.
                return
            _close(self._queue.popleft()[1])
        asyncio.get_running_loop().remove_writer(self._socket)
        self._emptied.set()

    def _try(self, data: bytes, fds: Sequence[int]) -> bool:
        try:
            socket.send_fds(self._socket, [data], fds)
        except OSError as error:
            if error.errno in _LATER:
                return False
            raise
        return True


def take_descriptors(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Return the descriptors that systemd has passed to this process, with their names.

    Removes their variables from `environ`; children inherit neither.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "0")
    names = environ.pop("LISTEN_FDNAMES", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    descriptors = range(_FIRST, _FIRST + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    split = names.split(":") if names else []
    split += [""] * (len(descriptors) - len(split))
    return list(zip(split, descriptors, strict=False))


def _arrive(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
