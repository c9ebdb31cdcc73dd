"""Why a router gives no session."""

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dorad.link.config import LinkConfig, Tls
from dorad.link.greeting import Greeting
from dorad.link.silence import PATIENCE_S, Silence, why_silent
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until
from tests.link.certificates import Authority


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
    ("issuer", "machine", "why"),
    [
        ("own", None, "it refuses this machine's certificate, or is no Zenoh router"),
        ("other", None, "its certificate is not of this fleet"),
        ("own", "arm2", "it refuses this machine's certificate, or serves another dataflow"),
        ("own", "arm3", "its certificate is that of arm2, not of arm3"),
        ("other", "arm2", "its certificate is not of this fleet"),
    ],
)
def test_a_certificate_tells_fleet_and_name_of_what_is_silent(
    tmp_path: Path, issuer: str, machine: str | None, why: str
) -> None:
    fleets = {name: Authority(tmp_path / name) for name in ("own", "other")}
    files = fleets[issuer].issue("arm2")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    ca = base64.b64encode((tmp_path / "own/ca.pem").read_bytes()).decode()
    with server(context) as endpoint:
        assert why_silent(endpoint, Tls(ca, "", ""), machine) == why


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


def test_a_machine_without_a_link_is_asked_for_the_reason_after_a_while() -> None:
    at = f"tls/127.0.0.1:{free_port()}"
    silence = Silence(LinkConfig("flow", "arm3", connect=[at], connect_to=["arm1"]))
    silence.ask(["arm1", "arm2"], 0.0)
    silence.ask(["arm1", "arm2"], PATIENCE_S - 0.1)
    assert not silence.asking
    silence.ask(["arm1", "arm2"], PATIENCE_S)
    wait_until(lambda: not silence.asking)
    assert silence.reason("arm1") == f"at {at}: nothing answers there: Connection refused"
    assert not silence.reason("arm2"), "it connects by itself, if at all"
    greeting = Greeting("flow", "arm3", 1, "arm1")
    assert greeting.missing
    assert greeting.status(silence.reason("arm1")).reason == (
        f"no link process of arm1 for this dataflow has been seen; {silence.reason('arm1')}"
    )
    silence.ask([], PATIENCE_S + 1)
    assert not silence.reason("arm1")
