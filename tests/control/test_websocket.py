"""The client's own WebSocket, against the `websockets` library and against hostile servers."""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, unix_serve

from dorad.control.transport import SocketTransport
from dorad.control.websocket import ClosedError, NotOpenedError, WebSocket
from tests.harness.waiting import DEADLINE_S

MAX_SIZE = 1 << 20
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


@contextmanager
def library(path: Path, handle: Callable[[ServerConnection], None]) -> Iterator[WebSocket]:
    """Connect to a server made with the `websockets` library."""
    with unix_serve(handle, str(path), compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            connection = WebSocket(SocketTransport(sock), max_size=MAX_SIZE)
            connection.request("localhost", {})
            connection.open(DEADLINE_S)
            yield connection
            connection.close()
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def hostile(sent: bytes) -> Iterator[WebSocket]:
    """A connection whose server has sent these bytes and closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=_send_and_end, args=(theirs, sent))
        sender.start()
        connection = WebSocket(SocketTransport(ours), max_size=MAX_SIZE)
        yield connection
        connection.close()
        sender.join()


def _send_and_end(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, MAX_SIZE])
def test_messages_of_every_size_pass_both_ways(tmp_path: Path, size: int) -> None:
    with library(tmp_path / "s", _echo) as connection:
        connection.send(b"x" * size, text=True)
        assert connection.receive(DEADLINE_S) == "x" * size
        data = random.Random(size).randbytes(size)
        connection.send(data, text=False)
        assert connection.receive(DEADLINE_S) == data


def test_a_message_in_parts_is_put_together(tmp_path: Path) -> None:
    def handle(server: ServerConnection) -> None:
        server.send(iter(["Grü", "ße", ""]))
        server.ping()
        server.send(iter([b"a", b"bc"]))

    with library(tmp_path / "s", handle) as connection:
        assert connection.receive(DEADLINE_S) == "Grüße"
        assert connection.receive(DEADLINE_S) == b"abc"


def test_pings_are_answered_both_ways(tmp_path: Path) -> None:
    answered = threading.Event()

    def handle(server: ServerConnection) -> None:
        if server.ping("?").wait(DEADLINE_S):
            answered.set()
        server.send("after")
        server.recv()

    with library(tmp_path / "s", handle) as connection:
        assert connection.receive(DEADLINE_S) == "after"
        assert answered.is_set()
        before = connection.last_received
        connection.ping()
        deadline = time.monotonic() + DEADLINE_S
        while connection.last_received == before:
            with pytest.raises(TimeoutError):
                connection.receive(0.01)
            assert time.monotonic() < deadline


def test_the_reason_of_a_close_reaches_a_client_that_has_only_sent(tmp_path: Path) -> None:
    ended = threading.Event()

    def handle(server: ServerConnection) -> None:
        server.close(1001)
        ended.set()

    with library(tmp_path / "s", handle) as connection:
        # The library waits for our close frame, which we send when we read its own.
        connection.send(b"too late", text=True)
        with pytest.raises(ClosedError) as caught:
            connection.receive(DEADLINE_S)
        assert caught.value.code == 1001
        with pytest.raises(ClosedError):
            connection.send(b"again", text=True)
        connection.close()
        assert ended.wait(DEADLINE_S)


def test_receiving_ends_when_another_thread_closes(tmp_path: Path) -> None:
    errors = []

    def receive() -> None:
        try:
            connection.receive(DEADLINE_S)
        except ClosedError as error:
            errors.append(error)

    with library(tmp_path / "s", _echo) as connection:
        thread = threading.Thread(target=receive)
        thread.start()
        connection.close()
        thread.join(DEADLINE_S / 2)
        assert len(errors) == 1


def test_closing_does_not_wait_for_a_server_that_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 4096, socket.MSG_DONTWAIT)
        begun = time.monotonic()
        WebSocket(SocketTransport(ours), max_size=MAX_SIZE).close()
        assert time.monotonic() - begun < DEADLINE_S / 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "did not answer in HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "did not answer in HTTP"),
        (b"x" * 100_000, "did not answer in HTTP"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nbody", "it answered HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 " + b"\xff" * 500 + b"\r\n\r\n" + b"x" * 100_000, "it answered"),
        (b"", "did not answer in HTTP"),
    ],
)
def test_a_server_without_websocket_is_refused(answer: bytes, words: str) -> None:
    with hostile(answer) as connection:
        with pytest.raises(NotOpenedError, match=words):
            connection.request("localhost", {})
            connection.open(DEADLINE_S)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nbody", "it answered HTTP/1.1 404"),
    ],
)
def test_a_server_that_keeps_the_connection_open_is_refused_at_once(
    answer: bytes, words: str
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        connection = WebSocket(SocketTransport(ours), max_size=MAX_SIZE)
        begun = time.monotonic()
        with pytest.raises(NotOpenedError, match=words):
            connection.open(DEADLINE_S)
        assert time.monotonic() - begun < DEADLINE_S / 2


def test_a_refusal_whose_body_never_comes_is_reported_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 404 Not Found\r\n\r\nbo")
        connection = WebSocket(SocketTransport(ours), max_size=MAX_SIZE)
        with pytest.raises(NotOpenedError, match="it answered") as caught:
            connection.open(0.2)
        assert caught.value.body == b"bo"


@pytest.mark.parametrize(
    "frame",
    [
        b"\xf1\x00",  # reserved bits
        b"\x81\x81\0\0\0\0x",  # masked
        b"\x83\x00",  # an opcode that does not exist
        b"\x80\x00",  # the rest of nothing
        b"\x01\x01a\x81\x01b",  # a message within a message
        b"\x82\x7f" + b"\xff" * 8,  # 2^64 bytes
        b"\x82\x7f" + (MAX_SIZE + 1).to_bytes(8, "big"),
        b"\x02\x7f" + MAX_SIZE.to_bytes(8, "big") + b"x" * MAX_SIZE + b"\x80\x01x",
        b"\x81\x02\xff\xfe",  # no UTF-8
        b"\x81\x05abc",  # cut off
        b"\x88\x01x",  # half a code
        b"",
    ],
    ids=lambda frame: frame[:12].hex(),
)
def test_a_server_that_breaks_the_rules_ends_the_connection(frame: bytes) -> None:
    with hostile(ACCEPTED + frame) as connection:
        connection.request("localhost", {})
        connection.open(DEADLINE_S)
        with pytest.raises(ClosedError):
            connection.receive(DEADLINE_S)


def test_random_bytes_give_messages_or_the_end_and_nothing_else() -> None:
    chance = random.Random(7)
    for _ in range(300):
        noise = chance.randbytes(chance.randrange(200))
        start = bytes([0x80 | chance.choice((1, 2, 8, 9, 10)), chance.randrange(126)])
        with hostile(ACCEPTED + start + noise) as connection:
            connection.request("localhost", {})
            connection.open(DEADLINE_S)
            with pytest.raises(ClosedError):
                while True:
                    assert isinstance(connection.receive(DEADLINE_S), (str, bytes))


def test_a_slow_message_does_not_time_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = WebSocket(SocketTransport(ours), max_size=MAX_SIZE)
        for byte in b"\x81\x05hello":
            with pytest.raises(TimeoutError):
                connection.receive(0)
            theirs.send(bytes([byte]))
        assert connection.receive(DEADLINE_S) == "hello"
