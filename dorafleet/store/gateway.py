"""A client of etcd's JSON gateway: HTTP/1.1 requests with JSON bodies, to the first that answers.

It has only what the gateway's answers need: bodies with a length or in chunks, no redirects,
no compression.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from dorafleet.store.errors import Code, StoreError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

CONNECT_S = 2.0
"""Seconds for a connection to one member, and its handshake."""

CALL_S = 5.0
"""Seconds for an answer."""

MAX_LINE = 16 << 20
"""Bytes of a line or a chunk of an answer; one message of a stream is one line."""

MAX_IDLE = 4
"""Connections kept for the next call."""

_COMPACTED = 11
"""gRPC's OUT_OF_RANGE, etcd's code for a revision that is compacted, or not there yet."""

_UNSETTLED = (2, 4, 14)
"""gRPC's UNKNOWN, DEADLINE_EXCEEDED and UNAVAILABLE: the members have no leader, or change it."""

_NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A watch sends nothing: the kernel notices within 11 s that its member is cut off."""


class GatewayError(Exception):
    """An answer of etcd that is an error; `code` is that of gRPC."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_compacted(self) -> bool:
        """Whether a revision is no longer kept."""
        return self.code == _COMPACTED

    @property
    def is_unsettled(self) -> bool:
        """Whether another member, or this one a little later, may answer; it may be done then."""
        return self.code in _UNSETTLED


class _Refusal(msgspec.Struct):
    code: int = 0
    message: str = ""


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    last: bool = False
    """Whether the member ends it after the answer."""


class Gateway:
    """Calls to the members of one etcd cluster."""

    def __init__(self, endpoints: Sequence[str], tls: ssl.SSLContext | None = None) -> None:
        """`endpoints` are addresses such as `http://10.0.0.1:2379`; `tls` is for those in https.

        Raises:
            StoreError: an address is invalid.
        """
        self._members = [_address(endpoint) for endpoint in endpoints]
        self._tls = tls
        self._idle: list[_Connection] = []
        self._streams: list[_Connection] = []
        self.name = ", ".join(endpoints)

    async def call(self, path: str, body: object, *, repeatable: bool = False) -> dict[str, Any]:
        """Send a request and return the answer; `repeatable` ones are tried at every member.

        Raises:
            GatewayError: etcd refuses it.
            StoreError: with code `unavailable`, or `unknown` if it may have been done.
        """
        reason = ""
        for _ in self._members:
            connection = await self._connect()
            try:
                async with asyncio.timeout(CALL_S):
                    status, pieces = await _request(connection, path, body)
                    content = b"".join([piece async for piece in pieces])
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                connection.writer.transport.abort()
                self._turn()
                reason = _reason(error)
                if repeatable:
                    continue
                message = f"etcd at {self.name} was lost before it answered: {reason}"
                raise StoreError(Code.UNKNOWN, message) from None
            except BaseException:
                connection.writer.transport.abort()
                raise
            self._keep(connection)
            try:
                return _answer(status, content)
            except GatewayError as error:
                if not (repeatable and error.is_unsettled):
                    raise
                self._turn()
                reason = str(error)
        # Members that have no majority know of no leader among them.
        raise StoreError(Code.UNAVAILABLE, f"no member of etcd at {self.name} can answer: {reason}")

    @asynccontextmanager
    async def stream(self, path: str, body: object) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Send a request; the block gets its answers, one after the other.

        Raises:
            GatewayError: etcd refuses it.
            StoreError: with code `unavailable`, even while the answers are read.
        """
        connection = await self._connect()
        self._streams.append(connection)
        try:
            async with asyncio.timeout(CALL_S):
                status, pieces = await _request(connection, path, body)
            yield self._lines(status, pieces)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            raise self._lost(error) from None
        finally:
            self._streams.remove(connection)
            connection.writer.transport.abort()

    async def close(self) -> None:
        """End all streams and the idle connections."""
        for connection in (*self._streams, *self._idle):
            connection.writer.transport.abort()
        self._idle.clear()
        # The loop closes an aborted socket in its next turn.
        await asyncio.sleep(0)

    async def _lines(
        self, status: int, pieces: AsyncIterator[bytes]
    ) -> AsyncIterator[dict[str, Any]]:
        rest = bytearray()
        try:
            async for piece in pieces:
                rest += piece
                *lines, last = rest.split(b"\n")
                for line in lines:
                    yield _answer(status, bytes(line))
                rest = bytearray(last)
                if len(rest) > MAX_LINE:
                    raise ValueError("an endless line")
        except (OSError, EOFError, ValueError) as error:
            raise self._lost(error) from None
        raise self._lost(EOFError("it ended the stream"))

    def _lost(self, error: Exception) -> StoreError:
        self._turn()
        return StoreError(
            Code.UNAVAILABLE, f"the connection to etcd at {self.name} was lost: {_reason(error)}"
        )

    async def _connect(self) -> _Connection:
        """Return an idle connection, or a new one to the first member that accepts it."""
        while self._idle:
            idle = self._idle.pop()
            if not idle.reader.at_eof() and not idle.writer.transport.is_closing():
                return idle
            idle.writer.transport.abort()
        reasons = []
        for _ in self._members:
            secure, host, port = self._members[0]
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection(
                        host, port, ssl=(self._tls or True) if secure else None, limit=MAX_LINE
                    )
            except (OSError, TimeoutError) as error:
                reasons.append(f"{host} port {port}: {_reason(error)}")
                self._turn()
                continue
            sock = writer.get_extra_info("socket")
            for option in _KEEPALIVE:
                sock.setsockopt(*option)
            return _Connection(reader, writer)
        raise StoreError(Code.UNAVAILABLE, f"etcd cannot be reached: {'; '.join(reasons)}")

    def _keep(self, connection: _Connection) -> None:
        if len(self._idle) < MAX_IDLE and not connection.last:
            self._idle.append(connection)
        else:
            connection.writer.transport.abort()

    def _turn(self) -> None:
        """Try another member first from now on."""
        self._members.append(self._members.pop(0))


def _address(endpoint: str) -> tuple[bool, str, int]:
    """Return whether to use TLS, the host and the port."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise StoreError(
            Code.REFUSED, f"`{endpoint}` is not an address of etcd", "such as http://10.0.0.1:2379"
        )
    return parts.scheme == "https", parts.hostname, port


