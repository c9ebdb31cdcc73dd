"""Sockets that say nothing do not keep clients out: the decision, and hundreds of real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException

from dorafleet.coordinator import gate
from dorafleet.coordinator.gate import (
    MAX_HANDSHAKES,
    MAX_TURN_S,
    MIN_HANDSHAKE_S,
    GatedSocket,
    Line,
    Pending,
    choose_victim,
    victims,
)
from dorafleet.coordinator.service import MIN_WAITING, waiting_within
from tests.fleet.coordinator.running import client, connected, coordinator
from tests.harness.waiting import until

FUZZED = 3000


@pytest.fixture(scope="module", params=["--tls", "--listen=127.0.0.1"])
def shared(tmp_path_factory, request):
    """A coordinator with TLS, and one without."""
    with coordinator(tmp_path_factory.mktemp("gate") / "state", request.param) as process:
        yield process


def filled(**counts):
    """Return connections of hosts, the first ones the oldest, all of them within a second."""
    hosts = [host for host, count in counts.items() for _ in range(count)]
    return {number: Pending(host, number / 1e6) for number, host in enumerate(hosts)}


def test_the_host_with_most_handshakes_loses_the_oldest_once_it_had_its_turn():
    assert choose_victim(filled(few=2, most=5), "new", 0.1) is None
    assert choose_victim(filled(few=2, most=5), "new", 1 + MAX_TURN_S) == 2
    assert choose_victim(filled(most=5, few=2), "few", 1 + MAX_TURN_S) == 0


def test_among_equals_only_one_that_has_waited_long_is_replaced():
    assert choose_victim(filled(one=3, two=3), "one", MAX_TURN_S + 0.1) is None
    assert choose_victim(filled(one=3), "one", MAX_TURN_S + 0.1) is None
    assert choose_victim(filled(one=3), "one", MIN_HANDSHAKE_S) == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), min_size=1, max_size=50),
    st.sampled_from("abcd"),
)
def test_a_victim_has_more_handshakes_than_the_newcomer_or_has_waited(pending, host):
    table = {number: Pending(*each) for number, each in enumerate(pending)}
    victim = choose_victim(table, host, 10)
    counts = {each: sum(other.host == each for other in table.values()) for each in "abcd"}
    if victim is not None:
        chosen = table[victim]
        assert counts[chosen.host] == max(counts.values())
        allowed = MAX_TURN_S if counts[chosen.host] > counts[host] + 1 else MIN_HANDSHAKE_S
        assert 10 - chosen.since >= allowed


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=50),
    st.lists(st.sampled_from("abcd"), max_size=20),
)
def test_the_victims_for_many_hosts_are_those_for_each_of_them(pending, hosts):
    table = {number: Pending(*each) for number, each in enumerate(pending)}
    left, expected = dict(table), []
    for host in hosts:
        victim = choose_victim(left, host, 10) if left else None
        if victim is not None:
            expected.append(victim)
            del left[victim]
    assert victims(table, hosts, 10) == expected


steps = st.lists(
    st.tuples(st.sampled_from(["add", "speak", "take", "shed", "remove"]), st.sampled_from("abc")),
    max_size=60,
)


@given(steps)
def test_hosts_take_turns_and_nothing_is_lost_or_returned_twice(order):
    line, silent, ready = Line(), {}, []
    for number, (act, host) in enumerate(order):
        mine = [item for item, owner in silent.items() if owner == host]
        if act == "add":
            line.add(host, number, number)
            silent[number] = host
        elif act == "speak" and mine:
            line.spoke(host, mine[0])
            ready.append((host, mine[0]))
            del silent[mine[0]]
        elif act == "remove" and mine:
            line.remove(host, mine[-1])
            del silent[mine[-1]]
        elif act == "take":
            turn = line.hosts[0] if line.hosts else None
            item = line.take()
            assert (item is None) == (not ready)
            if item is not None:
                newest = next(each for each in reversed(ready) if each[0] == turn)
                assert newest == (turn, item)
                ready.remove(newest)
                # The others come first now.
                assert turn not in line.hosts or line.hosts[-1] == turn
        elif act == "shed" and len(line):
            counts = Counter([*silent.values(), *(each for each, _ in ready)])
            item = line.shed()
            owner = silent.pop(item, None) or next(each for each, other in ready if other == item)
            assert counts[owner] == max(counts.values())
            ready = [each for each in ready if each[1] != item]
        assert len(line) == len(silent) + len(ready)


@asynccontextmanager
async def gated(**limits):
    """Yield a listening gate, and a function that connects to it."""
    sock = GatedSocket(socket.AF_INET, **limits)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    sock.listen(100)
    async with AsyncExitStack() as stack:
        stack.callback(sock.close)

        async def connect(text=b"", host="127.0.0.1"):
            one = stack.enter_context(socket.socket())
            one.bind((host, 0))
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, sock.getsockname())
            if text:
                await asyncio.get_running_loop().sock_sendall(one, text)
            return one

        yield sock, connect


def accepted(sock):
    """Return the address of the peer whose turn it is, None if it is that of none."""
    try:
        connection, address = sock.accept()
    except BlockingIOError:
        return None
    kept.append(connection)
    return address


kept: list[socket.socket] = []
"""Closed by the fixture below, as a server would do in the end."""


@pytest.fixture(autouse=True)
def close_accepted():
    yield
    while kept:
        kept.pop().close()


async def test_only_those_that_have_sent_something_shake_hands_and_never_more_than_the_limit():
    async with gated(handshakes=2) as (sock, connect):
        silent = [await connect() for _ in range(5)]
        loud = [await connect(b"hello") for _ in range(3)]
        await until(lambda: accepted(sock) and sock.pending == 2)
        names = {each.getsockname() for each in loud}
        taken = {each.address for each in kept}
        assert taken < names
        assert sock.waiting == 6
        assert accepted(sock) is None
        sock.admit(kept[0].address)
        await until(lambda: accepted(sock) in names - taken)
        kept[1].close()
        assert sock.pending == 1
        silent[0].close()
        await until(lambda: sock.waiting == 4)


async def test_one_that_hung_up_while_it_waited_takes_no_place():
    async with gated(handshakes=1) as (sock, connect):
        gone = await connect(b"hello")
        await until(lambda: len(sock._line.hosts) == 1)
        gone.close()
        other = await connect(b"hello")
        await until(lambda: sock.waiting == 2)
        await until(lambda: accepted(sock) == other.getsockname())


async def test_those_that_give_up_while_all_others_are_served_first_do_not_add_up():
    async with gated(handshakes=1) as (sock, connect):
        await connect(b"hello")
        await until(lambda: accepted(sock))
        waiting = [await connect(b"hello") for _ in range(5)]
        await until(lambda: len(sock._line._ready["127.0.0.1"]) == 5)
        for each in waiting[:3]:
            each.close()
        await until(lambda: sock.waiting == 2)
        kept[0].close()
        await until(lambda: accepted(sock) == waiting[4].getsockname())


async def test_with_no_place_to_wait_the_host_with_most_loses_a_silent_one():
    async with gated(waiting=4) as (sock, connect):
        held = [await connect(host="127.0.0.2") for _ in range(4)]
        await until(lambda: sock.waiting == 4)
        other = await connect(b"hello")
        await until(lambda: accepted(sock) == other.getsockname())
        assert await asyncio.get_running_loop().sock_recv(held[0], 1) == b""


async def test_a_handshake_that_takes_too_long_makes_room_and_one_alone_ends_too(monkeypatch):
    monkeypatch.setattr(gate, "MIN_HANDSHAKE_S", 0.3)
    monkeypatch.setattr(gate, "HANDSHAKE_S", 1.0)
    async with gated(handshakes=1) as (sock, connect):
        slow = await connect(b"half of a")
        await until(lambda: accepted(sock) == slow.getsockname())
        other = await connect(b"hello")
        # The transport of a server would close it when it notices the end.
        await until(lambda: accepted(sock) == other.getsockname())
        assert await asyncio.get_running_loop().sock_recv(slow, 1) == b""
        silent = await connect()
        assert await asyncio.get_running_loop().sock_recv(other, 1) == b""
        assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""
        await until(lambda: sock.pending == sock.waiting == 0)


async def test_clients_get_in_while_another_host_holds_every_place_and_more(shared):
    """From 127.0.0.2, which is another host for the coordinator."""
    with ExitStack() as stack:
        for _ in range(MAX_HANDSHAKES + 300):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.2", 0))
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", shared.port))
        for _ in range(3):
            async with client(shared) as one:
                await one.call("robot.list")


async def test_clients_get_in_past_silent_sockets_of_their_own_host(shared):
    with ExitStack() as stack:
        for _ in range(MAX_HANDSHAKES + 100):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", shared.port))
        await until(lambda: gets_in(shared))


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


@pytest.mark.parametrize(("files", "robots"), [(20_000, 5_000), (65_536, 28_000)])
def test_with_two_descriptors_for_each_robot_as_many_may_wait_as_ever(files, robots):
    assert waiting_within(files, robots) == gate.MAX_WAITING


def test_too_few_descriptors_for_the_robots_are_noticed():
    assert waiting_within(1024, 200) < MIN_WAITING
    assert waiting_within(1024, 100) < gate.MAX_WAITING
