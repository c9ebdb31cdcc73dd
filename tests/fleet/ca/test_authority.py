"""The authority of a fleet: what it signs, what it refuses, and its files."""

import signal
import stat
import subprocess
import sys
import time
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dorad.control.errors import ControlError
from dorad.control.tls import Identity
from dorafleet.ca.authority import MAX_CSR, ROOT_KEY, open_authority
from tests.fleet.ca.keys import csr_of, new_key, rsa_key

ARM = Identity("robot", "arm1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return open_authority(tmp_path_factory.mktemp("authority") / "ca")


def parsed(issued):
    return x509.load_pem_x509_certificates(issued.chain.encode())


def test_its_files_are_for_this_user_alone(tmp_path):
    open_authority(tmp_path / "ca")
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    files = list((tmp_path / "ca").iterdir())
    assert len(files) == 6
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert [each.name for each in tmp_path.iterdir()] == ["ca"]


def test_the_keys_that_a_killed_process_was_making_are_removed(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from dorafleet.ca.authority import open_authority\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_authority(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", program, tmp_path / "ca"]
    ended = subprocess.run(command, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".ca.")
    open_authority(tmp_path / "ca")
    assert [each.name for each in tmp_path.iterdir()] == ["ca"]


def test_opened_again_it_is_the_same_also_without_the_key_of_the_root(tmp_path):
    first = open_authority(tmp_path / "ca")
    (tmp_path / "ca" / ROOT_KEY).unlink()
    second = open_authority(tmp_path / "ca")
    assert second.fingerprint == first.fingerprint
    assert second.certificate == first.certificate
    assert second.issue(csr_of(new_key()), ARM).certificate.identity == ARM


def test_openssl_accepts_its_certificates(tmp_path, authority):
    (tmp_path / "root.pem").write_text(authority.certificate)
    issued = authority.issue(csr_of(new_key()), ARM)
    (tmp_path / "chain.pem").write_text(issued.chain)
    command = ["openssl", "verify", "-x509_strict", "-CAfile", "root.pem"]
    command += ["-untrusted", "chain.pem", "chain.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "chain.pem: OK\n", done.stderr


def test_of_a_request_it_takes_only_the_key(authority):
    key = new_key()
    wish = csr_of(key, subject="root", names=["dorad:operator/me/admin"], ca=True)
    leaf = parsed(authority.issue(wish, ARM))[0]
    assert leaf.public_key() == key.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    owner, dates = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert owner == "dorad:robot/arm1"
    assert dates.startswith("dorad:valid/")
    assert len(names) == 2
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.subject.rfc4514_string() == "CN=arm1"


def test_a_certificate_is_good_for_a_year_and_no_two_have_one_serial(authority):
    issued = [authority.issue(csr_of(new_key()), ARM) for _ in range(20)]
    assert len({each.certificate.serial for each in issued}) == 20
    found = issued[0].certificate
    assert found.serial == parsed(issued[0])[0].serial_number
    assert found.not_after - found.not_before == 365 * 86400
    assert abs(found.not_before - time.time()) < 3600


def test_programs_that_compare_dates_accept_every_certificate_in_1970_and_2100(authority):
    for each in parsed(authority.issue(csr_of(new_key()), ARM)):
        assert each.not_valid_before_utc.year == 1970
        assert each.not_valid_after_utc.year > 2100


def test_the_certificate_of_a_server_has_its_addresses(authority):
    addresses = [ip_address("10.0.0.1"), ip_address("::1")]
    pair = authority.issue_pair(Identity("coordinator", "main"), addresses=addresses)
    leaf = parsed(pair.issued)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == addresses
    key = serialization.load_pem_private_key(pair.key.encode(), None)
    assert key.public_key() == leaf.public_key()


def damaged_signature():
    text = csr_of(new_key(), subject="a" * 20)
    raw = bytearray(x509.load_pem_x509_csr(text.encode()).public_bytes(serialization.Encoding.DER))
    raw[raw.index(b"aaaa")] = ord("b")
    request = x509.load_der_x509_csr(bytes(raw))
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: "", "is not a request"),
        (lambda: "nonsense", "is not a request"),
        (lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "is not a request"),
        (lambda: "x" * (MAX_CSR + 1), "exceeds"),
        (lambda: "\ud800", "is not a request"),
        (lambda: csr_of(rsa_key()), "its key is not of the curve"),
        (lambda: csr_of(new_key(ec.SECP521R1())), "its key is not of the curve"),
        (damaged_signature, "its signature is wrong"),
    ],
)
def test_what_is_not_a_request_with_a_good_key_is_refused(authority, make, words):
    with pytest.raises(ControlError, match=words) as caught:
        authority.issue(make(), ARM)
    assert caught.value.code == "bad-request"


def test_operators_have_a_separate_issuer(authority):
    ann = Identity("operator", "ann", "admin")
    issuers = {
        identity.kind: parsed(authority.issue(csr_of(new_key()), identity))[1]
        for identity in (ARM, Identity("coordinator", "main"), ann)
    }
    assert issuers["robot"] == issuers["coordinator"] != issuers["operator"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "issuer.key").unlink(), "No such file"),
        (lambda folder: (folder / "issuer.key").write_text("x"), "it is not a key"),
        (lambda folder: (folder / "issuer.key").chmod(0o640), "its mode is 0640"),
        (lambda folder: (folder / "root.pem").write_text("x"), "it is not a certificate"),
        (
            lambda folder: (folder / "root.key").rename(folder / "issuer.key"),
            "is not the key of issuer.pem",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, damage, words):
    folder = tmp_path / "ca"
    open_authority(folder)
    damage(folder)
    with pytest.raises(ControlError, match=words) as caught:
        open_authority(folder)
    assert str(folder) in str(caught.value)


def test_an_issuer_of_another_root_is_refused(tmp_path):
    open_authority(tmp_path / "one")
    open_authority(tmp_path / "two")
    (tmp_path / "two/root.pem").rename(tmp_path / "one/root.pem")
    with pytest.raises(ControlError, match="is not signed by"):
        open_authority(tmp_path / "one")
