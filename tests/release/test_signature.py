"""Signatures: ssh-keygen and this project accept each other's, and each refusal says why."""

import base64
import datetime
import hashlib
import shutil
import subprocess
import time

import asyncssh
import pytest
from asyncssh.packet import Byte, MPInt, String, UInt32
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dorad.release.errors import ReleaseError
from dorad.release.signature import ALLOWED, NAMESPACE, REVOKED, Signers, add_line
from dorafleet.cli.releasetrust import _end_of
from tests.release.samples import KEY, OTHER, public, release, sign

CONTENT = b'{"format":1}'
NOW = 1_790_000_000.0
needs_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ALLOWED).write_text(f"# the team\n\nada@example.org {public(KEY)}\n")
    return tmp_path


def refusal(folder, signature, content=CONTENT, at=NOW):
    with pytest.raises(ReleaseError) as caught:
        Signers(folder).verify(content, signature, at)
    assert caught.value.code == "signer"
    assert caught.value.refused
    return str(caught.value)


def test_a_known_key_is_named(folder):
    signer = Signers(folder).verify(CONTENT, sign(CONTENT), NOW)
    assert str(signer) == f"ada@example.org ({KEY.get_fingerprint()})"


def until(day):
    return f'namespaces="{NAMESPACE}",valid-before="{day}000000Z"'


def utc(*date):
    return datetime.datetime(*date, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_a_key_is_valid_until_the_end_of_its_last_day_in_utc(folder, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        last = _end_of("2027-06-30", datetime.datetime(2027, 6, 30, 23, 59, tzinfo=datetime.UTC))
        assert last == "20270701000000Z"
        assert add_line(folder / ALLOWED, f"ada {until(20270701)} {public(KEY)}") == "replaced"
        signers = Signers(folder)
        assert signers.verify(CONTENT, sign(CONTENT), utc(2027, 6, 30, 23, 59, 59)).name == "ada"
        assert "has expired at 2027-07-01 00:00 UTC" in refusal(
            folder, sign(CONTENT), at=utc(2027, 7, 1)
        )
    finally:
        monkeypatch.undo()
        time.tzset()


def test_of_a_trusted_key_only_the_last_line_counts(folder):
    file = folder / ALLOWED
    other = f'git@example.org namespaces="git" {public(KEY)}'
    bob = f"bob {public(OTHER)}"
    damaged = "what is this"
    with file.open("a") as opened:
        # Two lines, as former versions have left them, in other forms; and lines of others.
        former = f"ada {until(20990101)} {public(KEY)} a comment"
        opened.write("\n".join([former, other, bob, damaged, ""]))
    line = f"ada {until(20270701)} {public(KEY)}"
    assert add_line(file, line) == "replaced"
    assert file.read_text().splitlines() == ["# the team", "", other, bob, damaged, line]
    assert "has expired" in refusal(folder, sign(CONTENT), at=utc(2027, 7, 1))
    assert add_line(file, line) == "was there already"
    forever = f'ada namespaces="{NAMESPACE}" {public(KEY)}'
    assert add_line(file, forever) == "replaced"
    assert Signers(folder).verify(CONTENT, sign(CONTENT), utc(2098, 1, 1)).name == "ada"


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c"])
def test_a_comment_hides_no_second_key(folder, end):
    """Only a newline ends a line, as for ssh-keygen: what follows is a part of the comment."""
    bob = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    assert add_line(folder / ALLOWED, f"bob {bob} laptop{end}eve {public(OTHER)}") == "added"
    assert "is not in" in refusal(folder, sign(CONTENT, OTHER))
    assert add_line(folder / ALLOWED, f"ann {public(OTHER)}") == "added"
    assert Signers(folder).verify(CONTENT, sign(CONTENT, OTHER), NOW).name == "ann"


def test_a_key_that_is_revoked_is_not_trusted_again_in_silence(folder):
    assert add_line(folder / REVOKED, public(KEY)) == "added"
    assert add_line(folder / REVOKED, public(KEY)) == "was there already"
    before = (folder / ALLOWED).read_text()
    with pytest.raises(ReleaseError, match="is revoked"):
        add_line(folder / ALLOWED, f"ada {public(KEY)}")
    assert (folder / ALLOWED).read_text() == before


def test_one_changed_byte_of_the_content_is_refused(folder):
    assert "was changed" in refusal(folder, sign(CONTENT), CONTENT.replace(b"1", b"2"))


def test_an_unknown_key_is_refused_with_its_fingerprint(folder):
    reason = refusal(folder, sign(CONTENT, OTHER))
    assert OTHER.get_fingerprint() in reason
    assert str(folder / ALLOWED) in reason


def test_without_any_trusted_key_everything_is_refused(tmp_path):
    assert "is not in" in refusal(tmp_path, sign(CONTENT))


def test_a_revoked_key_is_refused_also_if_it_is_allowed(folder):
    (folder / REVOKED).write_text(f"# lost\n{public(OTHER)}\n{public(KEY)}\n")
    assert "is revoked" in refusal(folder, sign(CONTENT))


def test_revoked_keys_that_cannot_be_read_stop_everything(folder):
    (folder / REVOKED).write_text("SSHKRL\n")
    assert f"{REVOKED}:1 cannot be read" in refusal(folder, sign(CONTENT))


def test_a_bad_line_among_the_trusted_keys_is_skipped(folder):
    text = (folder / ALLOWED).read_text()
    (folder / ALLOWED).write_text(f"only-a-name\nx ssh-ed25519 AAAA\n{text}")
    assert Signers(folder).verify(CONTENT, sign(CONTENT), NOW).name == "ada@example.org"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('valid-before="20200101"', "has expired at 2020-01-01"),
        ('valid-after="20990101"', "is valid only after 2099-01-01"),
        ('namespaces="git,file"', "may not sign dorad-bundle"),
    ],
)
def test_a_key_with_limits_signs_only_within_them(folder, options, reason):
    (folder / ALLOWED).write_text(f"ada@example.org {options} {public(KEY)}\n")
    assert reason in refusal(folder, sign(CONTENT))


