"""Why a router gives no session."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from dorad.link.config import Tls
from dorad.link.silence import why_silent
from tests.harness.ports import free_port
from tests.link.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def server(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Listen for one client: with TLS, or with a text that is none."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            if context is None:
                connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
                return
            # The client's refusal and its end are what the test is about.
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tls/127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("issuer", "why"),
    [
        ("own", "it refuses this machine's certificate, or is no Zenoh router"),
        ("other", "its certificate is not of this fleet"),
    ],
)
def test_a_certificate_tells_the_fleet_of_a_router(tmp_path: Path, issuer: str, why: str) -> None:
    fleets = {name: Authority(tmp_path / name) for name in ("own", "other")}
    files = fleets[issuer].issue("router")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    ca = base64.b64encode((tmp_path / "own/ca.pem").read_bytes()).decode()
    with server(context) as endpoint:
        assert why_silent(endpoint, Tls(ca, "", "")) == why


def test_a_port_without_tls_or_without_anybody_is_told_apart(tmp_path: Path) -> None:
    Authority(tmp_path / "own")
    tls = Tls(base64.b64encode((tmp_path / "own/ca.pem").read_bytes()).decode(), "", "")
    with server() as endpoint:
        assert "does not complete the TLS handshake" in why_silent(endpoint, tls)
    with server() as endpoint:
        assert why_silent(endpoint, None) == "what answers there is no Zenoh router"
    nobody = f"tls/127.0.0.1:{free_port()}"
    assert why_silent(nobody, tls) == "nothing answers there: Connection refused"
    for wrong in ("tls/a..b:7447#iface=lo", "tls/127.0.0.1:65536", "tls/[::1", "junk"):
        assert why_silent(wrong, tls).startswith("nothing answers there: ")
