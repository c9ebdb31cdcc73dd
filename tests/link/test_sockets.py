"""The TCP connections of a link process: their limits, and the end of one that nothing reads."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.link.sockets import (
    CHECK_S,
    MAX_UNREAD_CHECKS,
    SEND_TIMEOUT_MS,
    ReadWatch,
    SocketState,
    limit_sending,
    socket_states,
)
from tests.harness.waiting import until
from tests.link.links import Link, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

UNREAD = """
import socket, sys
from dorad.link import sockets
from dorad.link.__main__ import main
sockets.CHECK_S = 0.05
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
client.send(b"a frame")
sys.exit(main())
"""
"""A link process one of whose connections has lost its reader."""


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
    await until(lambda: socket_states()[inode(accepted)] == SocketState(0, 1000))
    assert len(accepted.recv(600)) == 600
    assert socket_states()[inode(accepted)] == SocketState(600, 400)
    assert socket_states()[inode(client)] == SocketState(0, 0)
    assert inode(client) in socket_states()


def test_sockets_that_are_no_connections_are_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socketpair()[0] as local:
        assert not {inode(server), inode(local)} & socket_states().keys()


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


async def test_a_link_whose_connection_nothing_reads_ends_so_that_it_is_restarted() -> None:
    async with pair() as machines:
        config = {"dataflow": "test-flow", "machine": "alpha", "listen": [machines.address]}
        link = Link(machines.alpha, config, ("-c", UNREAD))
        machines.links.append(link)
        await link.until(lambda: link.process.poll() is not None)
        await link.until(lambda: b"has stopped reading its connections" in link.errors)
        assert link.process.returncode == 1
