"""A hostile client harms only itself."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.limits import IDLE_FRAMES, MAX_REQUEST, SHORT_PIECE, Limits
from dorad.control.peer import Peer
from dorad.control.server import ControlServer
from tests.harness.waiting import until

from .serving import DEADLINE_S, VERSION, Endless, raw, serving, status

pytestmark = pytest.mark.usefixtures("nothing_blocks", "nothing_logged")

HANDLERS = {"daemon.status": status}
STRANGER = 4321


@pytest.fixture
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if the daemon has logged a client's mistake."""
    yield
    # After `yield`, `caplog.records` has those of the teardown only.
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("frame", "id_", "words"),
    [
        ("{", None, "the request is not valid JSON"),
        ("", None, "the request is not valid JSON"),
        ("null", None, "expected `object`, got `null`"),
        ("[1, 2]", None, "expected `object`, got `array`"),
        ('{"id": "7", "method": "top"}', None, "`id` in the request: expected `int`, got `str`"),
        ('{"id": 7}', 7, "the request needs `method`"),
        ('{"id": 7, "method": 1}', 7, "`method` in the request: expected `str`, got `int`"),
        ('{"id": 7, "method": "top", "params": [1]}', 7, "expected `object`, got `array`"),
        ("[" * 100_000, None, "the request"),
        ('{"id": 7, "method": "watch", "params":' + '{"a":' * 50_000, None, "the request"),
        (b"\x00\x01", None, "only the server sends binary frames"),
    ],
)
async def test_an_invalid_frame(tmp_path: Path, frame: Any, id_: int | None, words: str) -> None:
    async with serving(tmp_path, {**HANDLERS, "top": status}) as path, raw(path) as client:
        await client.connection.send(frame)
        reply = await client.receive()
        assert reply["id"] == id_
        assert reply["error"]["code"] == "bad-request"
        assert words in reply["error"]["message"]
        assert "result" in await client.call(8, "daemon.status"), "the connection still works"


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("node.inf", {}, "unknown-method", "there is no method `node.inf`"),
        ("node.info", {}, "bad-request", "needs `node`"),
        ("node.info", {"node": 3}, "bad-request", "`node` in `params` of `node.info`: expected"),
        ("node.info", {"node": "a", "dataflwo": "x"}, "bad-request", "no parameter `dataflwo`"),
        (
            "dataflow.wait",
            {"dataflow": "x", "until": "spawn"},
            "bad-request",
            "expected one of `spawned`, `ready`, `running`, `ended`",
        ),
    ],
)
async def test_an_invalid_request(
    tmp_path: Path, method: str, params: Any, code: str, words: str
) -> None:
    handlers = {**HANDLERS, "node.info": status, "dataflow.wait": status}
    async with serving(tmp_path, handlers) as path, raw(path) as client:
        error = (await client.call(1, method, params))["error"]
    assert error["code"] == code
    assert words in error["message"]


async def test_a_misspelt_word_is_answered_with_the_right_one(tmp_path: Path) -> None:
    async with serving(tmp_path, {"node.info": status}) as path, raw(path) as client:
        error = (await client.call(1, "node.inf"))["error"]
        assert error["hint"] == "did you mean `node.info`?"
        error = (await client.call(2, "node.info", {"node": "a", "dataflwo": "x"}))["error"]
        assert error["hint"] == "did you mean `dataflow`?"


async def test_a_huge_frame_ends_its_connection_only(tmp_path: Path) -> None:
    async with serving(tmp_path, HANDLERS) as path, raw(path) as other, raw(path) as client:
        # Only the header of a large frame.
        size = (MAX_REQUEST + 1).to_bytes(8, "big")
        client.connection.transport.write(b"\x81\xff" + size + bytes(4))
        with pytest.raises(ConnectionClosed) as caught:
            await client.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert "result" in await other.call(1, "daemon.status")


async def test_text_that_is_not_utf_8_ends_its_connection_only(tmp_path: Path) -> None:
    async with serving(tmp_path, HANDLERS) as path, raw(path) as other:
        async with raw(path) as client:
            await client.connection.send(b'{"id": \xff}', text=True)
            with pytest.raises(ConnectionClosed):
                await client.receive()
        assert "result" in await other.call(1, "daemon.status")


@pytest.mark.parametrize(
    ("hello", "code", "words"),
    [
        ('{"hello": "x", "protocol": 99}', "version", "the dorad is older than the client"),
        ('{"hello": "x", "protocol": 0}', "version", "the client is older than the dorad"),
        ('{"id": 1, "method": "top"}', "bad-request", "`hello` needs `hello`"),
        ("{", "bad-request", "not valid JSON"),
        (b"x", "bad-request", "must be text"),
    ],
)
async def test_a_handshake_that_is_wrong(tmp_path: Path, hello: Any, code: str, words: str) -> None:
    async with serving(tmp_path, HANDLERS) as path, raw(path, greet=False) as client:
        await client.connection.send(hello)
        reply = await client.receive()
        assert (reply["id"], reply["error"]["code"]) == (None, code)
        assert words in reply["error"]["message"]
        with pytest.raises(ConnectionClosed):
            await client.receive()