def test_a_second_line_can_renew_an_expired_key(folder):
    old, new = 'valid-before="20200101"', 'valid-before="20990101",namespaces="dorad-*"'
    lines = [f"old {old} {public(KEY)}", f"new {new} {public(KEY)}"]
    (folder / ALLOWED).write_text("\n".join(lines))
    assert Signers(folder).verify(CONTENT, sign(CONTENT), NOW).name == "new"


def test_a_signature_for_another_purpose_is_refused(folder):
    assert "not for dorad-bundle" in refusal(folder, sign(CONTENT, namespace="git"))


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"x",
        b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----",
        b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----",
        b"-----BEGIN SSH SIGNATURE-----\n====\n-----END SSH SIGNATURE-----",
        sign(CONTENT)[:-80] + b"\n-----END SSH SIGNATURE-----",
        b"-----BEGIN SSH SIGNATURE-----\n" + b"A" * 20_000 + b"-----END SSH SIGNATURE-----",
    ],
)
def test_what_is_no_signature_is_refused(folder, signature):
    assert refusal(folder, signature)


def test_a_robot_whose_clock_starts_in_1970_judges_keys_by_the_date_of_the_release(
    robot, monkeypatch
):
    line = f'ada valid-after="20200101",valid-before="20990101" {public(KEY)}\n'
    (robot.signers / ALLOWED).write_text(line)
    found = release()
    monkeypatch.setattr(time, "time", lambda: 60.0)
    assert robot.trees.verify(found.content, found.signature)[1].name == "ada"


def test_a_robot_whose_clock_is_in_2100_says_so_when_it_refuses_an_expired_key(robot, monkeypatch):
    line = f'ada valid-before="20990101" {public(KEY)}\n'
    (robot.signers / ALLOWED).write_text(line)
    found = release()
    monkeypatch.setattr(time, "time", lambda: 4_102_444_900.0)
    with pytest.raises(ReleaseError, match="it is 2100-01-01 00:01 UTC here"):
        robot.trees.verify(found.content, found.signature)


