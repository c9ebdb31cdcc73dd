"""Attacks on a coordinator over IPv6 and over mapped IPv4: by strangers, and by a viewer."""

import asyncio
import json
import random
import re
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from dorad.control.limits import IDLE_FRAMES, MAX_REQUEST
from dorad.control.tls import Identity, client_context
from dorafleet.ca.authority import open_authority
from dorafleet.coordinator.service import CA
from tests.fleet.coordinator.running import DEADLINE_S, coordinator
from tests.harness.waiting import until
from tests.link.strangers import FIRST, HANDSHAKE, record, tls

SOCKETS = 80
"""More than shake hands at a time."""
DRIP_S = 0.05
MAX_GROWTH = 128 << 20
"""Bytes that a coordinator may take for strangers."""
HELLO = FIRST["hello"]


class Site(NamedTuple):
    process: object
    host: str
    """Where attackers connect."""
    certificates: dict[str, Path]
    """Of robot `arm1`, with their keys: none is accepted."""


@pytest.fixture(scope="module", params=[("::1", "::1"), ("::", "127.0.0.1")], ids=["v6", "mapped"])
def site(request, tmp_path_factory):
    listen, host = request.param
    folder = tmp_path_factory.mktemp("s")
    with coordinator(folder / "state", "--tls", f"--listen={listen}") as one:
        certificates = {}
        foreign, fleet = open_authority(folder / "ca"), open_authority(one.folder / CA)
        for name, authority, days, more in (
            ("foreign", foreign, 365, 0),
            ("expired", fleet, -365, 0),
            ("chain", foreign, 365, 100),
        ):
            pair = authority.issue_pair(Identity("robot", "arm1"), days=days)
            certificates[name] = folder / f"{name}.pem"
            chain = pair.issued.chain + authority.certificate * more
            certificates[name].write_text(pair.key + chain)
        yield Site(one, host, certificates)
    assert "Traceback" not in one.process.printed


