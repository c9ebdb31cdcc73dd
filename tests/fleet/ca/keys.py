"""Keys and requests for certificates, as a robot makes them."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


def new_key(curve=None):
    return ec.generate_private_key(curve or ec.SECP256R1())


def rsa_key():
    return rsa.generate_private_key(65537, 2048)


def csr_of(key, subject="anyone", names=(), ca=False):
    """Return a request; everything in it but the key is only a wish."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    if names:
        uris = [x509.UniformResourceIdentifier(each) for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(PEM).decode()


def key_pem(key):
    return key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
