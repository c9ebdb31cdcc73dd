"""A campaign of malformed packets: a node harms only its own connection."""

import asyncio
import json
import logging
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from dorad.daemon.broker import sessions
from dorad.daemon.broker.listener import MAX_UNIDENTIFIED
from dorad.dataflow.model import LINK
from dorad.node.connection import DaemonConnection
from dorad.node.payload import pack
from dorad.node.protocol import MAX_PACKET
from tests.daemon.clients import Client, pair, stage
from tests.daemon.flows import dataflow, node
from tests.harness.process import open_descriptors
from tests.harness.waiting import until

SEED = 20240229
ROUNDS = 1500
LATE_S = 5.0
"""Upper bound of one turn of the event loop; a hanging daemon exceeds every bound."""

FIELDS: dict[str, tuple[str, ...]] = {
    "hello": ("node", "dynamic", "pid", "version"),
    "ready": (),
    "grow": ("size", "ask"),
    "retire": ("segment",),
    "note": ("text",),
    "ended": ("operator",),
    "done": (),
    "ext_store": ("namespace", "key", "ask"),
    "ext_load": ("namespace", "key", "remove", "ask"),
    "ext_drop": ("namespace", "key", "ask"),
    "ext_drain": ("namespace", "ask"),
    "busy": ("lease", "reason", "ask"),
    "idle": ("lease",),
    "link": ("kind", "peers", "name"),
    "large": ("large",),
    "no such kind": ("text",),
    "\ud800": ("text",),
}
"""Every kind of packet that a node may send, some that it may not, and their fields."""

DEEP = 5000

TEXTS = [
    '""', '"c"', '"a"', '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\u001b[2J"', '"../../etc"',
    '"' + "x" * 50_000 + '"', '"' + "\\ud83d" * 9000 + '"', '"\\ud83d\\ude00"',
    "null", "true", "false", "0", "-1", "-0.0", "1e999", "-1e999", "NaN", "Infinity", "1.5",
    str(1 << 63), str(1 << 64), str(-(1 << 63) - 1), "9" * 4000, "9" * 60_000,
    "[]", "{}", '[["c"]]', '{"c": 1}', "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP,
    "[" * 900 + '"\\ud800"' + "]" * 900,
]  # fmt: skip
"""Hostile values as JSON text; some have no Python value."""


def descriptors(chance: random.Random) -> Iterator[int]:
    """Open descriptors of random kinds; the caller closes them."""
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 4, 5, 40])):
        match chance.randrange(5):
            case 0:
                yield os.memfd_create("large")
            case 1:
                yield os.open("/dev/zero", os.O_RDONLY)
            case 2:
                read, write = os.pipe()
                os.close(write)
                yield read
            case 3:
                yield os.open("/", os.O_RDONLY)
            case 4:
                yield pack(b"value")


def packet(chance: random.Random) -> bytes:
    """Return a random packet."""
    kind = chance.choice(list(FIELDS))
    names = [*FIELDS[kind], *chance.sample(["t", "ask", "large", "\ud800", ""], k=1)]
    pairs = [f'"t":{json.dumps(kind)}'] if chance.random() < 0.95 else []
    pairs += [
        f"{json.dumps(name)}:{chance.choice(TEXTS)}" for name in names if chance.random() < 0.9
    ]
    data = ("{" + ",".join(pairs) + "}").encode()
    match chance.randrange(12):
        case 0:
            return data[: chance.randrange(len(data))]
        case 1:
            return data.replace(b"x", b"\xff", 3)
        case 2:
            return data + b" " * (MAX_PACKET + 1 - len(data))
        case 3:
            return bytes(chance.randbytes(chance.randrange(1, 200)))
        case _:
            return data