async def test_a_client_without_a_hello_is_disconnected(tmp_path: Path) -> None:
    limits = Limits(hello=0.1)
    async with serving(tmp_path, HANDLERS, limits=limits) as path, raw(path, greet=False) as client:
        assert (await client.receive())["error"]["code"] == "deadline"
        with pytest.raises(ConnectionClosed):
            await client.receive()


async def test_a_hello_that_arrives_while_the_server_stands_still_is_read(tmp_path: Path) -> None:
    limits = Limits(hello=0.5)
    async with serving(tmp_path, HANDLERS, limits=limits) as path, raw(path, greet=False) as client:
        await client.connection.send('{"hello": "patient", "protocol": 1}')
        time.sleep(2 * limits.hello)  # noqa: ASYNC251 - nothing else may run meanwhile
        assert "welcome" in await client.receive()


async def test_a_silent_socket_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, HANDLERS, limits=Limits(hello=0.1)) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        async with asyncio.timeout(DEADLINE_S):
            await reader.read()
        writer.close()


async def test_half_open_handshakes_do_not_block_other_clients(tmp_path: Path) -> None:
    limits = Limits(connections=2)
    async with serving(tmp_path, HANDLERS, limits=limits) as path, AsyncExitStack() as stack:
        for _ in range(50):
            _, writer = await asyncio.open_unix_connection(str(path))
            stack.callback(writer.close)
            writer.write(b"GET / HTTP/1.1\r\nHost: ")
        async with raw(path) as client:
            assert "result" in await client.call(1, "daemon.status")


async def test_sockets_beyond_the_limit_are_closed_at_once(tmp_path: Path) -> None:
    limits = Limits(opening=5, hello=60)
    async with serving(tmp_path, HANDLERS, limits=limits) as path, AsyncExitStack() as stack:
        for _ in range(5):
            _, writer = await asyncio.open_unix_connection(str(path))
            stack.callback(writer.close)
        reader, writer = await asyncio.open_unix_connection(str(path))
        stack.callback(writer.close)
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b""


async def test_500_connections_at_once(tmp_path: Path) -> None:
    """Some connect, the others get the reason; connected clients are not disturbed."""
    limits = Limits(connections=20, hello=DEADLINE_S)
    async with serving(tmp_path, HANDLERS, limits=limits) as path, raw(path) as first:
        results = await asyncio.gather(*(_try(path) for _ in range(500)))
        assert "result" in await first.call(1, "daemon.status")
        # Those that got in have left, so there is room again.
        async with raw(path) as client:
            assert "result" in await client.call(1, "daemon.status")
    assert set(results) == {"served", "busy"}


async def _try(path: Path) -> str:
    sock = socket.socket(socket.AF_UNIX)
    # Blocks while the backlog is full, so not in the event loop.
    await asyncio.to_thread(sock.connect, str(path))
    try:
        async with unix_connect(sock=sock, compression=None, open_timeout=None) as connection:
            await connection.send('{"hello": "crowd"}')
            await connection.recv()
            await connection.send('{"id": 1, "method": "daemon.status"}')
            async with asyncio.timeout(DEADLINE_S):
                return "served" if "result" in json.loads(await connection.recv()) else "?"
    except InvalidStatus as error:
        assert error.response.status_code == 503
        return str(json.loads(error.response.body)["code"])
    finally:
        sock.close()


async def test_another_user_is_refused_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stranger(sock: socket.socket) -> Peer:
        return Peer(pid=1, uid=STRANGER, gid=STRANGER)

    async with serving(tmp_path, HANDLERS, credentials=stranger) as path:
        with pytest.raises(InvalidHandshake) as caught:
            async with unix_connect(str(path)):
                pass
        assert isinstance(caught.value, InvalidStatus)
        assert caught.value.response.status_code == 403
        with pytest.raises(ControlError, match=f"user {STRANGER} may not command") as refused:
            await AsyncClient(path).open()
        assert refused.value.code == "refused"
    assert f"refused process 1 of user {STRANGER}" in caplog.text


