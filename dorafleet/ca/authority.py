"""The authority of a fleet: its root signs an issuer, and the issuer signs everybody's certificate.

Only another issuer would need the root's key: once the folder has one, `root.key` may be moved to a
place without a network.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dorad.control.errors import ControlError
from dorad.control.tls import Certificate, Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorafleet.inventory.model import Address

ROOT, ROOT_KEY = "root.pem", "root.key"
ISSUER, ISSUER_KEY = "issuer.pem", "issuer.key"

DAYS = 365
"""For which a certificate is good."""

ROOT_DAYS, ISSUER_DAYS = 365 * 50, 365 * 20
BACKDATED = datetime.timedelta(hours=1)
"""For programs that do compare dates, with a clock that is a little slow."""

MAX_CSR = 16 << 10
_CURVES = (ec.SECP256R1, ec.SECP384R1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate."""

    chain: str
    """The certificate and its issuer (PEM)."""
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Pair:
    """A new certificate with the key that was made for it."""

    issued: Issued
    key: str
    """PEM, not encrypted."""


class Authority:
    """Signs certificates with the key of the issuer. `open_authority` makes it."""

    def __init__(
        self, root: x509.Certificate, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self._issuer = issuer
        self._key = key
        self.certificate = _pem(root)
        """The root's certificate (PEM), which everybody in the fleet trusts."""
        self.fingerprint = fingerprint(root)
        """SHA-256 of the root's certificate, in hexadecimal digits."""

    def issue(self, csr: str, identity: Identity, *, days: int = DAYS) -> Issued:
        """Sign a certificate of `identity` for the key in a request, and use nothing else of it.

        Raises:
            ControlError: it is not a request, or its key is not one that is accepted.
        """
        return self._sign(_key_in(csr), identity, days, ())

    def issue_pair(
        self, identity: Identity, *, days: int = DAYS, addresses: Iterable[Address] = ()
    ) -> Pair:
        """Make a key, and sign a certificate for it; `addresses` are those of a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Pair(self._sign(key.public_key(), identity, days, addresses), _key_pem(key))

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        identity: Identity,
        days: int,
        addresses: Iterable[Address],
    ) -> Issued:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
        names += [x509.IPAddress(address) for address in addresses]
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.kind != "operator":
            # A robot is a server to the links of other robots.
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = _builder(_name(identity.name), self._issuer.subject, key, days)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        signed = builder.sign(self._key, hashes.SHA256())
        found = Certificate(
            identity,
            signed.serial_number,
            signed.not_valid_before_utc.timestamp(),
            signed.not_valid_after_utc.timestamp(),
        )
        _log.info("issued %s, serial %x, for %d days", identity, found.serial, days)
        return Issued(_pem(signed) + _pem(self._issuer), found)


def open_authority(folder: Path) -> Authority:
    """Open the authority in a folder; make one if there is no such folder.

    Raises:
        ControlError: a file is missing, damaged, or may be used by others.
    """
    if not folder.exists():
        _make(folder)
    root = _read_certificate(folder / ROOT)
    issuer = _read_certificate(folder / ISSUER)
    key = _read_key(folder / ISSUER_KEY)
    try:
        issuer.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise ControlError(
            "refused", f"{folder / ISSUER} is not signed by {folder / ROOT}", "restore the folder"
        ) from None
    if key.public_key() != issuer.public_key():
        raise ControlError(
            "refused", f"{folder / ISSUER_KEY} is not the key of {ISSUER}", "restore the folder"
        )
    _log.debug("the authority in %s has the fingerprint %s", folder, fingerprint(root))
    return Authority(root, issuer, key)


def fingerprint(root: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in hexadecimal digits."""
    return hashlib.sha256(root.public_bytes(serialization.Encoding.DER)).hexdigest()


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user can read; it is whole on the disk, or as it was."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:  # mode 0600
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _make(folder: Path) -> None:
    """Make a root and its issuer, all files at once or none."""
    root_key, issuer_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # Two fleets of one operator must not have roots of the same name.
    name = f"dorad fleet {os.urandom(4).hex()}"
    root_name, issuer_name = _name(name), _name(f"{name} issuer")
    root = _signing(root_name, root_name, root_key.public_key(), ROOT_DAYS, 1)
    issuer = _signing(issuer_name, root_name, issuer_key.public_key(), ISSUER_DAYS, 0)
    issuer = issuer.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
    )
    content = {
        ROOT: _pem(root.sign(root_key, hashes.SHA256())),
        ROOT_KEY: _key_pem(root_key),
        ISSUER: _pem(issuer.sign(root_key, hashes.SHA256())),
        ISSUER_KEY: _key_pem(issuer_key),
    }
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # mode 0700
        try:
            for file, text in content.items():
                write_secret(made / file, text)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise ControlError("refused", f"{folder} cannot be made: {error.strerror}") from None
    _log.info("made the fleet's authority in %s; %s may be kept elsewhere", folder, ROOT_KEY)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.fromtimestamp(int(time.time()), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signing(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, below: int
) -> x509.CertificateBuilder:
    """Return a certificate that may sign others, with `below` such certificates under it."""
    return (
        _builder(subject, issuer, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    # A common name has at most 64 characters; the whole name is in the URI.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _key_in(csr: str) -> ec.EllipticCurvePublicKey:
    """Return the key of a request whose sender has proved to own it. Raises ControlError."""
    if len(csr) > MAX_CSR:
        raise ControlError("bad-request", f"the request for a certificate exceeds {MAX_CSR} bytes")
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        accepted = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
        # The kind first: checking the signature of a huge RSA key would take long.
        if accepted and request.is_signature_valid:
            assert isinstance(key, ec.EllipticCurvePublicKey)
            return key
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ControlError(
            "bad-request", f"this is not a request for a certificate: {error}"
        ) from None
    what = "its signature is wrong" if accepted else "its key is not of the curve P-256 or P-384"
    raise ControlError("bad-request", f"the request for a certificate is refused: {what}")


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from None
    except ValueError:
        raise _unusable(path, "it is not a certificate") from None


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        found = path.stat()
        if found.st_mode & 0o077 or found.st_uid != os.geteuid():
            raise _unusable(path, "others may read it")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unusable(path, "it is not a key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path, "it is not a key of an elliptic curve")
    return key


def _unusable(path: Path, reason: str) -> ControlError:
    return ControlError(
        "refused", f"the fleet's authority cannot be used: {path}: {reason}", "restore the folder"
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
