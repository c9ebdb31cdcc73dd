"""A connection to a message bus that reads nothing but the headers of what strangers send.

Any local user may send messages to any connection of the system bus, with descriptors in them and
bodies of up to 32 MiB. Descriptors are never received here: the kernel closes those that come with
data read by a plain `recv`. The body of a message is kept, and parsed, only if its sender is
trusted. Each turn of the event loop reads a limited number of bytes, so a flood delays other work
but does not stop it.
"""

from __future__ import annotations

import array
import asyncio
import itertools
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from jeepney import Header, HeaderFields, Message, MessageFlag, MessageType
from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.low_level import Endianness, calc_msg_size, endian_map, parse_signature

from dorad.launch.systemd.values import marshallable, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DRIVER = "org.freedesktop.DBus"
"""Name of the bus itself: its messages are its own, no client can send under it."""
MAX_HEADER = 64 << 10
MAX_MESSAGE = 16 << 20
"""Bytes of a message that is read; a longer one is passed over."""
_READ_BYTES = 16 << 10
_FIXED = 16
"""Bytes of a message that tell how long it is."""
_CONNECT_RETRY_SECONDS = 0.05
_log = logging.getLogger(__name__)


class BusError(Exception):
    """systemd refuses, or cannot be asked; `str()` is its reason.

    `name` is the error's name on D-Bus, or `no-bus` where the connection was lost.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Signal(NamedTuple):
    """A signal of a trusted sender; variants in `values` are unwrapped."""

    sender: str
    path: str
    interface: str
    member: str
    values: list[Any]


class Connection:
    """An open connection. Made by `open`; belongs to one event loop."""

    def __init__(self, sock: socket.socket, on_signal: Callable[[Signal], None]) -> None:
        self.trusted = {DRIVER}
        """Unique names whose messages are read."""
        self._sock = sock
        self._on_signal = on_signal
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(lambda sender: sender in self.trusted)
        self._outbox: deque[tuple[memoryview, list[int]]] = deque()
        self._serials = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Message]] = {}
        self._lost = asyncio.Event()

    @classmethod
    async def open(cls, address: str, on_signal: Callable[[Signal], None]) -> Connection:
        """Connect to the socket `address`, as `socket.connect` wants it, and say hello.

        Raises:
            OSError: the bus is not there, or refuses.
            BusError: it does not answer to the hello.
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
        data, fds = _message(serial, destination, path, interface, member, signature, body)
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._calls[serial] = answer
        try:
            self._send(data, fds)
            return _values(await answer)
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
        self._loop.remove_writer(self._sock)
        self._sock.close()
        while self._outbox:
            _close(self._outbox.popleft()[1])
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(BusError("no-bus", "the connection to D-Bus was lost"))

    # -- sending -----------------------------------------------------------------------------

    def _send(self, data: bytes, fds: list[int]) -> None:
        """Send now, or as soon as the bus takes it: a full socket is not a lost connection."""
        waits = bool(self._outbox)
        # Duplicates: the caller may give up, and close its own, before these are sent.
        self._outbox.append((memoryview(data), [os.dup(fd) for fd in fds]))
        if not waits:
            self._write()
            if self._outbox:
                _log.debug("the bus takes no more at the moment")
                self._loop.add_writer(self._sock, self._write)

    def _write(self) -> None:
        while self._outbox:
            data, fds = self._outbox[0]
            try:
                sent = _send(self._sock, data, fds)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _log.debug("D-Bus: %r", error)
                self.close()
                return
            _close(fds)
            if sent < len(data):
                self._outbox[0] = (data[sent:], [])
            else:
                self._outbox.popleft()
        self._loop.remove_writer(self._sock)

    # -- receiving ---------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            _log.debug("D-Bus: %r", error)
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
                    _values(message),
                )
            except KeyError:
                return
            self._on_signal(signal)
            return
        # What comes after its call was given up finds nobody, and neither does a method call.
        answer = self._calls.pop(fields.get(HeaderFields.reply_serial, 0), None)
        if answer is not None and not answer.done():
            answer.set_result(message)


