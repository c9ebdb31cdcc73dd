"""The authority of a fleet: its root signs two issuers, and these sign all other certificates.

One signs for robots and coordinators, the other one for operators: links between robots trust only
the first, so no operator can pose as a robot there. Only another issuer would need the root's key:
once the folder has both, `root.key` may be moved to a place without a network.

The dates of all certificates leave room for every clock, see `dorad.control.tls`.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dorad.agent.handover import fingerprint
from dorad.agent.keys import is_signed
from dorad.atomicfile import atomic_file, temporary_folder
from dorad.control.errors import ControlError
from dorad.control.privatefile import check_private
from dorad.control.tls import Certificate, Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from dorafleet.inventory.model import Address

ROOT, ROOT_KEY = "root.pem", "root.key"
ISSUER, OPERATORS = "issuer", "operators"
"""Names of the issuers; the files of each are `.pem` and `.key`."""

SHORT = 16
"""Digits of a fingerprint in a message, and in the name of a folder."""

DAYS = 365
"""For which a certificate is good."""

Dates = tuple[datetime.datetime, datetime.datetime]

_DAY_S = 86400
_ALWAYS = (
    datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC),
)

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


@dataclass(frozen=True, slots=True)
class Issuer:
    """What signs certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Authority:
    """Signs certificates with the key of an issuer. `open_authority` makes it."""

    def __init__(self, root: x509.Certificate, issuer: Issuer, operators: Issuer) -> None:
        """`operators` signs the certificates of operators, `issuer` all others."""
        self._issuer = issuer
        self._operators = operators
        self.certificate = pem(root)
        """The root's certificate (PEM), which all of the fleet trust."""
        self.issuer = pem(issuer.certificate)
        """The certificate (PEM) of what signs for robots, which links trust."""
        self.fingerprint = fingerprint(root)
        """SHA-256 of the root's certificate, in hexadecimal digits."""

    def has_signed(self, certificate: bytes) -> bool:
        """Return True if one of the issuers has signed a certificate (DER)."""
        loaded = x509.load_der_x509_certificate(certificate)
        return any(is_signed(loaded, by.certificate) for by in (self._issuer, self._operators))

    def issue(self, csr: str, identity: Identity) -> Issued:
        """Sign a certificate of `identity` for the key in a request, and use nothing else of it.

        Raises:
            ControlError: it is not a request, or its key is not one that is accepted.
        """
        return self._sign(_key_in(csr), identity, DAYS, ())

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
        issuer = self._operators if identity.kind == "operator" else self._issuer
        now = int(time.time())
        issued = Certificate(identity, x509.random_serial_number(), now, now + days * _DAY_S)
        names: list[x509.GeneralName] = [*map(x509.UniformResourceIdentifier, issued.uris)]
        names += [x509.IPAddress(address) for address in addresses]
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.kind != "operator":
            # A robot is a server to the links of other robots.
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = _builder(_name(identity.name), issuer.certificate.subject, key, issued.serial)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
                critical=False,
            )
        )
        signed = builder.sign(issuer.key, hashes.SHA256())
        _log.info("issued %s, serial %x, for %d days", identity, issued.serial, days)
        return Issued(pem(signed) + pem(issuer.certificate), issued)


def open_authority(folder: Path) -> Authority:
    """Open the authority in a folder; make one if there is no such folder.

    Raises:
        ControlError: a file is missing, damaged, or may be used by others.
    """
    if not folder.exists():
        make_files(folder)
    root = read_certificate(folder / ROOT)
    _log.debug("the authority in %s has the fingerprint %s", folder, fingerprint(root))
    return Authority(
        root, _open_issuer(folder, ISSUER, root), _open_issuer(folder, OPERATORS, root)
    )


def _open_issuer(folder: Path, name: str, root: x509.Certificate) -> Issuer:
    path = folder / f"{name}.pem"
    certificate = read_certificate(path)
    key = read_key(path.with_suffix(".key"))
    if not is_signed(certificate, root):
        raise ControlError(
            "refused", f"{path} is not signed by {folder / ROOT}", "restore the folder"
        )
    if key.public_key() != certificate.public_key():
        raise ControlError(
            "refused",
            f"{path.with_suffix('.key')} is not the key of {path.name}",
            "restore the folder",
        )
    return Issuer(certificate, key)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user can read, as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(text.encode())


def find_folder(folder: Path, wanted: str) -> Path | None:
    """Return the folder with the authority of this fingerprint, None if there is none.

    The first authority of a fleet is in `folder`, each that followed by a hand-over in a folder of
    its own there, whose name begins its fingerprint.

    Raises:
        ControlError: a root is damaged.
    """
    for each in (folder / wanted[:SHORT], folder):
        if (each / ROOT).exists() and fingerprint_in(each) == wanted:
            return each
    return None


def fingerprint_in(folder: Path) -> str:
    """Return the fingerprint of the authority in a folder. Raises ControlError."""
    return fingerprint(read_certificate(folder / ROOT))


def make_files(
    folder: Path, more: Callable[[x509.Certificate], Mapping[str, str]] | None = None
) -> None:
    """Make a root and its issuers in a new folder, all files at once or none.

    `more` returns other files for the root.

    Raises:
        ControlError: they cannot be written.
    """
    root_key = ec.generate_private_key(ec.SECP256R1())
    # Two fleets of one operator must not have roots of the same name.
    name = f"dorad fleet {os.urandom(4).hex()}"
    builder = signing(_name(name), _name(name), root_key.public_key(), 1)
    root = builder.sign(root_key, hashes.SHA256())
    content = {ROOT: pem(root), ROOT_KEY: _key_pem(root_key)}
    content |= {} if more is None else more(root)
    for issuer in (ISSUER, OPERATORS):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = signing(_name(f"{name} {issuer}"), _name(name), key.public_key(), 0)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        content[f"{issuer}.pem"] = pem(builder.sign(root_key, hashes.SHA256()))
        content[f"{issuer}.key"] = _key_pem(key)
    try:
        with temporary_folder(folder.parent, f".{folder.name}.") as above:
            made = above / folder.name
            made.mkdir(mode=0o700)
            for file, text in content.items():
                write_secret(made / file, text)
            made.rename(folder)
    except OSError as error:
        raise ControlError("refused", f"{folder} cannot be made: {error.strerror}") from None
    _log.info("made an authority in %s; %s may be kept elsewhere", folder, ROOT_KEY)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    dates: Dates = _ALWAYS,
) -> x509.CertificateBuilder:
    not_before, not_after = dates
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def signing(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    below: int,
    dates: Dates = _ALWAYS,
) -> x509.CertificateBuilder:
    """Return a certificate that may sign others, with `below` such certificates under it."""
    return (
        _builder(subject, issuer, key, x509.random_serial_number(), dates)
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


def key_digest(csr: str) -> str:
    """Return the SHA-256 of the key in a request, whose sender owns it. Raises as `issue`."""
    return hashlib.sha256(
        _key_in(csr).public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).hexdigest()


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


def read_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a file. Raises ControlError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from None
    except ValueError:
        raise _unusable(path, "it is not a certificate") from None


def read_key(path: Path, owners: Collection[int] = ()) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file of this user, or of one of `owners`. Raises ControlError."""
    try:
        if path.stat().st_uid not in (os.geteuid(), *owners):
            raise _unusable(path, "it belongs to another user")
        check_private(path)
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


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
