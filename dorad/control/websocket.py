"""The client's end of a WebSocket, using only the standard library.

Every `dora` command connects through it. The servers and the asyncio client use the `websockets`
library, but importing that takes about 75 ms, longer than a whole command such as `dora list`; this
module takes about 12 ms with its imports. It has only what the servers' frames need: no
compression, no extensions, no subprotocols.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from binascii import b2a_base64
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.transport import Transport

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FINAL = _MASKED = 0x80
_NO_MASK = b"\0\0\0\0"
"""Masks protect against proxies that mistake data for requests; a Unix socket has no proxy. The
protocol requires a mask from clients, and zeros leave the data unchanged."""

_NORMAL_CLOSURE, _PROTOCOL_ERROR, _INVALID_DATA, _TOO_BIG = 1000, 1002, 1007, 1009
_HTTP = b"HTTP/1."
_MAX_HEAD = 16 << 10
_CHUNK, _MAX_CHUNK = 64 << 10, 1 << 20


class NotOpenedError(Exception):
    """The server refused to open a WebSocket; `body` is the body of its HTTP answer."""

    def __init__(self, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body


class ClosedError(Exception):
    """The connection has ended; `code` is the server's reason, if it gave one."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"closed with code {code}")
        self.code = code


class WebSocket:
    """A WebSocket on a transport. Any number of threads may send; one at a time may receive."""

    def __init__(self, transport: Transport, *, max_size: int, masked: bool = False) -> None:
        """`max_size` limits the messages that are received, in bytes.

        `masked` hides what is sent from proxies, as the protocol requires on a network.
        """
        self._transport = transport
        self._max_size = max_size
        self._masked = masked
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._fragments = bytearray()
        self._fragmented: int | None = None
        """Opcode of the fragmented message that is being received."""
        self._ended: ClosedError | None = None
        self.last_received = time.monotonic()
        """When the server last sent anything, on the monotonic clock."""

    def request(self, host: str, headers: Mapping[str, str]) -> None:
        """Send the request of the opening handshake. `host` is the server's name and port.

        Raises:
            OSError: the connection has ended.
        """
        key = b2a_base64(os.urandom(16), newline=False)
        lines = [
            "GET / HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._transport.send("\r\n".join((*lines, "", "")).encode())

    def open(self, timeout: float) -> None:
        """Receive the answer to the request; may be called again after a TimeoutError.

        Raises:
            TimeoutError: the server did not answer within `timeout` seconds.
            NotOpenedError: the server refused.
            OSError: the connection has ended.
        """
        deadline = time.monotonic() + timeout
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if (
                len(self._buffer) > _MAX_HEAD
                or not _HTTP.startswith(self._buffer[: len(_HTTP)])
                or not self._fill(deadline, _CHUNK)
            ):
                raise NotOpenedError("it did not answer in HTTP")
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        status = head.split(b"\r\n", 1)[0]
        if status.startswith(b"HTTP/1.1 101 "):
            return
        if not status.startswith(_HTTP):
            raise NotOpenedError("it did not answer in HTTP")
        # After a refusal dorad closes the connection. Another program may keep it open.
        size = _body_size(head)
        with suppress(OSError):
            while len(self._buffer) < size and self._fill(deadline, _CHUNK):
                pass
        raise NotOpenedError(f"it answered {status[:80].decode('latin-1')}", bytes(self._buffer))

    def send(self, data: bytes, *, text: bool) -> None:
        """Send a message.

        If the server has just closed the connection this does nothing; `receive` raises the reason.

        Raises:
            ClosedError: the connection ended earlier, or the server does not read.
        """
        self._send(_TEXT if text else _BINARY, data)

    def ping(self) -> None:
        """Send a ping; its answer updates `last_received`. Raises ClosedError."""
        self._send(_PING, b"")

    def receive(self, timeout: float) -> str | bytes:
        """Return the next message: text as str, data as bytes.

        Raises:
            TimeoutError: no complete message arrived within `timeout` seconds.
            ClosedError: the connection has ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self._ended is not None:
                raise self._ended
            frame = self._next_frame(deadline)
            message = self._take(*frame)
            if message is not None:
                return message

    def close(self) -> None:
        """Close the connection without waiting. A thread inside `receive` gets ClosedError."""
        if self._sending.acquire(blocking=False):
            try:
                if self._ended is None:
                    with suppress(OSError):  # the peer is gone, or reads nothing
                        farewell = self._frame(_CLOSE, struct.pack("!H", _NORMAL_CLOSURE))
                        self._transport.send_now(farewell)
                    self._ended = ClosedError()
            finally:
                self._sending.release()
        self._transport.close()

    def _send(self, opcode: int, data: bytes) -> None:
        with self._sending:
            if self._ended is not None:
                raise self._ended
            try:
                self._transport.send(self._frame(opcode, data))
            except BlockingIOError:
                raise self._end(None) from None
            except OSError:
                return
            except BaseException:  # Ctrl-C: the frame may be sent in part, so no other may follow
                self._end(None)
                raise

    def _next_frame(self, deadline: float) -> tuple[int, bool, bytes]:
        """Return the next frame: opcode, whether it ends its message, payload."""
        self._need(2, deadline)
        first, second = self._buffer[:2]
        size, start = second & 0x7F, 2
        if first & 0x70 or second & _MASKED:
            raise self._fail(_PROTOCOL_ERROR)
        if size >= 126:
            start = 4 if size == 126 else 10
            self._need(start, deadline)
            size = int.from_bytes(self._buffer[2:start], "big")
        if size + len(self._fragments) > self._max_size:
            raise self._fail(_TOO_BIG)
        self._need(start + size, deadline)
        payload = bytes(memoryview(self._buffer)[start : start + size])
        del self._buffer[: start + size]
        return first & 0x0F, bool(first & _FINAL), payload

    def _take(self, opcode: int, final: bool, payload: bytes) -> str | bytes | None:
        """Return the message that a frame completes, if it does; handle pings and the close."""
        if opcode == _PING:
            self._send(_PONG, payload)
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
            raise self._end(code)
        elif opcode in (_TEXT, _BINARY, _CONTINUATION):
            return self._add(opcode, final, payload)
        elif opcode != _PONG:
            raise self._fail(_PROTOCOL_ERROR)
        return None

    def _add(self, opcode: int, final: bool, payload: bytes) -> str | bytes | None:
        if (opcode == _CONTINUATION) is (self._fragmented is None):
            raise self._fail(_PROTOCOL_ERROR)
        if not final:
            self._fragmented = self._fragmented or opcode
            self._fragments += payload
            return None
        if self._fragmented is not None:
            opcode, payload = self._fragmented, bytes(self._fragments) + payload
            self._fragmented = None
            self._fragments.clear()
        if opcode == _BINARY:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            raise self._fail(_INVALID_DATA) from None

    def _fail(self, code: int) -> ClosedError:
        """Close the connection because the server broke the protocol; return the error to raise."""
        with suppress(ClosedError):
            self._send(_CLOSE, struct.pack("!H", code))
        return self._end(None)

    def _end(self, code: int | None) -> ClosedError:
        self._ended = self._ended or ClosedError(code)
        return self._ended

    def _need(self, size: int, deadline: float) -> None:
        """Read until the buffer holds `size` bytes."""
        while len(self._buffer) < size:
            try:
                more = self._fill(deadline, max(_CHUNK, min(_MAX_CHUNK, size - len(self._buffer))))
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
                raise self._end(None) from None
            if not more:
                raise self._end(None)

    def _fill(self, deadline: float, size: int) -> bool:
        """Read at most `size` bytes; return False at the end of the connection.

        Raises:
            TimeoutError: nothing arrived before `deadline`.
            OSError: the connection has ended.
        """
        data = self._transport.receive(size, deadline - time.monotonic())
        self.last_received = time.monotonic()
        self._buffer += data
        return bool(data)

    def _frame(self, opcode: int, data: bytes) -> bytes:
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", _FINAL | opcode, _MASKED | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", _FINAL | opcode, _MASKED | 126, size)
        else:
            head = struct.pack("!BBQ", _FINAL | opcode, _MASKED | 127, size)
        if not self._masked:
            return b"".join((head, _NO_MASK, data))
        mask = os.urandom(4)
        return b"".join((head, mask, _apply(mask, data)))


def _body_size(head: bytes) -> int:
    """Return the size of the body that follows an HTTP answer, at most _MAX_HEAD."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return min(int(value), _MAX_HEAD)
    return _MAX_HEAD


def _apply(mask: bytes, data: bytes) -> bytes:
    """Return the data, each byte combined with one of the mask in turn."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    combined = int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")
    return combined.to_bytes(size, "little")
