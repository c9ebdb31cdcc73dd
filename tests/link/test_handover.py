"""A connection that Zenoh has closed by itself: its descriptor's number may be anything by now."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dorad.link.handover import Handed, cut, is_open


def pipe() -> tuple[int, int]:
    return os.pipe()


def connection() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def two(make: Callable[[], int]) -> tuple[int, int]:
    return make(), make()


OTHERS: dict[str, Callable[[], tuple[int, int]]] = {
    "pipe": pipe,
    "connection": connection,
    "file": lambda: two(lambda: os.open(Path(__file__), os.O_RDONLY)),
    "eventfd": lambda: two(lambda: os.eventfd(0)),
    "directory": lambda: two(lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY)),
}


@pytest.fixture
def handed() -> Iterator[tuple[Handed, socket.socket]]:
    """A connection, and the socket of its other end."""
    one, other = socket.socketpair()
    descriptor = one.detach()
    yield Handed(descriptor, os.fstat(descriptor).st_ino, "tls/127.0.0.1:1"), other
    other.close()
    with contextlib.suppress(OSError):
        os.close(descriptor)


def test_an_open_connection_is_cut_for_the_other_end(handed: tuple[Handed, socket.socket]) -> None:
    link, other = handed
    assert is_open(link)
    assert cut(link)
    assert other.recv(1) == b""
    assert is_open(link), "its owner closes it"


def test_a_closed_connection_is_not_cut(handed: tuple[Handed, socket.socket]) -> None:
    link, _ = handed
    os.close(link.descriptor)
    assert not is_open(link)
    assert not cut(link)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_has_the_number_of_a_closed_connection_is_left_alone(
    kind: str, handed: tuple[Handed, socket.socket]
) -> None:
    link, _ = handed
    before, other = OTHERS[kind]()
    os.dup2(before, link.descriptor)
    os.close(before)
    assert not is_open(link)
    assert not cut(link)
    if kind in ("pipe", "connection"):
        end, start = (link.descriptor, other) if kind == "pipe" else (other, link.descriptor)
        os.write(start, b"x")
        assert os.read(end, 1) == b"x"
    os.close(other)
