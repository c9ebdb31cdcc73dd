"""The sending end of a transfer over a WebSocket, of files as they are: the frames of a release.

A robot sends its incidents so, and a coordinator sends them to a client. The receiver says how much
of each file it has, so a transfer that was cut continues there.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO

from websockets.exceptions import ConnectionClosed

from dorad.release import frames
from dorad.release.errors import ReleaseError
from dorad.release.frames import Begin, Hello, Offer, Received, Refusal
from dorad.release.manifest import id_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from websockets.asyncio.connection import Connection

    Open = Callable[[], AbstractContextManager[BinaryIO]]
    """Opens a file. Raises OSError."""

CHUNK = 16 << 10
"""Bytes of one message: at a low rate the receiver still hears something within seconds."""
ANSWER_S = 90.0
"""Seconds in which the receiver answers the manifest, and the end."""
MAX_AHEAD = 128 << 10
"""Bytes on the way, about: what a cut loses. The receiver acknowledges each `ARRIVED_STEP`."""
STALL_S = 60.0
"""Seconds in which something has to arrive."""


class CutError(Exception):
    """The connection was lost. What has arrived is kept there."""


async def send_over(
    connection: Connection,
    manifest: bytes,
    files: Mapping[str, tuple[int, Open]],
    *,
    rate: float,
    spend: Callable[[int], None] = lambda _: None,
) -> None:
    """Send what the other end lacks of `files`, given with their sizes by SHA-256.

    At most `rate` bytes a second are sent. `spend` is called with the bytes of each message before
    it is sent; what it raises ends the transfer.

    Raises:
        ReleaseError: the other end refuses it, or a file is not what the manifest says.
        CutError: the connection was lost.
        OSError: a file cannot be read.
    """
    sender = _Sender(connection, rate, spend)
    try:
        await sender.run(manifest, files)
    except ConnectionClosed as error:
        reason = "" if error.rcvd is None else error.rcvd.reason
        raise CutError(reason or "the connection was lost") from None


class _Sender:
    def __init__(self, connection: Connection, rate: float, spend: Callable[[int], None]) -> None:
        self._connection = connection
        self._rate = rate
        self._spend = spend
        self._buffer = bytearray()
        self._sent = 0
        """Bytes of pieces that were sent, and of those that have arrived."""
        self._arrived = 0
        self._moved = asyncio.Event()

    async def run(self, manifest: bytes, files: Mapping[str, tuple[int, Open]]) -> None:
        await self._send(frames.frame(frames.HELLO, Hello(frames.PROTOCOL)))
        await self._send(frames.frame(frames.MANIFEST, frames.compress(manifest)))
        await self._send(frames.frame(frames.SIGNATURE))
        async with _deadline():
            kind, payload = await self._next()
        if kind != frames.OFFER:
            raise _out_of_place(kind)
        answer = asyncio.create_task(self._answer())
        try:
            for each in frames.decode(payload, Offer).lacking:
                if each.sha256 not in files:
                    raise ReleaseError("protocol", f"the other end asks for {each.sha256}")
                size, open_ = files[each.sha256]
                offset = min(each.arrived, size)
                try:
                    await self._send_file(each.sha256, size, offset, open_, answer)
                except Exception:
                    # What is on the way is paid for: the end of the connection must not lose it.
                    await self._wait_for(0, answer)
                    raise
            if not answer.done():
                await self._send(frames.frame(frames.END))
            async with _deadline():
                received = await answer
        except ConnectionClosed:
            # A refusal that came before the end says why.
            if answer.done() and isinstance(answer.exception(), ReleaseError):
                await answer
            raise
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
        if received.release != id_of(manifest):
            raise ReleaseError("protocol", "the other end has received something else")

    async def _send_file(
        self,
        sha256: str,
        size: int,
        offset: int,
        open_: Open,
        answer: asyncio.Task[Received],
    ) -> None:
        """Send a file from an offset on. It ends early if the other end has answered."""
        await self._send(frames.frame(frames.BEGIN, Begin(sha256, executable=False, offset=offset)))
        with open_() as file:
            file.seek(offset)
            while offset < size and not answer.done():
                wanted = min(frames.PIECE_SIZE, size - offset)
                piece = await asyncio.to_thread(file.read, wanted)
                if not piece:
                    raise ReleaseError("damaged", f"the file {sha256} has become shorter")
                content = await asyncio.to_thread(frames.compress, piece)
                await self._wait_for(MAX_AHEAD, answer)
                # Before it is sent: its acknowledgement may come during the pause after it.
                self._sent += len(content)
                await self._send(frames.frame(frames.PIECE, content))
                offset += len(piece)

    async def _wait_for(self, ahead: int, answer: asyncio.Task[Received]) -> None:
        """Wait until no more than `ahead` bytes are on the way. Raises CutError."""
        while self._sent - self._arrived > max(ahead, frames.ARRIVED_STEP) and not answer.done():
            self._moved.clear()
            try:
                async with asyncio.timeout(STALL_S):
                    await self._moved.wait()
            except TimeoutError:
                raise CutError(f"nothing has arrived for {STALL_S:g} s") from None

    async def _send(self, content: bytes) -> None:
        for start in range(0, len(content), CHUNK):
            chunk = content[start : start + CHUNK]
            self._spend(len(chunk))
            await self._connection.send(chunk)
            await asyncio.sleep(len(chunk) / self._rate)

    async def _answer(self) -> Received:
        """Note what has arrived, until the last answer; return that."""
        try:
            while True:
                kind, payload = await self._next()
                if kind == frames.RECEIVED:
                    return frames.decode(payload, Received)
                if kind != frames.ARRIVED or len(payload) != frames.COUNT.size:
                    raise _out_of_place(kind)
                self._arrived = min(frames.COUNT.unpack(payload)[0], self._sent)
                self._moved.set()
        finally:
            self._moved.set()

    async def _next(self) -> tuple[int, bytes]:
        kind, size = frames.check_header(await self._read(frames.HEADER.size))
        payload = await self._read(size)
        if kind == frames.REFUSAL:
            raise frames.decode(payload, Refusal).error()
        return kind, payload

    async def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            message = await self._connection.recv()
            if isinstance(message, str):
                raise ReleaseError("protocol", "the other end sends text")
            self._buffer += message
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content


@asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ANSWER_S):
            yield
    except TimeoutError:
        raise CutError(f"no answer within {ANSWER_S:g} s") from None


def _out_of_place(kind: int) -> ReleaseError:
    return ReleaseError("protocol", f"the other end answers with a message of kind {kind}")
