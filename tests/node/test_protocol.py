"""Packets between a node and its daemon over real sockets; above all, malformed ones."""

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node import protocol
from dorad.node.protocol import ProtocolError
from tests.harness.process import open_descriptors

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        yield a, b


def test_a_packet_arrives_with_its_fields_and_descriptors(pair: Pair) -> None:
    read, write = os.pipe()
    protocol.send(pair[0], "peer", {"node": "camera", "size": 5}, [write])
    os.close(write)
    packet = protocol.receive(pair[1])
    assert packet is not None
    assert (packet.kind, packet.text("node"), packet.number("size")) == ("peer", "camera", 5)
    (received,) = packet.take(1)
    os.write(received, b"x")
    assert os.read(read, 1) == b"x"
    os.close(received)
    os.close(read)


def test_receiving_returns_none_at_the_end_of_the_connection(pair: Pair) -> None:
    pair[0].close()
    assert protocol.receive(pair[1]) is None


def test_a_nonblocking_receive_without_a_packet_raises(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        protocol.receive(pair[1], socket.MSG_DONTWAIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\xff\xfe\xfd",
        b"{",
        b'{"t": "hello"',
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"t": 5}',
        b'{"t": null}',
        b"[" * 60_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_garbage_is_refused_and_the_next_packet_is_read(pair: Pair, data: bytes) -> None:
    pair[0].send(data)
    protocol.send(pair[0], "done", {}, [])
    with pytest.raises(ProtocolError):
        protocol.receive(pair[1])
    packet = protocol.receive(pair[1])
    assert packet is not None
    assert packet.kind == "done"


@given(st.binary(min_size=1, max_size=2000))
def test_any_bytes_raise_only_protocol_errors(data: bytes) -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        a.send(data)
        try:
            packet = protocol.receive(b)
        except ProtocolError:
            return
        assert packet is not None
        assert isinstance(packet.kind, str)


def test_an_oversized_packet_is_refused(pair: Pair) -> None:
    pair[0].send(b'{"t":"x","pad":"' + b"a" * protocol.MAX_PACKET + b'"}')
    with pytest.raises(ProtocolError, match="too large"):
        protocol.receive(pair[1])


def test_an_oversized_packet_is_not_sent(pair: Pair) -> None:
    with pytest.raises(ProtocolError, match="would be"):
        protocol.send(pair[0], "x", {"pad": "a" * protocol.MAX_PACKET}, [])


def test_descriptors_of_a_refused_packet_are_closed(pair: Pair) -> None:
    before = open_descriptors()
    socket.send_fds(pair[0], [b"garbage"], [0, 1, 2])
    with pytest.raises(ProtocolError):
        protocol.receive(pair[1])
    assert open_descriptors() == before


def test_more_descriptors_than_any_packet_has_are_refused_and_closed(pair: Pair) -> None:
    before = open_descriptors()
    socket.send_fds(pair[0], [b'{"t":"x"}'], [0] * 20)
    with pytest.raises(ProtocolError):
        protocol.receive(pair[1])
    assert open_descriptors() == before


def test_a_packet_without_its_descriptors_is_refused(pair: Pair) -> None:
    protocol.send(pair[0], "grown", {"segment": 1}, [])
    packet = protocol.receive(pair[1])
    assert packet is not None
    with pytest.raises(ProtocolError, match="without its 1 descriptors"):
        packet.take(1)


@pytest.mark.parametrize("value", [-1, "5", 1.5, True, None, [1]])
def test_a_field_that_must_be_a_number_is_checked(pair: Pair, value: object) -> None:
    protocol.send(pair[0], "x", {"n": value}, [])
    packet = protocol.receive(pair[1])
    assert packet is not None
    with pytest.raises(ProtocolError, match="no number"):
        packet.number("n")


@pytest.mark.parametrize("value", [5, None, ["a"], {"a": 1}])
def test_a_field_that_must_be_text_is_checked(pair: Pair, value: object) -> None:
    protocol.send(pair[0], "x", {"s": value}, [])
    packet = protocol.receive(pair[1])
    assert packet is not None
    with pytest.raises(ProtocolError, match="no text"):
        packet.text("s")