@needs_keygen
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_signature_of_ssh_keygen_is_accepted(tmp_path, kind):
    key = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key)
    (tmp_path / "manifest").write_bytes(CONTENT)
    run("ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, tmp_path / "manifest")
    (tmp_path / ALLOWED).write_text(f"bob {key.with_suffix('.pub').read_text()}")
    signature = (tmp_path / "manifest.sig").read_bytes()
    assert Signers(tmp_path).verify(CONTENT, signature, NOW).name == "bob"
    assert "was changed" in refusal(tmp_path, signature, CONTENT + b" ")


@needs_keygen
@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_ssh_keygen_accepts_our_signature(tmp_path, kind):
    key = asyncssh.generate_private_key(kind)
    (tmp_path / "signature").write_bytes(sign(CONTENT, key))
    (tmp_path / ALLOWED).write_text(f"ada {public(key)}\n")
    files = ["-f", tmp_path / ALLOWED, "-s", tmp_path / "signature"]
    shown = run("ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", "ada", *files, given=CONTENT)
    assert "Good" in shown


def by_security_key(sign, content):
    """Return the signature of a security key that was touched, and its counter."""
    about = Byte(1) + UInt32(7)
    parts = hashlib.sha256(b"ssh:").digest(), about, hashlib.sha256(content).digest()
    return String(sign(b"".join(parts))) + about


def ed25519_sk(content):
    key, kind = ed25519.Ed25519PrivateKey.generate(), String("sk-ssh-ed25519@openssh.com")
    public_bytes = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return kind + String(public_bytes) + String("ssh:"), kind + by_security_key(key.sign, content)


def ecdsa_sk(content):
    key = ec.generate_private_key(ec.SECP256R1())
    kind = String("sk-ecdsa-sha2-nistp256@openssh.com")
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def sign_numbers(signed):
        numbers = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return b"".join(map(MPInt, numbers))

    public_key = kind + String("nistp256") + String(point) + String("ssh:")
    return public_key, kind + by_security_key(sign_numbers, content)


def rsa_key(kind, digest):
    def signed(content):
        key = rsa.generate_private_key(65537, 2048)
        numbers = key.public_key().public_numbers()
        signature = String(kind) + String(key.sign(content, PKCS1v15(), digest))
        return String("ssh-rsa") + MPInt(numbers.e) + MPInt(numbers.n), signature

    return signed


@needs_keygen
@pytest.mark.parametrize(
    ("sign_with", "accepted"),
    [
        (ed25519_sk, True),
        (ecdsa_sk, True),
        (rsa_key("rsa-sha2-256", hashes.SHA256()), True),
        (rsa_key("ssh-rsa", hashes.SHA1()), False),
    ],
    ids=["sk-ed25519", "sk-ecdsa", "rsa-sha2-256", "rsa-sha1"],
)
def test_each_kind_of_signature_is_judged_as_ssh_keygen_judges_it(tmp_path, sign_with, accepted):
    about = String(NAMESPACE) + String(b"") + String("sha512")
    key, made = sign_with(b"SSHSIG" + about + String(hashlib.sha512(CONTENT).digest()))
    blob = b"SSHSIG" + UInt32(1) + String(key) + about + String(made)
    begin, end = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
    signature = begin + base64.encodebytes(blob) + end
    (tmp_path / "signature").write_bytes(signature)
    kind = key[4 : 4 + key[3]].decode()
    (tmp_path / ALLOWED).write_text(f"ada {kind} {base64.b64encode(key).decode()}\n")
    files = ["-f", tmp_path / ALLOWED, "-s", tmp_path / "signature"]
    verify = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", "ada", *files]
    theirs = subprocess.run(verify, input=CONTENT, capture_output=True, timeout=30, check=False)
    assert (theirs.returncode == 0) == accepted, theirs.stderr
    if accepted:
        assert Signers(tmp_path).verify(CONTENT, signature, NOW).name == "ada"
    else:
        assert "is over a SHA-1" in refusal(tmp_path, signature)


def run(*command, given=b""):
    done = subprocess.run(command, input=given, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()