class LoopMonitor:
    """A task that runs continually and records its longest delay."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.monotonic() - before)


def send(client: Client, data: bytes, fds: list[int]) -> None:
    """Send a packet to a daemon that may have closed the connection already."""
    try:
        client.send(data[:150_000], fds)
    except (BrokenPipeError, ConnectionResetError, BlockingIOError):
        # The connection was closed for too many packets, or for one of them.
        return


@pytest.mark.long
async def test_no_packet_makes_the_daemon_raise_or_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chance = random.Random(SEED)
    caplog.set_level(logging.ERROR)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    monitor = LoopMonitor()
    task = asyncio.create_task(monitor.run())
    async with stage() as on, pair(on):
        for number in range(ROUNDS):
            with on.client() as client:
                if number % 4:
                    await client.attach("c")
                for _ in range(chance.randrange(1, 6)):
                    fds = list(descriptors(chance))
                    data = packet(chance)
                    send(client, data, fds)
                    for fd in fds:
                        os.close(fd)
                await asyncio.sleep(0)
            await until(lambda: "c" not in on.broker.snapshot().attached)
            if not number % 100:
                # What the daemon stores, and what it answers: JSON that is UTF-8.
                msgspec.json.encode(on.broker.snapshot()).decode()
                await on.makes_progress()
        json.dumps(on.notes, ensure_ascii=False).encode()
        on.broker.notifications.stop("c", "MANUAL")
        task.cancel()
    assert faults == []
    assert [record.getMessage() for record in caplog.records] == []
    assert monitor.worst < LATE_S


async def test_a_descriptor_that_takes_a_minute_to_close_delays_no_node() -> None:
    """A TCP socket lingers for unsent data; a FUSE file system can do the same."""
    monitor = LoopMonitor()
    async with stage() as on, pair(on):
        task = asyncio.create_task(monitor.run())
        with socket.create_server(("127.0.0.1", 0)) as server:
            for kind in ("note", "ext_store", "no such kind"):
                slow = socket.create_connection(server.getsockname())
                there, _ = server.accept()
                slow.setblocking(False)
                fill(slow)
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
                async with on.attached("c") as client:
                    fields = {"text": "x", "namespace": "n", "key": "k"}
                    data = json.dumps({"t": kind, **fields}).encode()
                    client.send(data, [slow.fileno()])
                    client.send(data, [slow.fileno()])
                    os.close(slow.detach())
                    await asyncio.sleep(0.1)  # the daemon receives both and closes them
                await on.makes_progress()
                # The other end resets the connection, so that the threads end.
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                there.close()
        task.cancel()
    assert monitor.worst < LATE_S


def fill(sock: socket.socket) -> None:
    """Send until the socket is full; the other end does not read."""
    try:
        while sock.send(bytes(1 << 20)):
            pass
    except BlockingIOError:
        return


async def test_half_a_character_in_a_note_reaches_nothing_that_is_stored() -> None:
    async with stage() as on:
        async with on.attached("c") as client:
            client.send(b'{"t":"note","text":"a\\ud800b"}')
            await until(lambda: on.notes)
        assert on.notes == [("c", "a?b")]


async def test_an_invalid_packet_is_reported_to_the_node_and_the_user() -> None:
    async with stage() as on:
        async with on.attached("c") as client:
            client.send(b'{"t":"selfdestruct"}')
            assert "selfdestruct" in (await client.packet_of("refused"))["error"]
            assert await client.ended() == []
        assert on.notes == [("c", "its connection was ended: the unknown packet 'selfdestruct'")]


@pytest.mark.parametrize("kind", ["grow", "busy", "ext_load"])
async def test_a_request_is_numbered_and_not_named(kind: str) -> None:
    """Answers to a node that reads none of them wait in the daemon, with what they repeat."""
    fields = {"size": 1, "lease": 1, "reason": "x", "namespace": "n", "key": "k"}
    async with stage() as on:
        async with on.attached("c") as client:
            client.send_packet(kind, **fields, ask="x" * 50_000)
            error = (await client.packet_of("refused"))["error"]
            assert error == f"packet {kind!r} has no number 'ask'"


async def test_only_a_node_that_sends_notes_without_end_is_refused() -> None:
    async with stage() as on, pair(on):
        async with on.attached("c") as client:
            for number in range(30_000):
                send(client, b'{"t":"note","text":"%d"}' % number, [])
                if number % 50 == 0:
                    await asyncio.sleep(0)
            error = (await client.packet_of("refused"))["error"]
        assert error == f"a node may send {sessions.MAX_NOTES} notes, and no more"
        assert len(on.notes) == sessions.MAX_NOTES + 1
        await on.makes_progress()


async def test_connections_without_a_hello_are_bounded_and_keep_no_node_out() -> None:
    before = open_descriptors()
    silent: list[Client] = []
    async with stage(hello_deadline=60) as on, pair(on):
        for _ in range(20 * MAX_UNIDENTIFIED):
            silent.append(on.client())
            await asyncio.sleep(0)
        await until(lambda: sum(not is_closed(each) for each in silent) <= MAX_UNIDENTIFIED)
        with on.client() as client:
            await client.attach("c")
        await on.makes_progress()
        held = open_descriptors() - before - len(silent)
        assert held < 2 * MAX_UNIDENTIFIED
        for each in silent:
            each.close()


def is_closed(client: Client) -> bool:
    """Whether the broker has closed a connection that got no packet."""
    try:
        return client.peek() == b""
    except BlockingIOError:
        return False


async def test_a_node_that_sends_without_end_is_throttled() -> None:
    async with stage() as on, pair(on):
        async with on.attached("c") as client:
            begun = time.monotonic()
            spent = time.process_time()
            while time.monotonic() < begun + 2:
                send(client, b'{"t":"ready"}', [])
                await asyncio.sleep(0)
            events = on.events.count(("connected", "c"))
            await on.makes_progress()
        assert events < 60_000, f"in {time.process_time() - spent:.1f} s of the processor"


async def test_a_value_of_the_extension_table_is_copied_once_however_often_it_is_requested() -> (
    None
):
    """Unread answers stay in the socket: 200 copies of 64 MB would be 13 GB."""
    async with stage() as on:
        async with on.attached("c") as client:
            value = pack(bytes(32 << 20))
            client.send(b'{"t":"ext_store","namespace":"n","key":"k","ask":1}', [value])
            os.close(value)
            assert (await client.packet_of("ext_done"))["ask"] == 1
            files: list[int] = []
            for _ in range(50):
                client.send_packet("ext_load", namespace="n", key="k", remove=False, ask=2)
                await asyncio.sleep(0)
                await until(lambda: take_file(client, files))
            assert (len(files), len(set(files))) == (50, 1), "all answers share one file"


def take_file(client: Client, files: list[int]) -> bool:
    """Read the next answer and add the inode of its file; False if it has none."""
    try:
        fds = client.receive_descriptors()
    except BlockingIOError:
        return False
    files += [os.fstat(fd).st_ino for fd in fds]
    for fd in fds:
        os.close(fd)
    return bool(fds)


async def test_stored_values_of_a_node_are_bounded_and_the_node_gets_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dorad.node.exttable.MAX_NODE_BYTES", 1 << 20)
    async with stage() as on, pair(on):
        session = await asyncio.to_thread(DaemonConnection, on.path, "c", dynamic=False)
        value = pack(bytes(400_000))
        answers = [
            await asyncio.to_thread(
                session.ask, "ext_store", {"namespace": "n", "key": str(number)}, [value]
            )
            for number in range(4)
        ]
        os.close(value)
        kinds = [answer.kind for answer in answers]
        assert kinds == ["ext_done", "ext_done", "ext_refused", "ext_refused"]
        assert "node 'c' would store 1200006 bytes" in answers[2].text("error")
        await asyncio.to_thread(session.done)
        await on.makes_progress()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_another_kind_of_socket_cannot_connect(kind: int) -> None:
    async with stage() as on:
        with socket.socket(socket.AF_UNIX, kind) as sock, pytest.raises(OSError, match="rotocol"):
            sock.connect(os.fspath(on.path))


async def test_only_the_link_reports_about_links() -> None:
    report = b'{"t":"link","report":{"kind":"event","name":"a/out","machine":"m","event":"closed"}}'
    async with stage(dataflow(node("a"), node(LINK, x="a/out"))) as on:
        async with on.attached("a") as client:
            client.send(report)
            assert "unknown packet 'link'" in (await client.packet_of("refused"))["error"]
        async with on.attached(LINK) as client:
            client.send(report)  # a text is missing
            assert "not a report of a link" in (await client.packet_of("refused"))["error"]
        assert on.reports == []
