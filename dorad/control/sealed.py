"""Seal a value for one robot, so that nothing between the sender and that robot can read it.

It is HPKE (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305. A sealed value is bound to the
robot, the name and the version of its secret: it cannot be passed off as another one.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from dorad.control.errors import ControlError

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_PURPOSE = "dorad secret 1"


class Purpose(NamedTuple):
    """What a value is sealed for."""

    robot: str
    name: str
    version: int


def new_key() -> bytes:
    """Return a new private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(key: bytes) -> str:
    """Return the public key of a private one, as text.

    Raises:
        ControlError: the key is damaged.
    """
    try:
        private = X25519PrivateKey.from_private_bytes(key)
    except ValueError:
        raise ControlError("refused", "the key for secrets is damaged") from None
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def seal(value: bytes, public: str, purpose: Purpose) -> str:
    """Return the value, sealed for the owner of a public key.

    Raises:
        ControlError: it is no public key.
    """
    try:
        key = X25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        sealed = _SUITE.encrypt(value, key, _info(purpose))
    except (ValueError, binascii.Error):
        raise ControlError(
            "refused", f"the key for secrets of {purpose.robot} is not a valid one"
        ) from None
    return base64.b64encode(sealed).decode()


def unseal(sealed: str, key: bytes, purpose: Purpose) -> bytes:
    """Return the value that was sealed for this purpose and the public key of `key`.

    Raises:
        ControlError: it was sealed for another key or purpose, or is damaged.
    """
    try:
        private = X25519PrivateKey.from_private_bytes(key)
        return _SUITE.decrypt(base64.b64decode(sealed, validate=True), private, _info(purpose))
    except (InvalidTag, ValueError, binascii.Error):
        raise ControlError(
            "refused",
            f"secret {purpose.name} cannot be unsealed: it is damaged, or sealed for another robot,"
            " another key, another name or another version",
            f"`dorafleet secret set {purpose.name}` seals it again",
        ) from None


def _info(purpose: Purpose) -> bytes:
    return msgspec.json.encode([_PURPOSE, *purpose])