class ProtocolError(Exception):
    """What comes over the connection is not D-Bus."""


class Inbox:
    """Splits a stream of bytes into messages; passes over those with an unknown sender."""

    def __init__(self, trusts: Callable[[str], bool]) -> None:
        self._trusts = trusts
        self._buffer = bytearray()
        self._skip = 0
        """Bytes that are still to come of a message that is passed over."""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages of trusted senders that `data` completes. Raises ProtocolError."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += data[skipped:]
        while len(self._buffer) >= _FIXED:
            head, size = _sizes(bytes(self._buffer[:_FIXED]))
            if head > MAX_HEADER or size > MAX_MESSAGE:
                self._drop(size)
                continue
            if len(self._buffer) < head:
                return
            if not self._wants(bytes(self._buffer[:head])):
                self._drop(size)
                continue
            if len(self._buffer) < size:
                return
            raw = bytes(self._buffer[:size])
            del self._buffer[:size]
            message = _parsed(raw)
            if message is not None:
                yield message

    def _drop(self, size: int) -> None:
        self._skip = max(0, size - len(self._buffer))
        del self._buffer[:size]

    def _wants(self, head: bytes) -> bool:
        try:
            header, _ = Header.from_buffer(head)
        except Exception as error:  # noqa: BLE001 - the header is a stranger's
            _log.debug("a message with an unreadable header is passed over: %r", error)
            return False
        return self._trusts(header.fields.get(HeaderFields.sender, ""))


def _sizes(fixed: bytes) -> tuple[int, int]:
    """Return the bytes of the header, and of the whole message."""
    endianness = endian_map.get(fixed[:1])
    if endianness is None:
        raise ProtocolError(f"a message begins with {fixed[:1]!r}")
    fields = int.from_bytes(fixed[12:16], "little" if endianness is Endianness.little else "big")
    return _FIXED + fields + -fields % 8, calc_msg_size(fixed)


def _parsed(raw: bytes) -> Message | None:
    """Return a message; None, with an error for a call that waits for it, if it is not in order."""
    try:
        # An answer may speak of descriptors; they were not received.
        return Message.from_buffer(raw, fds=range(-1, -254, -1))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the next one may be fine
        _log.warning("a message of D-Bus cannot be read: %r", error)
        header, _ = Header.from_buffer(raw)
        if header.message_type is not MessageType.method_return:
            return None
        header.message_type = MessageType.error
        header.fields[HeaderFields.error_name] = "unreadable"
        return Message(header, ("its answer cannot be read",))


def _message(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str,
    body: Sequence[Any],
) -> tuple[bytes, list[int]]:
    """Return a method call as bytes, and the descriptors that go with it."""
    fields = {
        HeaderFields.path: path,
        HeaderFields.destination: destination,
        HeaderFields.interface: interface,
        HeaderFields.member: member,
    }
    if signature:
        fields[HeaderFields.signature] = signature
    kind, flags = MessageType.method_call.value, MessageFlag.no_auto_start
    header = Header(Endianness.little, kind, flags, 1, 0, serial, fields)
    fds = array.array("i")
    shape = parse_signature(list(f"({signature})"))
    message = Message(header, marshallable(shape, body))
    return message.serialise(serial, fds), list(fds)


def _values(message: Message) -> list[Any]:
    """Return the values of a message. Raises BusError if it is an error."""
    if message.header.message_type is MessageType.error:
        text = str(message.body[0]) if message.body else ""
        raise BusError(message.header.fields.get(HeaderFields.error_name, ""), text)
    shape = parse_signature(list(f"({message.header.fields.get(HeaderFields.signature, '')})"))
    return [plain(each, value) for each, value in zip(shape.fields, message.body, strict=True)]


async def _connect(sock: socket.socket, address: str) -> None:
    """Connect; waits while as many others as the bus lets wait are waiting."""
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


def _send(sock: socket.socket, data: memoryview, fds: list[int]) -> int:
    if not fds:
        return sock.send(data)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    return sock.sendmsg([data], [rights])


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()
