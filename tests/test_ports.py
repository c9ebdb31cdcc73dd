"""The ports that tests use."""

import socket

from tests.harness.ports import PORTS, free_port


def test_a_reserved_port_at_which_something_listens_is_passed_over():
    port = free_port()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        assert port not in {free_port() for _ in range(PORTS)}
    assert port in {free_port() for _ in range(PORTS)}
