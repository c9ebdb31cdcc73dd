"""The address that a coordinator listens at, and its certificate."""

import errno
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import psutil

from dorad.control.choosing import AUTHORITY
from dorad.control.errors import ControlError
from dorad.control.tls import Identity, server_context
from dorafleet.ca.authority import Authority, write_secret
from dorafleet.coordinator.gate import GatedSocket
from dorafleet.inventory.model import Address

CERTIFICATE = "coordinator.pem"
"""The coordinator's own key and certificate."""

MAX_RECORD = 16 << 10
"""Bytes of the largest record of TLS."""

_BIND_HINTS = {
    errno.EADDRINUSE: "is another coordinator running? choose another port with `--port`",
    errno.EADDRNOTAVAIL: "this machine does not have this address; `ip address` lists those it has",
    errno.EACCES: "choose a port from 1024 on with `--port`",
}


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen."""

    address: Address
    port: int
    tls: bool
    advertised: Address
    """The port at which robots find the coordinator."""


def listen_at(text: str, port: int, advertised: Address, *, tls: bool) -> Listen:
    """Return where to listen: with TLS if asked for, and at every address beyond loopback.

    Raises:
        ControlError: `text` is not an IP address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise ControlError(
            "refused", f"`{text}` is not an IP address", "such as 127.0.0.1, or 0.0.0.0 for all"
        ) from None
    return Listen(address, port, tls or not address.is_loopback, advertised)


def bind(address: Address, port: int, waiting: int) -> GatedSocket:
    """Return a socket that is bound to a port, and not listening yet. Raises ControlError.

    At most `waiting` connections wait for their handshake.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = GatedSocket(family, waiting=waiting)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
    except OSError as error:
        sock.close()
        raise ControlError(
            "refused",
            f"{address} port {port} cannot be used: {error.strerror}",
            _BIND_HINTS.get(error.errno or 0),
        ) from None
    return sock


class TlsServer:
    """The TLS of a server whose certificate and authorities change while it listens."""

    def __init__(self, folder: Path, name: str, addresses: Iterable[Address]) -> None:
        """`folder` gets the files; `name` and `addresses` are those of the coordinator."""
        self._folder = folder
        self._name = name
        self._addresses = list(addresses)
        self._current: ssl.SSLContext | None = None

    def use(self, authority: Authority, trusted: str) -> ssl.SSLContext:
        """Show a new certificate of an authority from now on; `trusted` sign those of clients.

        Return the context. The server keeps the first one, which gives new connections the last.

        Raises:
            ControlError: a file cannot be written.
        """
        context = make_context(self._folder, authority, self._name, self._addresses, trusted)
        context.sni_callback = self._switch
        self._current = context
        return context

    def _switch(self, connection: ssl.SSLObject, _name: str | None, _of: ssl.SSLContext) -> None:
        """Give a connection the last context. OpenSSL calls this before it uses the context."""
        if self._current is not None and connection.context is not self._current:
            connection.context = self._current


def make_context(
    folder: Path,
    authority: Authority,
    name: str,
    addresses: Iterable[Address],
    trusted: str | None = None,
) -> ssl.SSLContext:
    """Make a new key and certificate of the coordinator, and return the context of its server.

    `trusted` are the certificates (PEM) of the authorities of clients, by default that one.

    From then on, each TLS connection of this process has a small buffer.

    Raises:
        ControlError: a file cannot be written.
    """
    pair = authority.issue_pair(Identity("coordinator", name), addresses=addresses)
    try:
        write_secret(folder / CERTIFICATE, pair.key + pair.issued.chain)
        write_secret(folder / AUTHORITY, trusted or authority.certificate)
    except OSError as error:
        raise ControlError("refused", f"{folder} cannot be written: {error.strerror}") from None
    # For each connection asyncio would keep a buffer of 256 KiB: most of a coordinator's memory.
    SSLProtocol.max_size = MAX_RECORD
    return server_context(folder / CERTIFICATE, folder / CERTIFICATE, folder / AUTHORITY)


def reachable_at(listen: Address, advertised: Address) -> list[Address]:
    """Return the addresses at which clients may find a server that listens at one."""
    if not listen.is_unspecified:
        return list(dict.fromkeys((listen, advertised)))
    families = {socket.AF_INET, socket.AF_INET6}
    addresses = [
        ip_address(each.address.partition("%")[0])
        for interface in psutil.net_if_addrs().values()
        for each in interface
        if each.family in families
    ]
    if isinstance(listen, IPv4Address):
        addresses = [address for address in addresses if address.version == 4]
    return list(dict.fromkeys((*addresses, advertised)))
