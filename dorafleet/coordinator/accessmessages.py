"""What clients and a coordinator send each other about certificates, tokens and revocations."""

from typing import Literal

from msgspec import field

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


class AuthorityRef(Struct):
    """Hand over to the authority that follows, whose folder is on the coordinator's machine."""

    fingerprint: str
    """SHA-256 of its root, in hexadecimal digits."""


class AuthorityFinish(Struct):
    """Trust only the new authority from now on."""

    force: bool = False
    """Also if robots or operators have no certificate of it: they are left behind."""


class AuthorityFinished(Struct):
    """A hand-over that is over."""

    fingerprint: str
    """Of the authority that is trusted now."""
    robots: list[str]
    """Those that were left behind, and must be enrolled again."""
    operators: list[str]
    """Those whose certificates are refused now."""


class AuthorityCancelled(Struct):
    """A hand-over that was cancelled."""

    fingerprint: str
    """Of the authority that stays."""
    robots: list[str]
    """Those that still trust the other one: they are told when they connect."""
    operators: list[str]
    """Those who got a certificate of the other one, which is refused now."""


class AuthorityStatus(Struct):
    """The authority of the fleet, and its last hand-over; without one, the texts are empty."""

    fingerprint: str
    """SHA-256 of the certificate of the authority that the coordinator shows."""
    previous: str = ""
    """That of the authority that hands over, and `next` that of the one that follows."""
    next: str = ""
    begun: float | None = None
    ends: float | None = None
    """When it ends by itself."""
    finished: float | None = None
    """When it ended; null until then."""
    cancelled: float | None = None
    """When it was cancelled instead."""
    waiting: list[str] = field(default_factory=list)
    """Enrolled robots that do not trust the new authority yet."""
    old: list[str] = field(default_factory=list)
    """Enrolled robots without a certificate of the new authority."""
    operators: list[str] = field(default_factory=list)
    """Operators without one; after it was cancelled, those with one, which is refused."""
    trusting: list[str] = field(default_factory=list)
    """Enrolled robots that still trust the new authority after it was cancelled."""


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
AUTHORITY_STATUS = CallMethod(
    "authority.status",
    "viewer",
    Nothing,
    AuthorityStatus,
    "Return the fleet's authority, and how far a hand-over is.",
)
AUTHORITY_HAND_OVER = CallMethod(
    "authority.hand_over",
    "admin",
    AuthorityRef,
    AuthorityStatus,
    "Begin to hand the fleet over to another authority.",
)
AUTHORITY_FINISH = CallMethod(
    "authority.finish",
    "admin",
    AuthorityFinish,
    AuthorityFinished,
    "End a hand-over: only the new authority is trusted.",
    seconds=lambda params: 60.0 if params.force else 0.0,
)
AUTHORITY_CANCEL = CallMethod(
    "authority.cancel",
    "admin",
    Nothing,
    AuthorityCancelled,
    "Cancel a hand-over: only the old authority is trusted.",
)