async def test_calls_and_streams_end_when_their_client_vanishes(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path:
        async with raw(path) as client:
            await client.ask(1, "watch")
            await client.ask(2, "dataflow.wait", {"dataflow": "x"})
            await client.receive()
            await endless.until_running(2)
            client.connection.transport.abort()
            await endless.until_running(0)


async def test_a_client_that_vanishes_while_it_does_not_read(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path:
        async with raw(path) as client:
            await _stop_reading(client.connection)
            await client.ask(1, "watch", {"dataflow": "flood"})
            await _until_still(endless)
            client.connection.transport.abort()
            await endless.until_running(0)


async def test_a_client_that_shuts_down_its_sending_end_is_disconnected(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, raw(path) as client:
        await _stop_reading(client.connection)
        await client.ask(1, "watch", {"dataflow": "flood"})
        await _until_still(endless)
        client.connection.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await endless.until_running(0)
        client.connection.transport.abort()


async def test_a_reader_that_is_too_slow_loses_its_stream_and_delays_no_other(
    tmp_path: Path,
) -> None:
    endless = Endless()
    limits = Limits(slow=0.3)
    async with serving(tmp_path, endless.handlers, limits=limits) as path:
        async with raw(path) as slow, raw(path) as quick:
            await _stop_reading(slow.connection)
            await slow.ask(1, "watch", {"dataflow": "flood"})
            sent = await _until_still(endless)
            assert sent < 2000, "what waits for a slow reader is bounded"
            assert "result" in await quick.call(1, "daemon.status")
            await endless.until_running(0)
            slow.connection.transport.resume_reading()
            while "event" in (reply := await slow.receive()):
                pass
            assert reply["error"]["code"] == "too-slow"
            assert "result" in await slow.call(2, "daemon.status"), "the connection still works"


async def test_a_reader_that_stops_reading_is_disconnected(tmp_path: Path) -> None:
    endless = Endless()
    server = ControlServer(endless.handlers, version=VERSION, limits=Limits(slow=0.2))
    await server.serve(tmp_path / "control.sock")
    async with raw(tmp_path / "control.sock") as slow:
        await _stop_reading(slow.connection)
        await slow.ask(1, "watch", {"dataflow": "flood"})
        await endless.until_running(1)
        await endless.until_running(0)
        await until(lambda: not server.connections)
        slow.connection.transport.abort()
    await server.close()


async def test_a_flood_of_requests_does_not_delay_others(tmp_path: Path) -> None:
    async with serving(tmp_path, HANDLERS) as path, raw(path) as noisy, raw(path) as other:
        flood = asyncio.create_task(_flood(noisy))
        try:
            for id_ in range(20):
                assert "result" in await other.call(id_, "daemon.status")
        finally:
            flood.cancel()
            await asyncio.wait([flood])
            noisy.connection.transport.abort()


async def _flood(client: Any) -> None:
    for id_ in range(1, 100_000):
        await client.ask(id_, "no.such")


async def _stop_reading(connection: Any) -> None:
    connection.transport.pause_reading()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 4096)


async def _until_still(endless: Endless) -> int:
    """Return the number of events that the flood has sent when it has to wait."""
    async with asyncio.timeout(DEADLINE_S):
        await endless.until_running(1)
        before = -1
        while endless.sent != before:
            before = endless.sent
            for _ in range(200):
                await asyncio.sleep(0)
    return before


@pytest.mark.parametrize("more", [b"GET / HTTP/1.1\r\n\r\n", b"\x81\x02{}", b"\xff" * 9])
async def test_what_follows_a_request_before_its_answer_and_is_no_frame_is_no_internal_error(
    tmp_path: Path, more: bytes
) -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    def stranger(_sock: socket.socket) -> Peer:
        return Peer(1, STRANGER, STRANGER)

    async with (
        serving(tmp_path, HANDLERS, credentials=stranger) as path,
        asyncio.timeout(DEADLINE_S),
    ):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request + more)
        assert b" 101 " not in await reader.read()
        writer.close()


NEVER_READ = b"\x89\xfd" + bytes(4 + 125)
"""A ping with as much data as is allowed, and a mask of zeros."""
ENDLESS_FRAMES = {
    "pings": (b"", NEVER_READ),
    "empty pings": (b"", b"\x89\x80" + bytes(4)),
    "pongs": (b"", b"\x8a\x80" + bytes(4)),
    "pieces of a message": (b"\x01\x80" + bytes(4), b"\x00\x80" + bytes(4)),
}
"""The first frame, and one that follows it without end."""


@pytest.mark.parametrize("kind", ENDLESS_FRAMES)
async def test_frames_without_a_message_end_their_connection_before_they_take_memory(
    tmp_path: Path, kind: str
) -> None:
    """Each ping has an answer, which waits in the memory of the server until the client reads."""
    first, more = ENDLESS_FRAMES[kind]
    async with serving(tmp_path, HANDLERS) as path, raw(path) as hostile, raw(path) as other:
        transport = hostile.connection.transport
        await _stop_reading(hostile.connection)
        transport.write(first)
        for id_ in range(100):
            if transport.is_closing():
                break
            transport.write(more * (4 * IDLE_FRAMES))
            assert "result" in await other.call(id_, "daemon.status")
        assert transport.is_closing(), "frames without end are taken"
        transport.abort()


async def test_a_client_may_ping_all_the_time_and_send_a_message_in_many_pieces(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, HANDLERS) as path, raw(path) as client:
        for _ in range(IDLE_FRAMES // 2):
            await (await client.connection.ping())
        params = {"text": "x" * (4 * IDLE_FRAMES * SHORT_PIECE)}
        text = json.dumps({"id": 1, "method": "daemon.status", "params": params})
        pieces = [text[at : at + SHORT_PIECE] for at in range(0, len(text), SHORT_PIECE)]
        await client.connection.send(pieces)
        assert (await client.receive())["error"]["code"] == "bad-request"
        assert "result" in await client.call(2, "daemon.status")


def test_our_own_process_does_not_count_as_another_user() -> None:
    assert os.getuid() != STRANGER
