"""Ports of loopback that the kernel gives to no other program as long as the tests run."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = 64

_reserved: list[int] = []


@contextmanager
def reserved_ports() -> Iterator[None]:
    """Reserve ports until the block ends.

    A socket that is bound and does not listen keeps a port from being given to another program,
    as a server's or as a client's. One that asks for this port and sets SO_REUSEADDR, as servers
    do, may listen there.
    """
    with ExitStack() as stack:
        for _ in range(PORTS):
            found = stack.enter_context(socket.socket())
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(("127.0.0.1", 0))
            _reserved.append(found.getsockname()[1])
        try:
            yield
        finally:
            _reserved.clear()


def free_port() -> int:
    """Return a reserved port that nothing listens at; it is returned again after all others.

    A fixture of a module may still use one that was returned long before.
    """
    for _ in range(PORTS):
        port = _reserved.pop(0)
        _reserved.append(port)
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("something listens at each of the reserved ports")
