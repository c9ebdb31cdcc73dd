"""Check the SSH signature of a manifest, as `ssh-keygen -Y verify -n dorad-bundle` does.

The keys that may sign are in a file in the format of `allowed_signers` (ssh-keygen(1)), revoked
ones in a file with a public key on each line.
"""

from __future__ import annotations

import binascii
import datetime
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.atomicfile import atomic_file
from dorad.boundedfile import read_bounded
from dorad.release.errors import ReleaseError
from dorad.release.manifest import MAX_SIGNATURE

if TYPE_CHECKING:
    import asyncssh
    from asyncssh.sshsig import SSHAllowedSignersEntry

NAMESPACE = "dorad-bundle"
SYSTEM_FOLDER = Path("/etc/dorad")
ALLOWED, REVOKED = "allowed_signers", "revoked_signers"
MAX_FILE = 1 << 20
"""Bytes of one of the files."""
MAX_NAME = 200
"""Characters of a signer's name in messages."""
_SHA1 = frozenset({b"ssh-rsa", b"ssh-dss"})
"""Kinds of signatures that are over a SHA-1, which ssh-keygen refuses, too."""
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that has signed."""

    name: str
    """As `allowed_signers` names it."""
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


class Signers:
    """The keys that may sign releases. Each check reads them again."""

    def __init__(self, folder: Path = SYSTEM_FOLDER) -> None:
        self._allowed = folder / ALLOWED
        self._revoked = folder / REVOKED

    def verify(self, content: bytes, signature: bytes, at: float) -> Signer:
        """Check the signature of `content`, and return who has made it.

        `at` is the time for which the key must be valid, in seconds since 1970.

        Raises:
            ReleaseError: code `signer`.
        """
        key = signing_key(content, signature)
        fingerprint = key.get_fingerprint()
        if key in self.revoked():
            raise _refused(f"the key {fingerprint} is revoked")
        known = [(name, each) for name, each in self._read_allowed() if each.key == key]
        if not known:
            raise _refused(
                f"the key {fingerprint} is not in {self._allowed}", "dorafleet release trust"
            )
        problems = [(name, _problem(each, at)) for name, each in known]
        valid = [name for name, problem in problems if not problem]
        if not valid:
            name, problem = next(
                (problems[at] for at, (_, each) in enumerate(known) if _is_for_us(each)),
                problems[0],
            )
            raise _refused(f"the key {fingerprint} of {name} {problem}")
        signer = Signer(valid[0], fingerprint)
        _log.debug("signed by %s", signer)
        return signer

    def _read_allowed(self) -> list[tuple[str, SSHAllowedSignersEntry]]:
        from asyncssh import KeyImportError
        from asyncssh.sshsig import SSHAllowedSignersEntry

        keys = []
        for number, line in _lines(self._allowed):
            try:
                entry = SSHAllowedSignersEntry(line)
            except (KeyImportError, ValueError) as error:
                # One bad line must not let a robot refuse everything.
                _log.warning("%s:%d is ignored: %s", self._allowed, number, error)
                continue
            if "cert-authority" not in entry.options:
                keys.append((line.split(None, 1)[0][:MAX_NAME], entry))
        return keys

    def revoked(self) -> list[asyncssh.SSHKey]:
        """Return the keys that are revoked. Raises ReleaseError."""
        from asyncssh import KeyImportError, import_public_key

        keys = []
        for number, line in _lines(self._revoked):
            try:
                keys.append(import_public_key(line))
            except (KeyImportError, ValueError) as error:
                message = f"{self._revoked}:{number} cannot be read: {error}"
                raise _refused(message, "one public key on each line") from error
        return keys


def add_line(path: Path, line: str) -> str:
    """Add a line to a file of keys; return what was done: `added`, `replaced`, `was there already`.

    Another line that lets the same key sign releases is replaced: with both, the later end counts.

    Raises:
        ReleaseError: code `signer`: it is not a line for that file, or allows a revoked key.
        OSError: it cannot be written.
    """
    from asyncssh import KeyImportError, import_public_key

    try:
        key = _allowed_key(line) if path.name == ALLOWED else import_public_key(line)
    except (KeyImportError, ValueError) as error:
        raise _refused(f"this is not a line of {path.name}: {error}") from error
    if path.name == ALLOWED and key in Signers(path.parent).revoked():
        words = f"the key {key.get_fingerprint()} is revoked"
        raise _refused(words, f"remove it from {path.with_name(REVOKED)} first")
    before = [text for _, text in _all_lines(path)]
    kept = [text for text in before if path.name != ALLOWED or not _allows(text, key)]
    if line in before and len(kept) >= len(before) - 1:
        return "was there already"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write("".join(f"{text}\n" for text in [*kept, line]).encode())
        os.fchmod(file.fileno(), 0o644)
    done = "added" if len(kept) == len(before) else "replaced"
    _log.info("%s: %s %s", path, done, line[:80])
    return done


def _allowed_key(line: str) -> asyncssh.SSHKey | None:
    """Return the key of a line of `allowed_signers`. Raises KeyImportError or ValueError."""
    from asyncssh.sshsig import SSHAllowedSignersEntry

    return SSHAllowedSignersEntry(line).key


def _allows(line: str, key: asyncssh.SSHKey | None) -> bool:
    """Return True if a line lets a key sign releases, at whatever time."""
    from asyncssh import KeyImportError
    from asyncssh.sshsig import SSHAllowedSignersEntry

    try:
        entry = SSHAllowedSignersEntry(line.strip())
    except (KeyImportError, ValueError):
        return False
    return entry.key == key and "cert-authority" not in entry.options and _is_for_us(entry)


def signing_key(content: bytes, signature: bytes) -> asyncssh.SSHKey:
    """Return the key with which `content` was signed, trusted or not.

    Raises:
        ReleaseError: code `signer`.
    """
    import asyncssh
    from asyncssh.packet import PacketDecodeError, SSHPacket
    from asyncssh.public_key import decode_ssh_public_key

    if len(signature) > MAX_SIGNATURE:
        raise _refused(f"the signature has more than {MAX_SIGNATURE} bytes")
    blob = _unarmoured(signature)
    try:
        packet = SSHPacket(blob)
        magic, version = packet.get_bytes(6), packet.get_uint32()
        if (magic, version) != (b"SSHSIG", 1):
            raise _refused("the signature is not one of ssh-keygen -Y sign")
        key = decode_ssh_public_key(packet.get_string())
        namespace = packet.get_string()
        packet.get_string()  # reserved
        packet.get_string()  # the hash of the content
        kind = SSHPacket(packet.get_string()).get_string()
    except PacketDecodeError as error:
        raise _refused("the signature is cut short or damaged") from error
    except asyncssh.KeyImportError as error:
        raise _refused(f"the kind of the signing key is not supported: {error}") from error
    if namespace != NAMESPACE.encode():
        other = namespace[:60].decode(errors="replace")
        raise _refused(f"the signature is for `{other}`, not for {NAMESPACE}")
    if kind in _SHA1:
        raise _refused("the signature is over a SHA-1, which is not safe", "sign with rsa-sha2-512")
    only = b"x " + key.export_public_key("openssh")
    try:
        valid = asyncssh.validate_sshsig(content, blob, "x", only)
    except ValueError as error:
        raise _refused(f"the signature cannot be checked: {error}") from error
    if not valid:
        raise _refused("the signature does not fit the manifest: one of them was changed")
    return key


def _unarmoured(signature: bytes) -> bytes:
    text = signature.strip()
    if not text.startswith(_BEGIN) or not text.endswith(_END):
        raise _refused("there is no SSH signature")
    try:
        return binascii.a2b_base64(text[len(_BEGIN) : -len(_END)])
    except binascii.Error as error:
        raise _refused(f"the signature is damaged: {error}") from error


def _is_for_us(entry: SSHAllowedSignersEntry) -> bool:
    """Return True if a line allows signatures of releases."""
    from asyncssh.pattern import WildcardPatternList

    namespaces = entry.options.get("namespaces")
    return not isinstance(namespaces, WildcardPatternList) or bool(namespaces.matches(NAMESPACE))


def _problem(entry: SSHAllowedSignersEntry, at: float) -> str:
    """Return why a key may not sign at that time, empty if it may."""
    options = entry.options
    if not _is_for_us(entry):
        return f"may not sign {NAMESPACE}"
    after, before = options.get("valid-after"), options.get("valid-before")
    if isinstance(after, int) and at < after:
        return f"is valid only after {_date(after)}; it is {_date(at)} here"
    if isinstance(before, int) and at >= before:
        return f"has expired at {_date(before)}; it is {_date(at)} here"
    return ""


def _date(seconds: float) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s after 1970"


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that have content, with their numbers; none if it is missing."""
    lines = [(n, line.strip()) for n, line in _all_lines(path)]
    return [(n, line) for n, line in lines if line and not line.startswith("#")]


def _all_lines(path: Path) -> list[tuple[int, str]]:
    """Return all lines, which end as for `ssh-keygen`: at no other character than a newline."""
    try:
        content = read_bounded(path, MAX_FILE)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from error
    lines = content.decode(errors="replace").removesuffix("\n").split("\n")
    return [*enumerate(lines, 1)] if content else []


def _refused(message: str, hint: str | None = None) -> ReleaseError:
    return ReleaseError("signer", message, hint)