async def _request(
    connection: _Connection, path: str, body: object
) -> tuple[int, AsyncIterator[bytes]]:
    """Send a request; return the status and the pieces of the body."""
    content = msgspec.json.encode(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    connection.writer.write(head.encode() + content)
    await connection.writer.drain()
    reader = connection.reader
    words = (await _line(reader)).split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        raise ValueError("it does not answer in HTTP")
    status = int(words[1])
    length, chunked = 0, False
    while line := await _line(reader):
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-length":
                length = int(value)
            case b"connection":
                connection.last = value.strip().lower() == b"close"
            case b"transfer-encoding":
                chunked = value.strip().lower() == b"chunked"
    return status, _chunks(reader) if chunked else _rest(reader, length)


async def _rest(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    if not 0 <= length <= MAX_LINE:
        raise ValueError(f"a body of {length} bytes")
    yield await reader.readexactly(length)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await _line(reader)).partition(b";")[0], 16):
        if not 0 < size <= MAX_LINE:
            raise ValueError(f"a chunk of {size} bytes")
        yield await reader.readexactly(size)
        await _line(reader)
    while await _line(reader):
        pass  # trailers


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\n")).rstrip(b"\r\n")
    except asyncio.LimitOverrunError as error:
        raise ValueError(str(error)) from None


def _answer(status: int, content: bytes) -> dict[str, Any]:
    """Return the answer in a body, without the wrapper of a stream. Raises GatewayError."""
    if status != 200:
        try:
            refusal = msgspec.json.decode(content, type=_Refusal)
        except _NOT_JSON:
            refusal = _Refusal()
        raise GatewayError(refusal.code, refusal.message or f"it answers HTTP status {status}")
    try:
        answer = msgspec.json.decode(content, type=dict[str, Any])
        if "error" in answer:
            refusal = msgspec.convert(answer["error"], _Refusal)
            raise GatewayError(refusal.code, refusal.message)
        result: dict[str, Any] = msgspec.convert(answer.get("result", answer), dict[str, Any])
    except _NOT_JSON as error:
        raise GatewayError(0, f"its answer is not JSON as expected: {error}") from None
    return result


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or "it ended it"
