"""Connect to the coordinator that a command talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.client import Client


def connect(state: Path, port: int) -> Client:
    """Connect to the coordinator of this machine with its folder and port. Raises ControlError."""
    from dorad.control.client import Client
    from dorad.control.target import Tcp, TlsFiles
    from dorafleet.coordinator.listening import AUTHORITY
    from dorafleet.coordinator.messages import METHODS

    # The coordinator writes it if it listens with TLS.
    authority = state / AUTHORITY
    tls = TlsFiles(authority) if authority.exists() else None
    return Client(Tcp("127.0.0.1", port, state / "token", tls), methods=METHODS)
