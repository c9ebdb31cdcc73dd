"""Which server a command talks to. The rule is a function of data, `choose`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dorad.control.errors import ControlError
from dorad.control.settings import Settings, load, settings_path
from dorad.control.target import COORDINATOR_PORT, Tcp, TlsFiles, UnixSocket, is_here, is_loopback

_log = logging.getLogger(__name__)

SOCKET_VARIABLE = "DORA_SOCKET"
"""Environment variable with the path of the only socket to use."""

AUTHORITY = "authority.pem"
"""Files in the folder of a coordinator. It has the authority only while it listens with TLS."""

OF_MACHINE = Path("/var/lib/dorafleet")
"""The folder of the machine's coordinator."""


class Asked(NamedTuple):
    """What the user asks for, by options or by variables."""

    address: str | None = None
    port: int | None = None
    socket: Path | None = None


class LocalServers(NamedTuple):
    """Where servers of this machine are."""

    user: Path
    """The folder of this user's daemon."""
    machine: Path
    """The folder of the machine's daemon."""
    coordinator: Path
    """The folder of a coordinator on this machine."""
    encrypts: bool = False
    """Whether that coordinator listens with TLS."""
    own: tuple[str, ...] = ()
    """Addresses of this machine beyond loopback, of those that are asked for."""


def choose(
    asked: Asked, settings: Settings | None, local: LocalServers
) -> tuple[UnixSocket | Tcp, ...]:
    """Return the servers to try, in this order; the first that runs is used.

    1. An address is that of a coordinator; several, with commas, are those of a fleet that has
       several, of which one leads.
    2. A port without one is that of this user's daemon with this number, else of a coordinator on
       this machine. 6013 is the number of the usual daemon.
    3. `DORA_SOCKET` is the only daemon.
    4. The user's settings name a coordinator.
    5. This user's daemon, else the machine's.
    """
    if asked.address is not None:
        same = settings is not None and settings.address in (None, asked.address)
        port = asked.port or (settings.port if settings and same else COORDINATOR_PORT)
        return _coordinators(asked.address, port, settings, local)
    if asked.port is not None:
        usual = asked.port == COORDINATOR_PORT
        daemons = _daemons(local) if usual else (_daemon(local.user / str(asked.port)),)
        return (*daemons, _coordinator("127.0.0.1", asked.port, settings, local))
    if asked.socket is not None:
        return (UnixSocket(asked.socket),)
    if settings is not None and settings.address is not None:
        return _coordinators(settings.address, settings.port, settings, local)
    return _daemons(local)


def _daemons(local: LocalServers) -> tuple[UnixSocket, ...]:
    return (_daemon(local.user), _daemon(local.machine))


def _daemon(folder: Path) -> UnixSocket:
    return UnixSocket(folder / "control.sock")


def _coordinators(
    addresses: str, port: int, settings: Settings | None, local: LocalServers
) -> tuple[Tcp, ...]:
    return tuple(_coordinator(host, port, settings, local) for host in _hosts(addresses))


def _hosts(addresses: str) -> list[str]:
    return [host for each in addresses.split(",") if (host := each.strip())]


def _coordinator(host: str, port: int, settings: Settings | None, local: LocalServers) -> Tcp:
    """Return a coordinator, with what the user's settings say about how to reach it."""

    def is_near(host: str) -> bool:
        return is_loopback(host) or (local.encrypts and host in local.own)

    near = is_near(host)
    named = [] if settings is None or settings.address is None else _hosts(settings.address)
    if settings is None or (near and named and not any(map(is_near, named))):
        settings = Settings()  # those for another machine say nothing about this one
    if settings.tls is not None or not near:
        return Tcp(host, port, settings.token, settings.tls)
    own = in_folder(local.coordinator, port, encrypts=local.encrypts)
    return own._replace(host=host, token=settings.token or own.token)


def in_folder(folder: Path, port: int, *, encrypts: bool) -> Tcp:
    """Return the coordinator of this machine that has this folder; `encrypts`: it uses TLS."""
    tls = TlsFiles(folder / AUTHORITY) if encrypts else None
    return Tcp("127.0.0.1", port, token_file(folder), tls)


def encrypts(folder: Path) -> bool:
    """Return True if the coordinator with this folder listens with TLS."""
    try:
        return (folder / AUTHORITY).exists()
    except PermissionError:
        return False


def chosen(settings_file: Path | None = None) -> tuple[UnixSocket | Tcp, ...]:
    """Return the servers to try, as the variables and the settings of the user say.

    Another `settings_file` may stand for that of the user.

    Raises:
        ControlError: the directory of this user's sockets belongs to another user, or a variable
            is invalid.
        DataflowError: the settings have problems.
    """
    path = settings_path() if settings_file is None else settings_file
    settings = None if path is None else load(path)
    asked = _asked()
    addresses = (asked.address, settings and settings.address)
    hosts = [host for each in addresses if each for host in _hosts(each)]
    targets = choose(asked, settings, _local_servers()._replace(own=tuple(filter(is_here, hosts))))
    _log.debug("servers to try: %s", targets)
    return targets


def chosen_daemons() -> tuple[UnixSocket, ...]:
    """Return the daemons of this machine to try, for what concerns this machine only.

    Raises:
        ControlError: as in `chosen`.
    """
    asked = _asked()
    # Beside an address the port is that of a coordinator.
    port = asked.port if asked.address is None else None
    targets = choose(Asked(None, port, asked.socket), None, _local_servers())
    return tuple(each for each in targets if isinstance(each, UnixSocket))


def _asked() -> Asked:
    from dorad.shm.rendezvous import ADDRESS_VARIABLE, coordinator_port

    socket = os.environ.get(SOCKET_VARIABLE)
    try:
        port = coordinator_port()
    except ValueError as error:
        raise ControlError("refused", str(error)) from None
    address = os.environ.get(ADDRESS_VARIABLE, "").strip(", ") or None
    return Asked(address, port, Path(socket) if socket else None)


def _local_servers() -> LocalServers:
    from dorad.shm.rendezvous import SYSTEM_DIR, runtime_dir

    folder = coordinator_folder()
    try:
        return LocalServers(runtime_dir(), SYSTEM_DIR, folder, encrypts(folder))
    except PermissionError as error:
        raise ControlError("refused", str(error)) from None


def server_variables(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that name the server, which options set, with their values."""
    from dorad.shm.rendezvous import ADDRESS_VARIABLE, PORT_VARIABLE

    names = (ADDRESS_VARIABLE, PORT_VARIABLE)
    return tuple((name, environment[name]) for name in names if environment.get(name))


def coordinator_folder() -> Path:
    """Return the folder of the user's own coordinator; without one, that of the machine's."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    own = Path(base, "dorafleet")
    return own if token_file(own).exists() else OF_MACHINE


def token_file(folder: Path) -> Path:
    """Return the file with the token of the coordinator that has this folder."""
    return folder / "token"
