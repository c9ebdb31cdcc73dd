"""A hand-over: the authority that a robot trusts has signed the one that follows it.

The signature is a certificate of the new root's key by the old root. It names both roots in a URI,
so no other certificate that a root signs is one, and it ends on a day. What a robot trusts then is
in the files of its identity: `after` and `ended` return those that come next.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dorad.agent import keys
from dorad.agent.folder import FIRST, HAND_OVER, decode
from dorad.control.errors import ControlError
from dorad.control.messages.agent import HandOver, Trust
from dorad.control.tls import HAND_OVER as HAND_OVER_URI

MAX_DAYS = 400
"""For which a hand-over may be valid."""

_CURVES = (ec.SECP256R1, ec.SECP384R1)
_ENROL = "only an enrolment changes the authority then: `dorafleet enrol CLUSTER.yml ROBOT --again`"


_log = logging.getLogger(__name__)

Files = dict[str, bytes]
"""The files of an identity by their names."""


class Ends(NamedTuple):
    """The dates of a hand-over, in seconds since 1970."""

    begun: float
    ends: float


def after(files: Mapping[str, bytes], order: HandOver, now: float) -> Files:
    """Return the files of an identity after an order: to trust two authorities, or one again.

    Beside the present authority one is trusted that it has signed. With `finished` the present one
    is dropped, once this robot has a certificate of the other; with `cancelled` the other one is,
    while it has none.

    Raises:
        ControlError: `order` is refused; see `check`.
    """
    trusted = _text(files, "authority.pem")
    known = keys.is_among(order.root, trusted)
    begun = _begun(files)
    if order.cancelled:
        of_this = known and begun is not None and keys.is_among(order.root, begun.root)
        return _without_new(files) if of_this else dict(files)
    if known:
        of_this = begun is not None and keys.is_among(order.root, begun.root)
        return _without_old(files) if order.finished and of_this else dict(files)
    if begun is not None and not _has_new_chain(files, begun):
        # That one was cancelled while this robot was away. What stays is what its certificate is
        # of: it is locked out otherwise.
        files = _without_new(files)
    return _with_new(files, order, now)


def ended(files: Mapping[str, bytes], now: float) -> Files:
    """Return the files once a hand-over has ended by this robot's clock: without the old authority.

    Without a certificate of the new one nothing is dropped: the robot would have none.
    """
    begun = _begun(files)
    if begun is None or now <= end_of(begun.signature) or not _has_new_chain(files, begun):
        return dict(files)
    _log.warning("the hand-over of the authority has ended by this robot's clock")
    return _without_old(files)


def trust_in(files: Mapping[str, bytes]) -> Trust:
    """Return which authorities an identity trusts. Raises ControlError."""
    trusted = _text(files, "authority.pem")
    certified = keys.leads_to(_text(files, "chain.pem"), keys.newest_of(trusted))
    return Trust(trusted=fingerprints(trusted), certified=certified)


def _with_new(files: Mapping[str, bytes], order: HandOver, now: float) -> Files:
    """Trust the authority of an order beside the newest. Raises ControlError."""
    trusted = _text(files, "authority.pem")
    newest = keys.newest_of(trusted)
    dates = check(newest, order.root, order.issuer, order.signature, now)
    _log.warning(
        "the authority %.16s has handed over to %.16s; both are trusted until %s",
        *fingerprints(newest + order.root),
        time.strftime("%Y-%m-%d", time.localtime(dates.ends)),
    )
    issuer = keys.newest_of(_text(files, "issuer.pem"))
    # As this robot writes them, without what a text may have around a certificate.
    root, own_issuer = map(keys.newest_of, (order.root, order.issuer))
    stored = HandOver(root=root, issuer=own_issuer, signature=order.signature)
    return {
        FIRST: trusted.encode(),
        **files,
        "authority.pem": (newest + root).encode(),
        "issuer.pem": (issuer + own_issuer).encode(),
        HAND_OVER: msgspec.json.encode(stored),
    }


def _without_old(files: Mapping[str, bytes]) -> Files:
    """Trust only the new authority of a hand-over. Raises ControlError."""
    order = decode(files[HAND_OVER], HandOver, HAND_OVER)
    if not _has_new_chain(files, order):
        raise ControlError(
            "refused",
            "the hand-over cannot end: this robot has no certificate of the new authority yet",
            "it gets one over its connection to the coordinator",
        )
    _log.warning("this robot trusts only the new authority now")
    return _with_only(files, order.root, order.issuer)


def _without_new(files: Mapping[str, bytes]) -> Files:
    """Trust only the old authority of a hand-over again. Raises ControlError."""
    order = decode(files[HAND_OVER], HandOver, HAND_OVER)
    if _has_new_chain(files, order):
        raise ControlError(
            "refused",
            "the hand-over cannot be cancelled: this robot has a certificate of the new authority",
            "finish the hand-over: `dorafleet authority finish`",
        )
    _log.warning("the hand-over was cancelled: this robot trusts only the old authority again")
    old, issuer = (keys.oldest_of(_text(files, name)) for name in ("authority.pem", "issuer.pem"))
    return _with_only(files, old, issuer)


def _with_only(files: Mapping[str, bytes], root: str, issuer: str) -> Files:
    left = {name: content for name, content in files.items() if name != HAND_OVER}
    return left | {"authority.pem": root.encode(), "issuer.pem": issuer.encode()}


def _begun(files: Mapping[str, bytes]) -> HandOver | None:
    """Return the hand-over that has begun and not ended. Raises ControlError."""
    return decode(files[HAND_OVER], HandOver, HAND_OVER) if HAND_OVER in files else None


def _has_new_chain(files: Mapping[str, bytes], order: HandOver) -> bool:
    return keys.leads_to(_text(files, "chain.pem"), order.root)


def _text(files: Mapping[str, bytes], name: str) -> str:
    return files[name].decode("ascii")


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
        if not keys.is_signed(certificate, by):
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
    return f"{HAND_OVER_URI}{fingerprint(old)}/{fingerprint(new)}"


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in hexadecimal digits."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def fingerprints(text: str) -> list[str]:
    """Return those of all certificates in a text (PEM), in their order. Raises ControlError."""
    return [fingerprint(each) for each in keys.load(text, "the authority")]


def end_of(signature: str) -> float:
    """Return when a hand-over ends, in seconds since 1970. Raises ControlError."""
    return _seconds(_only(signature, "the signature").not_valid_after_utc)


def _check_signs(certificate: x509.Certificate, below: int) -> None:
    """Check that a certificate may sign others, with so many such certificates under it."""
    try:
        extensions = certificate.extensions
        limits = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
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
    certificates = keys.load(text, what)
    if len(certificates) != 1:
        raise ControlError(
            "bad-request", f"{what} has {len(certificates)} certificates instead of one"
        )
    return certificates[0]


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _refused(why: str, hint: str = _ENROL) -> ControlError:
    return ControlError("refused", f"the hand-over to another authority is refused: {why}", hint)
