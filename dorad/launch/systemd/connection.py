"""A connection to a message bus that reads only the headers of messages from untrusted senders.

Any local user may send messages to any connection of the system bus, with descriptors and bodies of
up to 32 MiB. Descriptors are never received here: the kernel closes those that come with data read
by a plain `recv`. The body of a message is kept, and parsed, only if its sender is trusted. Each
turn of the event loop reads a limited number of bytes, so a flood delays other work but does not
stop it.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jeepney import HeaderFields, Message, MessageType
from jeepney.auth import BEGIN, AuthenticationError, Authenticator

from dorad.launch.asyncsender import AsyncSender
from dorad.launch.systemd.messages import (
    BusError,
    Inbox,
    ProtocolError,
    method_call,
    values_of,
)

DRIVER = "org.freedesktop.DBus"
"""The sender of the bus's own messages; no client can use this name."""
_READ_BYTES = 16 << 10
_CONNECT_RETRY_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Signal(NamedTuple):
    """A signal from a trusted sender; variants in `values` are unwrapped."""

    sender: str
    path: str
    interface: str
    member: str
    values: list[Any]


class Connection:
    """An open connection. Made by `open`; belongs to one event loop."""

    def __init__(self, sock: socket.socket, on_signal: Callable[[Signal], None]) -> None:
        self.trusted = {DRIVER}
        """Unique names of the senders whose messages are read."""
        self._sock = sock
        self._on_signal = on_signal
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(lambda sender: sender in self.trusted)
        self._sender = AsyncSender(sock, self._on_error)
        self._serials = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Message]] = {}
        self._lost = asyncio.Event()

    @classmethod
    async def open(cls, address: str, on_signal: Callable[[Signal], None]) -> Connection:
        """Connect to the socket `address`, as `socket.connect` takes it, and send Hello.

        Raises:
            OSError: the bus cannot be reached, or refuses.
            BusError: the answer to Hello is an error.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await _connect(sock, address)
            await _authenticate(sock)
        except BaseException:
            sock.close()
            raise
        connection = cls(sock, on_signal)
        connection._loop.add_reader(sock, connection._read)
        try:
            await connection.call(DRIVER, "/org/freedesktop/DBus", DRIVER, "Hello")
        except BaseException:
            connection.close()
            raise
        return connection

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
    ) -> list[Any]:
        """Call a method and return the values of its answer, with variants unwrapped.

        A variant of `body` is a tuple of its signature and its value; a descriptor (`h`) is the
        descriptor itself, which stays the caller's.

        Raises:
            BusError: the answer is an error, or the connection was lost.
        """
        if self._lost.is_set():
            raise BusError("no-bus", "the connection to D-Bus was lost")
        serial = next(self._serials)
        data, fds = method_call(serial, destination, path, interface, member, signature, body)
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._calls[serial] = answer
        try:
            self._send(data, fds)
            return values_of(await answer)
        finally:
            self._calls.pop(serial, None)

    async def lost(self) -> None:
        """Return when the connection is lost or closed."""
        await self._lost.wait()

    def close(self) -> None:
        """Close the connection; calls that wait for an answer fail. Idempotent."""
        if self._lost.is_set():
            return
        self._lost.set()
        self._loop.remove_reader(self._sock)
        self._sender.clear()
        self._sock.close()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(BusError("no-bus", "the connection to D-Bus was lost"))

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        """Send a message now or, with duplicates of the descriptors, as soon as the bus takes it.

        Raises:
            BusError: no descriptor is left for a duplicate.
        """
        try:
            self._sender.send(data, fds)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                text = f"no descriptor can be sent: {error.strerror}"
                raise BusError("no-descriptors", text) from error
            self._on_error(error)

    def _on_error(self, error: OSError) -> None:
        _log.debug("sending to D-Bus: %r", error)
        self.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            _log.debug("receiving from D-Bus: %r", error)
            data = b""
        if not data:
            self.close()
            return
        try:
            for message in self._inbox.feed(data):
                self._take(message)
        except ProtocolError as error:
            _log.warning("D-Bus: %s", error)
            self.close()

    def _take(self, message: Message) -> None:
        fields = message.header.fields
        if message.header.message_type is MessageType.signal:
            try:
                signal = Signal(
                    fields[HeaderFields.sender],
                    fields[HeaderFields.path],
                    fields[HeaderFields.interface],
                    fields[HeaderFields.member],
                    values_of(message),
                )
            except KeyError:
                return
            self._on_signal(signal)
            return
        # Ignore answers to calls that were given up, and method calls, which answer none.
        answer = self._calls.pop(fields.get(HeaderFields.reply_serial, 0), None)
        if answer is not None and not answer.done():
            answer.set_result(message)


async def _connect(sock: socket.socket, address: str) -> None:
    """Connect; wait while the backlog of the bus is full."""
    while True:
        try:
            sock.connect(address)
        except BlockingIOError:
            await asyncio.sleep(_CONNECT_RETRY_SECONDS)
        else:
            return


async def _authenticate(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    conversation = Authenticator(enable_fds=True)
    try:
        for data in conversation:
            await loop.sock_sendall(sock, data)
            received = await loop.sock_recv(sock, 4096)
            if not received:
                raise ConnectionResetError("the bus has closed the connection")
            conversation.feed(received)
    except AuthenticationError as error:
        raise ConnectionRefusedError(str(error)) from error
    await loop.sock_sendall(sock, BEGIN)
