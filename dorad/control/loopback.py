"""Find the user who listens at a port of loopback, which may not be the coordinator's."""

from __future__ import annotations

import socket
from pathlib import Path

from dorad.control.errors import ControlError

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING = "0A"
_ANY = ("00000000", "0" * 32)


def check_listener(host: str, port: int, user: int) -> None:
    """Check that a port of loopback belongs to a user or to root, before it gets a token.

    `host` is an IP address.

    Raises:
        ControlError: it belongs to another user, or its owner is not known.
    """
    owners = {owner for table in _TABLES for owner in _owners(Path(table), host, port)}
    if not owners or owners - {0, user}:
        whose = f"users {sorted(owners)}" if owners else "an unknown user"
        raise ControlError(
            "refused",
            f"{host} port {port} belongs to {whose}, not to you; the token was not sent",
            "start your own coordinator at another port with `--port`",
        )


def _owners(table: Path, host: str, port: int) -> set[int]:
    """Return the users that listen at a port, at this address or at all of them."""
    try:
        lines = table.read_text().splitlines()[1:]
    except FileNotFoundError:  # a kernel without IPv6
        return set()
    reached = (_as_written(host), *_ANY)
    # Fields: number, local address, remote address, state, queues, timer, retransmissions, user.
    rows = [line.split() for line in lines]
    return {
        int(row[7])
        for row in rows
        if row[3] == _LISTENING and row[1] in [f"{each}:{port:04X}" for each in reached]
    }


def _as_written(host: str) -> str:
    """Return an address as the kernel writes it: words of four bytes, each as a number."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(word[::-1].hex() for word in words).upper()