@asynccontextmanager
async def opened(site, *, tls=True):
    """Open a connection, and close it with a reset."""
    context = client_context(site.process.folder / "authority.pem") if tls else None
    options = {"ssl": context, "server_hostname": ""} if tls else {}
    reader, writer = await asyncio.open_connection(site.host, site.process.port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(*headers, path="/", verb="GET"):
    lines = (
        f"{verb} {path} HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode()


async def good_clients_get_in(site, count=3):
    """Over IPv4 where the coordinator listens there, as commands do."""
    for _ in range(count):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with suppress(OSError, EOFError, ssl.SSLError):
                    async with as_client(site, site.process.token) as one:
                        await one.ask("robot.list")
                        break
                await asyncio.sleep(0.1)


class Raw:
    """A client that says what it wants, frame by frame."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def head(self):
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    def frame(self, first, data=b"", size=None):
        """Send a frame with these four bits and opcode, and a mask of zeros."""
        size = len(data) if size is None else size
        if size < 126:
            head = bytes([first, 0x80 | size])
        elif size < 1 << 16:
            head = struct.pack("!BBH", first, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", first, 0x80 | 127, size)
        self.writer.write(head + bytes(4) + data)

    async def read(self):
        """Return the first byte and the data of the next frame."""
        first, size = await self.reader.readexactly(2)
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first, await self.reader.readexactly(size)

    async def ask(self, method, **params):
        self.frame(0x81, json.dumps({"id": 1, "method": method, "params": params}).encode())
        return json.loads((await self.read())[1])["result"]

    async def close_code(self):
        """Return the code with which the coordinator ends this; None if it only hangs up."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    first, data = await self.read()
                    if first == 0x88:
                        return int.from_bytes(data[:2], "big")
        except (EOFError, OSError):
            return None


@asynccontextmanager
async def as_client(site, token, *headers):
    async with opened(site) as streams:
        one = Raw(*streams)
        one.writer.write(request(f"Authorization: Bearer {token}", *headers))
        head = await one.head()
        assert head.startswith("HTTP/1.1 101 "), head
        assert "permessage-deflate" not in head
        one.frame(0x81, json.dumps({"hello": "raw", "protocol": 1}).encode())
        assert b"welcome" in (await one.read())[1]
        yield one


# -- strangers -------------------------------------------------------------------------------------


async def resets(site):
    """Connect, send a part of the greeting or all of it, and reset, again and again."""
    for number in range(5):
        async with opened(site, tls=False) as (_, writer):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write(HELLO[: (0, 1, 11, None)[number % 4]])
            await asyncio.sleep(0)


async def half_closes(site):
    """Send a greeting and no more, but read on."""
    async with opened(site, tls=False) as (reader, writer):
        writer.write(HELLO[:100])
        writer.write_eof()
        await reader.read()


async def drips(site):
    """Send the greeting in records of one byte, slowly."""
    async with opened(site, tls=False) as (_, writer):
        for byte in HELLO[5:]:
            writer.write(b"\x16\x03\x01\x00\x01" + bytes([byte]))
            await writer.drain()
            await asyncio.sleep(DRIP_S)


async def odd_greetings(site):
    """Send greetings of 16 KiB, with names and protocols that are none."""
    for kind in ("large", "name", "protocols"):
        async with opened(site, tls=False) as (reader, writer):
            writer.write(FIRST[kind])
            writer.write_eof()
            await reader.read()


async def odd_records(site):
    """Answer the coordinator's greeting with records that do not belong there, one of them slow."""
    for kind in (20, 21, HANDSHAKE, 23, 24, 99):
        async with opened(site, tls=False) as (reader, writer):
            writer.write(HELLO)
            await reader.read(1)
            writer.write(record(kind, random.randbytes(1000))[: random.choice((5, 500, 1005))])
            await asyncio.sleep(DRIP_S)
            await reader.read(1 << 16)


async def certificates(site):
    """Show certificates of another fleet, of the past, and a hundred at once, as a robot."""
    for path in site.certificates.values():
        with suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection(
                site.host, site.process.port, ssl=tls(path, path)
            )
            try:
                writer.write(request(path="/agent"))
                assert b" 101 " not in await reader.read()
            finally:
                writer.transport.abort()


async def slow_heads(site):
    """Shake hands, and send the HTTP request in records of one byte, slowly."""
    async with opened(site) as (_, writer):
        for byte in request("Authorization: Bearer x"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(DRIP_S)


async def endless_heads(site):
    """Shake hands, and send headers without end."""
    async with opened(site) as (_, writer):
        writer.write(request()[:-2])
        for _ in range(300):
            writer.write(b"X: " + b"x" * 4000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)


async def again(attack, site):
    """Attack until it is cancelled."""
    while True:
        with suppress(OSError, EOFError):
            await attack(site)
        await asyncio.sleep(0.2)


@pytest.mark.long
@pytest.mark.parametrize(
    "attack",
    [
        *(resets, half_closes, drips, odd_greetings, odd_records, certificates),
        *(slow_heads, endless_heads),
    ],
)
async def test_good_clients_get_in_while_strangers_attack(site, attack):
    before, memory = descriptors(site), rss(site)
    attackers = [asyncio.create_task(again(attack, site)) for _ in range(SOCKETS)]
    try:
        await asyncio.sleep(0.5)
        async with as_client(site, site.process.token) as established:
            await good_clients_get_in(site)
            await established.ask("robot.list")
        assert rss(site) < memory + MAX_GROWTH
    finally:
        for each in attackers:
            each.cancel()
        results = await asyncio.gather(*attackers, return_exceptions=True)
    assert {type(each) for each in results} == {asyncio.CancelledError}
    await until(lambda: descriptors(site) <= before + 4)


def descriptors(site):
    return len([*Path(f"/proc/{site.process.process.pid}/fd").iterdir()])


def rss(site):
    return psutil.Process(site.process.process.pid).memory_info().rss


SMUGGLED = request("Authorization: Bearer {token}")
BAD = "Authorization: Bearer " + "0" * 64
GOOD = "Authorization: Bearer {token}"
REQUESTS = {
    "a second one behind one that is refused": request(BAD) + SMUGGLED,
    "a body with a length": request(BAD, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
    "a body with a length, admitted": request(GOOD, "Content-Length: 9") + b"x" * 9,
    "two lengths": request(BAD, "Content-Length: 0", "Content-Length: 9") + SMUGGLED,
    "chunks": request(BAD, "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
    "chunks, admitted": request(GOOD, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "two tokens, the good one last": request(BAD, GOOD),
    "two tokens, the good one first": request(GOOD, BAD),
    "a header within a header": request(BAD + "\n" + GOOD),
    "a folded header": request(BAD + "\r\n " + GOOD),
    "another verb": request(GOOD, verb="POST"),
    "an old version": request(GOOD).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "no end": request(BAD)[:-4] + b"\n\n" + SMUGGLED,
    "a robot's path": request(GOOD, path="/agent"),
    "a control character": request(GOOD.replace("Bearer", "Bearer\0")),
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_request_that_hides_another_one_gets_one_answer_and_the_end(site, kind):
    text = REQUESTS[kind].replace(b"{token}", site.process.token.encode())
    async with opened(site) as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(text)
        answer = b""
        with suppress(OSError):
            while more := await reader.read(1 << 16):
                answer += more
                if b" 101 " in answer:
                    break
    assert len(re.findall(rb"^HTTP/1\.1 ", answer, re.MULTILINE)) <= 1, answer
    assert b" 101 " not in answer, answer
    await good_clients_get_in(site, 1)


# -- a viewer --------------------------------------------------------------------------------------


@pytest.fixture
async def viewer(site):
    async with as_client(site, site.process.token) as one:
        made = await one.ask("token.create", name="viewer", role="viewer", days=1)
        try:
            yield made["token"]
        finally:
            await one.ask("access.revoke", kind="token", name="viewer")


BOMB = b"\x4a\x4c\xa4\x3d\x00\x00" * 1000
"""Compressed data, as it is with permessage-deflate."""
FRAMES = {
    "2^63 bytes": ((0x82, b"", 1 << 63), {1002, 1009}),
    "2^64 - 1 bytes": ((0x82, b"", (1 << 64) - 1), {1002, 1009}),
    "2^63 - 1 bytes": ((0x82, b"", (1 << 63) - 1), {1009}),
    "one byte too many": ((0x81, b"", MAX_REQUEST + 1), {1009}),
    "compressed": ((0xC1, BOMB), {1002}),
    "reserved bits": ((0xB1, b"x"), {1002}),
    "an unknown kind": ((0x83, b"x"), {1002}),
    "a long ping": ((0x89, b"x" * 126), {1002}),
    "a ping in pieces": ((0x09, b"x"), {1002}),
    "the middle of a message": ((0x80, b"x"), {1002}),
    "a short end": ((0x88, b"x"), {1002}),
    "an end with a forbidden code": ((0x88, b"\x03\xed"), {1002}),
    "text that is no text": ((0x81, b"\xff\xfe"), {1007}),
}


@pytest.mark.parametrize("kind", FRAMES)
async def test_a_frame_that_must_not_be_ends_its_connection_and_no_other(site, viewer, kind):
    frame, codes = FRAMES[kind]
    deflate = "Sec-WebSocket-Extensions: permessage-deflate"
    async with as_client(site, viewer) as other:
        async with as_client(site, viewer, deflate) as one:
            one.frame(*frame)
            assert await one.close_code() in codes
        await other.ask("robot.list")


async def test_frames_without_a_mask_end_their_connection(site, viewer):
    async with as_client(site, viewer) as one:
        one.writer.write(b"\x81\x02{}")
        assert await one.close_code() == 1002


FLOODS = {
    "pings": (b"", b"\x89\xfd" + bytes(4 + 125)),
    "pongs": (b"", b"\x8a\x80" + bytes(4)),
    "pieces": (b"\x01\x80" + bytes(4), b"\x00\x80" + bytes(4)),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_frames_without_end_end_their_connection_and_delay_no_other(site, viewer, kind):
    first, more = FLOODS[kind]
    async with as_client(site, viewer) as other, as_client(site, viewer) as one:
        ended = asyncio.create_task(one.close_code())
        one.writer.write(first)
        async with asyncio.timeout(DEADLINE_S):
            while not ended.done():
                one.writer.write(more * IDLE_FRAMES)
                await other.ask("robot.list")
        assert await ended is None
        await other.ask("robot.list")


async def test_a_client_that_sends_no_more_and_reads_on_is_disconnected(site, viewer):
    async with as_client(site, viewer) as one:
        sock = one.writer.get_extra_info("socket")
        # Half of a frame, and the end of the connection in one direction only.
        one.writer.write(b"\x81\xff" + struct.pack("!Q", 1000) + bytes(4))
        await one.writer.drain()
        socket.socket(fileno=socket.dup(sock.fileno())).shutdown(socket.SHUT_WR)
        assert await one.close_code() is None
