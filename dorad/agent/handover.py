"""A hand-over: the authority that a robot trusts has signed the one that follows it.

The signature is a certificate of the new root's key by the old root. It names both roots in a URI,
so no other certificate that a root signs is one, and it ends on a day.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dorad.agent.keys import is_signed, load
from dorad.control.errors import ControlError
from dorad.control.tls import HAND_OVER

if TYPE_CHECKING:
    from datetime import datetime

MAX_DAYS = 400
"""For which a hand-over may be valid."""

_CURVES = (ec.SECP256R1, ec.SECP384R1)
_ENROL = "only an enrolment changes the authority then: `dorafleet enrol CLUSTER.yml ROBOT --again`"


class Ends(NamedTuple):
    """The dates of a hand-over, in seconds since 1970."""

    begun: float
    ends: float


def check(trusted: str, root: str, issuer: str, signature: str, now: float) -> Ends:
    """Check a hand-over from the root that is trusted to another one; return its dates.

    All are certificates (PEM): `issuer` is what the new root has signed to sign for robots,
    `signature` that of the new root by the trusted one. A clock from before the hand-over is
    accepted: that of a robot may be behind.

    Raises:
        ControlError: it is refused; the message names the reason.
    """
    old, new = _only(trusted, "the trusted authority"), _only(root, "the new authority")
    signed, signer = _only(signature, "the signature"), _only(issuer, "the new issuer")
    for certificate, by in ((signed, old), (new, new), (signer, new)):
        if not is_signed(certificate, by):
            raise _refused(
                "the authority that this robot trusts has not signed it"
                if by is old
                else "the new authority has not signed its own certificates"
            )
    if (signed.subject, signed.public_key()) != (new.subject, new.public_key()):
        raise _refused("what is signed is another authority than the new one")
    for certificate, below in ((signed, 1), (new, 1), (signer, 0)):
        _check_signs(certificate, below)
    if hand_over_uri(old, new) not in _uris(signed):
        raise _refused("it does not name this fleet's authority and the new one")
    begun, ends = _seconds(signed.not_valid_before_utc), _seconds(signed.not_valid_after_utc)
    if not 0 < ends - begun <= MAX_DAYS * 86400:
        raise _refused(f"it is valid for more than {MAX_DAYS} days")
    if now > ends:
        raise _refused(
            f"it ended on {signed.not_valid_after_utc:%Y-%m-%d}, by this machine's clock",
            f"if that clock is right, {_ENROL}",
        )
    return Ends(begun, ends)


def hand_over_uri(old: x509.Certificate, new: x509.Certificate) -> str:
    """Return the URI that names both roots."""
    return f"{HAND_OVER}{fingerprint(old)}/{fingerprint(new)}"


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in hexadecimal digits."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def fingerprints(text: str) -> list[str]:
    """Return those of all certificates in a text (PEM), in their order. Raises ControlError."""
    return [fingerprint(each) for each in load(text, "the authority")]


def end_of(signature: str) -> float:
    """Return when a hand-over ends, in seconds since 1970. Raises ControlError."""
    return _seconds(_only(signature, "the signature").not_valid_after_utc)


def _check_signs(certificate: x509.Certificate, below: int) -> None:
    """Check that a certificate may sign others, with so many such certificates under it."""
    try:
        found = certificate.extensions
        limits = found.get_extension_for_class(x509.BasicConstraints).value
        usage = found.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise _refused("a certificate of it does not say what it may sign") from None
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise _refused("a key of it is not of the curve P-256 or P-384")
    if not limits.ca or limits.path_length != below or not usage.key_cert_sign:
        raise _refused("a certificate of it may not sign what it is for")


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return []


def _only(text: str, what: str) -> x509.Certificate:
    found = load(text, what)
    if len(found) != 1:
        raise ControlError("bad-request", f"{what} has {len(found)} certificates instead of one")
    return found[0]


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _refused(why: str, hint: str = _ENROL) -> ControlError:
    return ControlError("refused", f"the hand-over to another authority is refused: {why}", hint)
