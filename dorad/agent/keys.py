"""The robot's key, its requests for certificates, and checks of the certificates."""

import itertools

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dorad.control.errors import ControlError
from dorad.control.tls import VALID, Identity

MAX_PEM = 64 << 10
"""Characters of certificates that are accepted."""

_MAX_COMMON_NAME = 64


def new_key() -> str:
    """Return a new key (PEM, not encrypted)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def request_for(robot: str, key: str) -> str:
    """Return a request for a certificate of this robot for a key (PEM)."""
    names = [x509.UniformResourceIdentifier(str(Identity("robot", robot)))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, robot[:_MAX_COMMON_NAME])])
    signed = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(_load_key(key), hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def check_chain(robot: str, key: str, chain: str, authority: str) -> None:
    """Check that a chain of certificates leads from this robot and this key to the authority.

    Dates are not compared: the robot's clock may be wrong.

    Raises:
        ControlError: it does not; the message names the reason.
    """
    certificates = load(chain, "the certificate")
    roots = load(authority, "the authority of the fleet")
    own = certificates[0]
    if own.public_key() != _load_key(key).public_key():
        raise _refused("it is for another key than the one that this robot has made")
    try:
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [
            uri
            for uri in names.get_values_for_type(x509.UniformResourceIdentifier)
            if not uri.startswith(VALID)
        ]
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    if uris != [str(Identity("robot", robot))]:
        raise _refused(f"it is for {' and '.join(uris) or 'no robot'}, not for robot {robot}")
    for certificate, signer in itertools.pairwise(certificates):
        if not is_signed(certificate, signer):
            raise _refused("its chain is broken")
    if not any(certificates[-1] == root or is_signed(certificates[-1], root) for root in roots):
        raise _refused("the authority that comes with it has not signed it")


def is_among(some: str, trusted: str) -> bool:
    """Return True if all certificates in a text (PEM) are in another one. Raises ControlError."""
    known = load(trusted, "the authority of this robot")
    return all(each in known for each in load(some, "the authority"))


def leads_to(chain: str, root: str) -> bool:
    """Return True if the last certificate of a chain was signed by a root. Raises ControlError."""
    last = load(chain, "the certificate")[-1]
    return any(is_signed(last, each) for each in load(root, "the authority"))


def newest_of(trusted: str) -> str:
    """Return the last certificate in a text (PEM): of two authorities the one that follows."""
    return load(trusted, "the authority")[-1].public_bytes(serialization.Encoding.PEM).decode()


def oldest_of(trusted: str) -> str:
    """Return the first certificate in a text (PEM). Raises ControlError."""
    return load(trusted, "the authority")[0].public_bytes(serialization.Encoding.PEM).decode()


def is_whole(authority: str) -> bool:
    """Return True if a text is the certificate of an authority (PEM), with its own signature."""
    try:
        return all(is_signed(root, root) for root in load(authority, "the authority of the fleet"))
    except ControlError:
        return False


def issuer_of(chain: str, authority: str) -> str:
    """Return the certificate (PEM) that has signed the first one of a chain."""
    signers = load(chain, "the certificate")[1:]
    if not signers:
        return authority
    return signers[0].public_bytes(serialization.Encoding.PEM).decode()


def is_signed(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    """Return True if a certificate was issued by another one, with its name and its key."""
    try:
        certificate.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def load(text: str, what: str) -> list[x509.Certificate]:
    """Return the certificates in a text (PEM), called `what` in errors. Raises ControlError."""
    if len(text) > MAX_PEM:
        raise ControlError("bad-request", f"{what} has more than {MAX_PEM} characters")
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except (ValueError, UnicodeError):
        raise ControlError("bad-request", f"{what} is not a certificate in PEM") from None


def _load_key(key: str) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        loaded = None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ControlError("refused", "the key of this robot cannot be read", "enrol it again")
    return loaded


def _refused(why: str) -> ControlError:
    return ControlError("refused", f"the new certificate is refused: {why}")
