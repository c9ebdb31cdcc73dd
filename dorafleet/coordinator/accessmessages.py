"""What clients and a coordinator send each other about certificates, tokens and revocations."""

from __future__ import annotations

from typing import Literal

from dorad.control.messages import CallMethod, Nothing, Struct
from dorad.control.tls import Role
from dorad.int64 import Int64


class EnrolRef(Struct):
    """Selects a robot to enrol."""

    robot: str


class EnrolToken(Struct):
    """A token with which one robot can get one certificate."""

    token: str
    expires: float
    authority: str
    """Certificate of the fleet's authority (PEM)."""
    fingerprint: str
    """SHA-256 of that certificate, in hexadecimal digits."""


class TokenCreate(Struct):
    """Make a token for a client."""

    name: str
    """Of its owner, for the audit and for `access.revoke`."""
    role: Role
    days: Int64


class Token(Struct):
    """A new token. The coordinator keeps only its hash."""

    token: str
    expires: float


class OperatorAdd(Struct):
    """Make a key and a certificate for an operator."""

    name: str
    role: Role
    days: Int64 = 365


class Bundle(Struct):
    """Everything that an operator needs to connect."""

    pem: str
    """The key, the certificate with its issuer, and the fleet's authority."""
    expires: float


Kind = Literal["robot", "operator", "token"]


class Revoke(Struct):
    """Revoke the certificates of a robot or an operator, or a token."""

    kind: Kind
    name: str


class Revoked(Struct):
    """A revocation that is on the disk."""

    certificates: Int64
    """Number of certificates that are refused now."""
    connections: Int64
    """Number of open connections that were closed."""


class Grant(Struct):
    """A robot, an operator or a token that may connect, or was revoked."""

    kind: Kind
    name: str
    role: Role | None
    """None of a robot."""
    expires: float
    revoked: bool = False


class GrantList(Struct):
    """All grants, sorted by kind and name."""

    grants: list[Grant]


ENROL_TOKEN = CallMethod(
    "enrol.token", "admin", EnrolRef, EnrolToken, "Make a token for the enrolment of one robot."
)
TOKEN_CREATE = CallMethod("token.create", "admin", TokenCreate, Token, "Make a token for a client.")
OPERATOR_ADD = CallMethod(
    "operator.add", "admin", OperatorAdd, Bundle, "Make a certificate for an operator."
)
ACCESS_REVOKE = CallMethod(
    "access.revoke", "admin", Revoke, Revoked, "Refuse a robot, an operator or a token."
)
ACCESS_LIST = CallMethod("access.list", "admin", Nothing, GrantList, "List who may connect.")
