"""The client of etcd's gateway against members that are down, slow, or talk nonsense."""

import asyncio
import json
import random
from contextlib import asynccontextmanager

import pytest

from dorafleet.store import gateway as module
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.gateway import Gateway, GatewayError
from tests.harness.waiting import DEADLINE_S, until


@asynccontextmanager
async def member(*answers, hold=False):
    """A server that answers each connection's first request with these bytes, then ends it."""
    asked = []

    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            asked.append(1)
            writer.write(answers[(len(asked) - 1) % len(answers)])
            await writer.drain()
            if hold:
                await reader.read()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def gateway(*endpoints):
    found = Gateway(endpoints)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield found
    finally:
        await found.close()


def http(body, status="200 OK"):
    return b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode(),
        len(body),
        body,
    )


def chunked(*pieces):
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


async def test_an_answer_may_come_with_a_length_or_in_chunks():
    async with member(http(b'{"a": 1}'), chunked(b'{"a"', b": 1}")) as (url, _):
        async with gateway(url) as client:
            assert await client.call("/", {}) == {"a": 1}
            assert await client.call("/", {}) == {"a": 1}


async def test_a_refusal_of_etcd_has_its_code_and_words():
    refusal = http(b'{"error": "x", "code": 11, "message": "it is compacted"}', "400 Bad Request")
    async with member(refusal) as (url, _), gateway(url) as client:
        with pytest.raises(GatewayError, match="it is compacted") as caught:
            await client.call("/", {})
        assert caught.value.is_compacted


async def test_what_can_be_repeated_goes_to_the_next_member_and_what_cannot_is_unknown():
    async with member(b"") as (bad, asked), member(http(b"{}"), hold=True) as (good, _):
        async with gateway(bad, good) as client:
            assert await client.call("/", {}, repeatable=True) == {}
        async with gateway(bad, good) as client:
            with pytest.raises(StoreError) as caught:
                await client.call("/", {})
            assert caught.value.code == Code.UNKNOWN
        assert len(asked) == 2


async def test_members_without_a_leader_are_asked_in_turn_and_their_reason_is_reported():
    refusal = http(b'{"code": 14, "message": "etcdserver: no leader"}', "503 Unavailable")
    async with member(refusal) as (one, first), member(refusal) as (two, second):
        async with gateway(one, two) as client:
            with pytest.raises(StoreError, match="can answer: etcdserver: no leader") as caught:
                await client.call("/", {}, repeatable=True)
    assert caught.value.code == Code.UNAVAILABLE
    assert (len(first), len(second)) == (1, 1)


async def test_members_that_are_down_are_passed_over():
    async with member(http(b"{}")) as (good, _):
        async with gateway("http://127.0.0.1:1", "http://localhost.invalid:1", good) as client:
            for _ in range(3):
                assert await client.call("/", {}) == {}
    async with gateway("http://127.0.0.1:1", "http://127.0.0.1:2") as client:
        with pytest.raises(StoreError, match=r"port 1: .*port 2: ") as caught:
            await client.call("/", {})
        assert caught.value.code == Code.UNAVAILABLE


async def test_a_member_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "CALL_S", 0.2)
    async with member(b"", hold=True) as (url, _), gateway(url) as client:
        with pytest.raises(StoreError, match="no answer in time") as caught:
            await client.call("/", {})
        assert caught.value.code == Code.UNKNOWN
        with pytest.raises(StoreError) as caught:
            await client.call("/", {}, repeatable=True)
        assert caught.value.code == Code.UNAVAILABLE


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "127.0.0.1:2379",
        "http://127.0.0.1",
        "ftp://a:1",
        "http://:1",
        "http://a:99999",
        "http://[",
    ],
)
async def test_an_address_that_is_none_is_refused(endpoint):
    with pytest.raises(StoreError, match="is not an address of etcd"):
        Gateway([endpoint])


async def test_an_idle_connection_that_has_ended_is_not_used_again():
    answer = http(b"{}").replace(b"Connection: close\r\n", b"")
    async with member(answer) as (url, asked), gateway(url) as client:
        for count in range(1, 5):
            await client.call("/", {})
            assert len(asked) == count
            await until(lambda: client._idle[-1].reader.at_eof())


async def test_a_stream_yields_each_line_however_it_is_cut():
    lines = b"".join(json.dumps({"result": {"n": n}}).encode() + b"\n" for n in range(50))
    cuts = sorted(random.Random(1).sample(range(1, len(lines)), 30))
    pieces = [lines[a:b] for a, b in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    async with member(chunked(*pieces)) as (url, _), gateway(url) as client:
        found = []
        with pytest.raises(StoreError, match="ended the stream"):
            async with client.stream("/", {}) as answers:
                async for answer in answers:
                    found.append(answer["n"])
        assert found == list(range(50))


async def test_closing_ends_a_stream_that_is_read():
    async with member(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", hold=True) as (
        url,
        _,
    ):
        async with gateway(url) as client:
            async with client.stream("/", {}) as answers:
                reading = asyncio.ensure_future(anext(answers))
                await asyncio.sleep(0)
                await client.close()
                with pytest.raises(StoreError):
                    await reading


async def test_no_nonsense_is_more_than_an_error(monkeypatch):
    monkeypatch.setattr(module, "CALL_S", 0.05)
    chance = random.Random(7)
    good = (http(b'{"header": {"revision": "5"}}'), chunked(b'{"result": {}}\n'))
    nonsense = [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000,
        http(b"[]"),
        http(b"\xff"),
        http(b'{"error": []}'),
        http(b'{"result": 5}'),
        http(b"[" * 100_000),
        http(b"not found", "404 Not Found"),
    ]
    for _ in range(300):
        content = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        nonsense.append(bytes(content))
    async with member(*nonsense) as (url, asked), gateway(url) as client:
        refused = 0
        while len(asked) < len(nonsense):
            try:
                assert isinstance(await client.call("/", {}), dict)
            except (StoreError, GatewayError):
                refused += 1
        assert refused >= 16
