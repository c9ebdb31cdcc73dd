"""Ports of loopback that the kernel gives to no other program as long as the tests run."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

PORTS = 64

_reserved: list[int] = []


@contextmanager
def reserved_ports() -> Iterator[None]:
    """Reserve ports until the block ends.

    A socket that is bound and does not listen keeps a port from being given to another program,
    as a server's or as a client's. One that asks for this port and sets SO_REUSEADDR, as servers
    do, may listen there. The sockets are kept by one that they were sent to: each test looks at
    all descriptors of this process.
    """
    here, there = socket.socketpair()
    with here, there:
        for _ in range(PORTS):
            with socket.socket() as reserved:
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reserved.bind(("127.0.0.1", 0))
                _reserved.append(reserved.getsockname()[1])
                socket.send_fds(here, [b"a port"], [reserved.fileno()])
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
