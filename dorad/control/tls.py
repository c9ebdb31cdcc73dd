"""TLS between the machines of a fleet: contexts, the owner of a certificate, and its dates.

A robot's clock may be wrong, so no handshake compares dates; `judge` does it afterwards, where the
clock is right. Zenoh compares them in any case: so a certificate's own dates leave room for every
clock, and a URI in it has those that count. Another URI names its owner; addresses would change.
"""

from __future__ import annotations

import ssl
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME; Python has no name for it."""

GRACE_S = 90 * 86400.0
"""Seconds after its end during which a certificate can still be renewed."""

MAX_NAME = 200
"""Characters of an owner's name."""

NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "_.-")
_SCHEME = "dorad:"
VALID = f"{_SCHEME}valid/"
"""How the URI with a certificate's dates begins: `dorad:valid/1700000000/1731536000`."""

HAND_OVER = f"{_SCHEME}hand-over/"
"""How the URI begins with which a root signs the one that follows it; both fingerprints follow."""

Kind = Literal["robot", "operator", "coordinator"]
Role = Literal["viewer", "operator", "admin"]
Verdict = Literal["valid", "renew", "expired", "too-old"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate names; `str()` is the URI in it."""

    kind: Kind
    name: str
    role: Role | None = None
    """Only of an operator."""

    def __str__(self) -> str:
        parts = (self.kind, self.name) if self.role is None else (self.kind, self.name, self.role)
        return _SCHEME + "/".join(parts)

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """Return the owner in a URI such as `dorad:robot/arm1`. Raises ValueError."""
        kind, *rest = uri.removeprefix(_SCHEME).split("/")
        if not uri.startswith(_SCHEME) or not rest or not is_name(rest[0]):
            raise ValueError(f"`{uri[:MAX_NAME]}` names no robot, operator or coordinator")
        if kind == "operator" and len(rest) == 2 and rest[1] in get_args(Role):
            return cls("operator", rest[0], cast("Role", rest[1]))
        if kind in {"robot", "coordinator"} and len(rest) == 1:
            return cls(cast("Kind", kind), rest[0])
        raise ValueError(f"`{uri[:MAX_NAME]}` names no robot, operator or coordinator")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What matters of a certificate. Dates are whole seconds since 1970."""

    identity: Identity
    serial: int
    not_before: int
    not_after: int

    @property
    def uris(self) -> tuple[str, str]:
        """The owner and the dates as URIs."""
        return str(self.identity), f"{VALID}{self.not_before}/{self.not_after}"


@dataclass(frozen=True, slots=True)
class Validity:
    """How a certificate's dates compare with now."""

    verdict: Verdict
    """`renew`: good, but a third of its life is over. `expired`: good only for a renewal."""
    days: int = 0
    """Since its end."""


def is_name(text: str) -> bool:
    """Return True if robots and operators can have this name."""
    return 0 < len(text) <= MAX_NAME and NAME_CHARACTERS.issuperset(text)


def judge(not_before: float, not_after: float, now: float) -> Validity:
    """Return whether a certificate is good at `now`, by a clock that is right.

    One that begins in the future is good: its signer's clock was wrong, or was set back since.
    """
    if now > not_after + GRACE_S:
        return Validity("too-old", int((now - not_after) // 86400))
    if now > not_after:
        return Validity("expired", int((now - not_after) // 86400))
    if now > not_before + (not_after - not_before) / 3:
        return Validity("renew")
    return Validity("valid")


def server_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """Return the context of a server that asks for, but does not require, a certificate.

    `certificate` has the intermediates, too; `authority` signs those of clients.

    Raises:
        ControlError: a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, authority)
    # Clients without one send a token. One that is signed by another authority is refused.
    context.verify_mode = ssl.CERT_OPTIONAL
    _load(context, certificate, key)
    # No tickets: a resumed session would not show the certificate again, and each costs memory.
    context.num_tickets = 0
    return context


def client_context(
    authority: Path, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return the context of a client; call `check_coordinator` after each handshake.

    Raises:
        ControlError: a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, authority)
    if certificate is not None:
        _load(context, certificate, key)
    return context


def certificate_of(connection: ssl.SSLObject | ssl.SSLSocket | None) -> Certificate | None:
    """Return the verified certificate that the peer has shown, None if it has shown none.

    Raises:
        ControlError: it names no owner.
    """
    certificate = None if connection is None else connection.getpeercert()
    return _read(certificate) if certificate else None


def check_coordinator(connection: ssl.SSLObject | ssl.SSLSocket | None) -> Identity:
    """Return the coordinator that a client has connected to.

    Raises:
        ControlError: the certificate does not belong to a coordinator.
    """
    theirs = certificate_of(connection)
    if theirs is None or theirs.identity.kind != "coordinator":
        whose = "no certificate" if theirs is None else f"the certificate of {theirs.identity}"
        raise ControlError("refused", f"the server shows {whose}, not that of a coordinator")
    return theirs.identity


def _context(protocol: int, authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_flags |= NO_CHECK_TIME
    try:
        context.load_verify_locations(authority)
    except OSError as error:  # ssl.SSLError, too
        raise _unusable(f"the fleet's authority in {authority}", error) from None
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        # The password: without one OpenSSL would ask at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise _unusable(f"{certificate}, or its key {key or certificate},", error) from None


def _unusable(what: str, error: OSError) -> ControlError:
    return ControlError("refused", f"{what} cannot be used: {error.strerror or error}")


def _read(fields: Mapping[str, Any]) -> Certificate:
    uris = [name for kind, name in fields.get("subjectAltName", ()) if kind == "URI"]
    owners = [uri for uri in uris if not uri.startswith(VALID)]
    dates = [uri for uri in uris if uri.startswith(VALID)]
    if len(owners) != 1 or len(dates) != 1:
        raise ControlError("refused", "the certificate does not name its owner and its dates")
    try:
        not_before, not_after = map(int, dates[0].removeprefix(VALID).split("/"))
        serial = int(fields["serialNumber"], 16)
        return Certificate(Identity.parse(owners[0]), serial, not_before, not_after)
    except ValueError as error:
        raise ControlError("refused", f"the certificate cannot be used: {error}") from None
