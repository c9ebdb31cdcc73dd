"""Certificates of the simulated robots, signed by the authority of their coordinator."""

import ssl
from collections.abc import Iterable
from pathlib import Path

from dorad.control.tls import Identity, client_context
from dorafleet.ca.authority import open_authority, write_secret
from dorafleet.coordinator.service import CA

AUTHORITY = "authority.pem"


def issue(state: Path, folder: Path, robots: Iterable[str]) -> None:
    """Make the authority in the coordinator's `state`, and a certificate for each robot."""
    state.mkdir(mode=0o700)
    authority = open_authority(state / CA)
    (folder / AUTHORITY).write_text(authority.certificate)
    for name in robots:
        pair = authority.issue_pair(Identity("robot", name))
        write_secret(folder / f"{name}.pem", pair.key + pair.issued.chain)


def context_of(folder: str, robot: str) -> ssl.SSLContext:
    """Return the context with which a robot connects."""
    certificate = Path(folder, f"{robot}.pem")
    return client_context(Path(folder, AUTHORITY), certificate, certificate)
