"""Who this robot is in its fleet: its key, its certificate, and the coordinators that it obeys."""

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import LinkTls
from dorad.control.tls import MAX_NAME, is_name

IDENTITY = "identity"
"""The link in the agent's folder."""

DEFAULT_PORT = 6013
MAX_COORDINATORS = 16

_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[A-Za-z0-9_.-]{1,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file `agent.json`."""

    robot: str
    """The id of this robot in its fleet."""
    coordinators: list[str]
    """`host` or `host:port`, the first to try first."""


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a robot gets for its request."""

    robot: str
    coordinators: list[str]
    chain: str
    """Its certificate and those between it and the authority (PEM)."""
    authority: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A robot's place in a fleet."""

    folder: Path
    """The link `identity`, which always leads to the newest files."""
    robot: str
    coordinators: tuple[tuple[str, int], ...]
    """Host and port of each."""
    fleet: str
    """A digest of the fleet's authority and of this enrolment: the terms of coordinators that were
    obeyed before mean nothing."""
    authority: str
    """A digest of the authority that has enrolled this robot; a hand-over does not change it."""

    @property
    def tls(self) -> LinkTls:
        """The files with which this robot proves to a coordinator who it is."""
        return _files(self.folder, "authority.pem")

    @property
    def links(self) -> LinkTls:
        """The same for links to other robots, which trust only what signs robots."""
        return _files(self.folder, "issuer.pem")


def link_files(folder: Path) -> LinkTls:
    """Return where the files for links are if the agent with this folder is enrolled."""
    return _files(folder / IDENTITY, "issuer.pem")


def _files(identity: Path, authority: str) -> LinkTls:
    return LinkTls(
        ca=str(identity / authority),
        certificate=str(identity / "chain.pem"),
        key=str(identity / "key.pem"),
    )


def checked(robot: str, coordinators: list[str]) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Return a robot's id, and the addresses of its coordinators. Raises ControlError."""
    if not is_name(robot):
        raise ControlError("bad-request", f"{robot[:MAX_NAME]!r} is not a valid robot id")
    if not 0 < len(coordinators) <= MAX_COORDINATORS:
        raise ControlError(
            "bad-request",
            f"{len(coordinators)} coordinators are named; 1 to {MAX_COORDINATORS} are possible",
        )
    return robot, tuple(address_of(each) for each in coordinators)


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port`, `[IPv6]` or `[IPv6]:port`.

    Raises:
        ControlError: it has another form.
    """
    match = _ADDRESS.fullmatch(text)
    port = int((match and match["port"]) or DEFAULT_PORT)
    if match is None or not 0 < port < 1 << 16:
        raise ControlError(
            "bad-request",
            f"{text[:300]!r} is not the address of a coordinator",
            "write `host`, `host:port` or `[IPv6 address]:port`",
        )
    return match["v6"] or match["host"], port
