"""Connect to the coordinator that a command talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.coordinator.files import AUTHORITY, TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.client import Client


def serves_tls(state: Path) -> bool:
    """Return True if the coordinator with this folder listens with TLS."""
    return (state / AUTHORITY).exists()


def connect(state: Path, port: int) -> Client:
    """Connect to the coordinator of this machine with its folder and port. Raises ControlError."""
    from dorad.control.client import Client
    from dorad.control.target import Tcp, TlsFiles
    from dorafleet.coordinator.messages import METHODS

    tls = TlsFiles(state / AUTHORITY) if serves_tls(state) else None
    return Client(Tcp("127.0.0.1", port, state / TOKEN, tls), methods=METHODS)
