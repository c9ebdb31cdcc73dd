"""The TCP connections of a link process: their limits, and the end of one that nothing reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.link.sockets import (
    CHECK_S,
    MAX_UNREAD_CHECKS,
    SEND_TIMEOUT_MS,
    ReadWatch,
    SocketState,
    end_of,
    limit_sending,
    socket_states,
)
from tests.harness.ports import free_port
from tests.harness.waiting import until
from tests.link.certificates import Authority
from tests.link.links import Link, pair

UNREAD = """
import os, socket, sys
from dorad.link import session, sockets
from dorad.link.__main__ import main

sockets.CHECK_S = 0.05
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
client.send(b"a frame")
inode = os.fstat(accepted.fileno()).st_ino
session.Session.connections = lambda self: sockets.socket_states({inode}, ())
sys.exit(main())
"""
"""A link process for which a connection without a reader is that of a peer."""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        accepted = stack.enter_context(server.accept()[0])
        yield client, accepted


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


async def test_what_was_read_and_what_waits_is_known_of_each_connection(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, accepted = ends
    client.sendall(bytes(1000))
    known = {inode(accepted), inode(client)}

    def states() -> dict[int, SocketState]:
        return socket_states(known, ())

    await until(lambda: states()[inode(accepted)] == SocketState(0, 1000))
    assert len(accepted.recv(600)) == 600
    assert states() == {inode(accepted): SocketState(600, 400), inode(client): SocketState(0, 0)}


def test_only_connections_of_peers_are_known(ends: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = ends
    assert socket_states((), ()) == {}
    assert socket_states({inode(client)}, ()).keys() == {inode(client)}
    assert socket_states((), {end_of(*accepted.getpeername())}).keys() == {inode(accepted)}


def test_sockets_that_are_no_connections_are_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socketpair()[0] as local:
        assert socket_states({inode(server), inode(local)}, ()) == {}


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("fd00:0::7", "fd00::7"),
        ("fe80::7%eth0", "fe80::7"),
    ],
)
def test_an_end_has_one_way_to_be_written(address: str, plain: str) -> None:
    assert end_of(address, 7) == (plain, 7)


def test_connections_end_when_the_other_end_is_silent_for_long(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    limit_sending()
    for each in ends:
        limit = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert limit == SEND_TIMEOUT_MS
        each.send(b"the socket is still open")


@given(
    st.lists(
        st.dictionaries(
            st.integers(1, 3), st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=3
        ),
        max_size=60,
    )
)
def test_a_reader_is_lost_after_so_many_checks_without_reading(
    looks: list[dict[int, tuple[int, int]]],
) -> None:
    watch = ReadWatch(0.0)
    found = [{key: SocketState(*each) for key, each in look.items()} for look in looks]
    for number, look in enumerate(found):
        window = found[max(0, number - MAX_UNREAD_CHECKS) : number + 1]
        lost = any(
            len(window) == MAX_UNREAD_CHECKS + 1
            and all(key in each and each[key].read == look[key].read for each in window)
            and all(each[key].unread for each in window[1:])
            for key in look
        )
        assert watch.check(look, float(number)) == lost
        assert watch.due_s == number + CHECK_S


@pytest.mark.long
async def test_a_link_whose_connection_nothing_reads_ends_so_that_it_is_restarted() -> None:
    async with pair() as machines:
        config = {"dataflow": "test-flow", "machine": "alpha", "listen": [machines.address]}
        channel = {"name": "a/out", "machine": "beta", "input": "x", "reliable": False}
        link = Link(machines.alpha, config | {"outgoing": [channel]}, ("-c", UNREAD))
        machines.links.append(link)
        await link.until(lambda: link.process.poll() is not None)
        await link.until(lambda: b"has stopped reading its connections" in link.errors)
        assert link.process.returncode == 1
        why = "Zenoh has stopped reading"
        await link.until(lambda: link.peer("beta").get("reason", "").startswith(why))


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
async def test_the_connections_of_peers_are_known_and_those_of_strangers_are_not(
    scheme: str, tmp_path: Path
) -> None:
    fleet = Authority(tmp_path / "fleet")
    port = free_port()

    def start(machine: str, role: str, other: str) -> subprocess.Popen[str]:
        files = fleet.issue(machine)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.link.connected"]
            + [machine, role, f"{scheme}/127.0.0.1:{port}", other]
            + [files[name] for name in ("ca", "certificate", "key") if scheme == "tls"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        return process

    def known(process: subprocess.Popen[str]) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        print(file=process.stdin, flush=True)
        return int(process.stdout.readline())

    with ExitStack() as stack:
        alpha = start("alpha", "listen", "beta")
        assert known(alpha) == 0
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).send(b"a")
        beta = start("beta", "connect", "alpha")
        await until(lambda: known(alpha) == known(beta) == 1)
        beta.kill()
        await until(lambda: known(alpha) == 0)
