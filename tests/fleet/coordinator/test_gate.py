"""Sockets that say nothing do not keep clients out: the decision, and hundreds of real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException

from dorafleet.coordinator.gate import MAX_PENDING, MIN_HANDSHAKE_S, Gate, Pending, choose_victim
from tests.fleet.coordinator.running import DEADLINE_S, client, connected, coordinator

FUZZED = 3000


@pytest.fixture(scope="module", params=["--tls", "--listen=127.0.0.1"])
def shared(tmp_path_factory, request):
    """A coordinator with TLS, and one without."""
    with coordinator(tmp_path_factory.mktemp("gate") / "state", request.param) as found:
        yield found


def filled(**counts):
    """Return connections of hosts, the first ones the oldest, all of them within a second."""
    hosts = [host for host, count in counts.items() for _ in range(count)]
    return {number: Pending(host, number / 1e6) for number, host in enumerate(hosts)}


def test_the_host_with_most_places_loses_the_oldest_of_them():
    assert choose_victim(filled(few=2, most=5), "new", 0.1) == 2
    assert choose_victim(filled(most=5, few=2), "few", 0.1) == 0


def test_among_equals_only_one_that_has_waited_long_is_replaced():
    assert choose_victim(filled(one=3, two=3), "one", 0.1) is None
    assert choose_victim(filled(one=3), "one", 0.1) is None
    assert choose_victim(filled(one=3), "one", MIN_HANDSHAKE_S) == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), min_size=1, max_size=50),
    st.sampled_from("abcd"),
)
def test_a_victim_has_no_fewer_places_than_the_newcomer_or_has_waited(pending, host):
    table = {number: Pending(*each) for number, each in enumerate(pending)}
    victim = choose_victim(table, host, 10)
    counts = {each: sum(found.host == each for found in table.values()) for each in "abcd"}
    if victim is not None:
        found = table[victim]
        assert counts[found.host] == max(counts.values())
        assert counts[found.host] > counts[host] + 1 or 10 - found.since >= MIN_HANDSHAKE_S


def test_a_gate_never_counts_more_than_its_limit_and_forgets_what_is_closed():
    now = [0.0]
    gate = Gate(3, lambda: now[0])
    with ExitStack() as stack:
        accepted = []
        for port in range(20):
            now[0] += MIN_HANDSHAKE_S / 2
            pair = socket.socketpair()
            stack.enter_context(pair[1])
            entered = gate.enter(pair[0], ("10.0.0.1", port))
            assert len(gate) <= 3
            accepted.append(stack.enter_context(entered) if entered else pair[0])
        gate.admit(("10.0.0.1", 19))
        assert len(gate) == 2
    assert len(gate) == 0


async def test_clients_get_in_while_another_host_holds_every_place_and_more(shared):
    """From 127.0.0.2, which is another host for the coordinator."""
    with ExitStack() as stack:
        for _ in range(MAX_PENDING + 100):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.2", 0))
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", shared.port))
        for _ in range(3):
            async with client(shared) as one:
                await one.call("robot.list")


async def test_clients_get_in_past_silent_sockets_of_their_own_host(shared):
    with ExitStack() as stack:
        for _ in range(MAX_PENDING):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", shared.port))
        # They lose their places once they are old enough, so a client may have to try again.
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if await gets_in(shared):
                    return
                await asyncio.sleep(MIN_HANDSHAKE_S / 4)


async def gets_in(process):
    try:
        async with client(process) as one:
            await one.call("robot.list")
    except (OSError, WebSocketException):
        return False
    return True


async def test_random_bytes_before_authentication_change_nothing(shared):
    chance = random.Random(13)
    async with client(shared) as one:
        before = await one.call("coordinator.status")
        hello = await first_bytes(shared)
        for _ in range(FUZZED // 30):
            await asyncio.gather(*(send(shared.port, mutated(chance, hello)) for _ in range(30)))
        assert await one.call("coordinator.status") == before
    async with connected(shared):
        pass


async def first_bytes(process):
    """Return what a good client sends first."""
    seen = asyncio.get_running_loop().create_future()

    async def take(reader, writer):
        seen.set_result(await reader.read(10_000))
        writer.transport.abort()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        port, process.port = process.port, server.sockets[0].getsockname()[1]
        try:
            with pytest.raises(Exception):  # noqa: B017 - whatever the client makes of it
                async with connected(process):
                    pass
        finally:
            process.port = port
        return await seen


def mutated(chance, good):
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(1, 400))
    content = bytearray(good[: chance.randrange(1, len(good) + 1)])
    for _ in range(chance.randrange(1, 10)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


async def send(port, content):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        await writer.drain()
        writer.write_eof()
        await reader.read()
    except OSError:
        pass  # it was cut off
    finally:
        writer.transport.abort()
