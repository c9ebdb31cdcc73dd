"""The authority that follows another one: its folder, and the signature of the one before.

Only this needs the key of a root, so a coordinator whose `root.key` is kept elsewhere can hand no
robot over.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from dorad.agent import handover
from dorad.agent.handover import fingerprint, hand_over_uri
from dorad.atomicfile import temporary_folder
from dorad.control.errors import ControlError
from dorad.control.messages.agent import HandOver
from dorad.control.tls import HAND_OVER
from dorafleet.ca.authority import (
    ISSUER,
    ROOT,
    ROOT_KEY,
    SHORT,
    Authority,
    fingerprint_in,
    make_files,
    open_authority,
    pem,
    read_certificate,
    read_key,
    signing,
    write_secret,
)

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = "handed-over.pem"
"""In the folder of an authority that follows another one: the signature of that one."""

STARTED, FINISHED, CANCELLED = "started", "finished", "cancelled"
"""Empty files in that folder: how far its hand-over has come. A store that was restored from a
backup may not know it."""

_log = logging.getLogger(__name__)


class Successor(NamedTuple):
    """An authority with the signature of the one before."""

    authority: Authority
    signature: str
    begun: float
    ends: float

    @property
    def order(self) -> HandOver:
        """What robots get."""
        return HandOver(
            root=self.authority.certificate,
            issuer=self.authority.issuer,
            signature=self.signature,
        )


def make_successor(folder: Path, present: Path, days: int, key: Path | None = None) -> str:
    """Make the authority that follows the one in `present`; return its fingerprint.

    Its folder is one below `folder`. `key` is the file with the key of the present root if that is
    kept elsewhere. Files belong to the owner of `folder`.

    Raises:
        ControlError: the key is missing or is another one, or the files cannot be written.
    """
    root, path = read_certificate(present / ROOT), key or present / ROOT_KEY
    if not path.exists():
        raise ControlError(
            "not-found",
            f"{path} is missing: only the key of the root signs the authority that follows",
            "fetch it from where it is kept, and name it: `--root-key FILE`",
        )
    owner = folder.stat()
    root_key = read_key(path, (owner.st_uid,))
    if root_key.public_key() != root.public_key():
        raise ControlError("refused", f"{path} is not the key of {present / ROOT}")
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)

    def signed(new: x509.Certificate) -> dict[str, str]:
        key = new.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        uri = x509.UniformResourceIdentifier(hand_over_uri(root, new))
        builder = signing(new.subject, root.subject, key, 1, (now, now + datetime.timedelta(days)))
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
        builder = builder.add_extension(by, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        return {SIGNATURE: pem(builder.sign(root_key, hashes.SHA256()))}

    try:
        with temporary_folder(folder, ".made.") as above:
            made = above / "ca"
            make_files(made, signed)
            successor = fingerprint(read_certificate(made / ROOT))
            if os.geteuid() != owner.st_uid:
                for each in (made, *made.iterdir()):
                    os.chown(each, owner.st_uid, owner.st_gid)
            made.rename(folder / successor[:SHORT])
    except OSError as error:
        raise ControlError("refused", f"{folder} cannot be written: {error.strerror}") from None
    _log.info("the authority %.16s has signed %.16s", fingerprint(root), successor)
    return successor


def open_successor(folder: Path, present: Authority, wanted: str, now: float) -> Successor:
    """Open the authority that follows the present one; `folder` has those of the fleet.

    Raises:
        ControlError: it is missing or damaged, or the present one has not signed it; see
            `dorad.agent.handover.check`.
    """
    place = folder / wanted[:SHORT]
    if not (place / ROOT).exists():
        raise ControlError(
            "not-found",
            f"{place} is missing: it has the authority that follows, {wanted[:SHORT]}",
            f"copy the folder {folder} from the machine where the hand-over was begun",
        )
    authority = open_authority(place)
    if authority.fingerprint != wanted:
        raise ControlError("refused", f"{place} has the authority {authority.fingerprint[:SHORT]}")
    signature = _signature(place)
    dates = handover.check(
        present.certificate, authority.certificate, authority.issuer, signature, now
    )
    return Successor(authority, signature, *dates)


def _signature(place: Path) -> str:
    try:
        return (place / SIGNATURE).read_text(encoding="ascii")
    except (OSError, UnicodeError):
        raise ControlError("refused", f"{place / SIGNATURE} cannot be read") from None


def successor_of(folder: Path, fingerprint_: str) -> Path | None:
    """Return the folder of the authority that was made to follow another one, or None.

    Of several, one whose hand-over has begun or finished; one that was cancelled comes last.
    """
    successors = []
    for place in sorted(folder.glob("*/")):
        signature = place / SIGNATURE
        if not signature.exists():
            continue
        follows = hand_over_names(read_certificate(signature))
        if follows[:1] == [fingerprint_]:
            successors.append(place)
    known = sorted(
        successors,
        key=lambda each: (has(each, FINISHED), not has(each, CANCELLED), has(each, STARTED)),
    )
    return known[-1] if known else None


def usable_successor(folder: Path, present: Path) -> Path | None:
    """Return the folder of an authority that was made to follow, and can be used, or None.

    It is left by a command that ended before the coordinator knew of it.

    Raises:
        ControlError: a file is damaged.
    """
    made = successor_of(folder, fingerprint_in(present))
    if made is None or has(made, FINISHED) or has(made, CANCELLED):
        return None
    root, new, issuer = (
        pem(read_certificate(each / name))
        for each, name in ((present, ROOT), (made, ROOT), (made, f"{ISSUER}.pem"))
    )
    try:
        handover.check(root, new, issuer, _signature(made), time.time())
    except ControlError as error:
        _log.info("%s is not used: %s", made, error.message)
        return None
    return made


def hand_over_names(signature: x509.Certificate) -> list[str]:
    """Return the fingerprints of both roots in a hand-over's signature; none if it has none."""
    try:
        names = signature.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith(HAND_OVER):
            return uri.removeprefix(HAND_OVER).split("/")
    return []


def has(place: Path, state: str) -> bool:
    """Return True if the hand-over to the authority in a folder has come so far."""
    return (place / state).exists()


def mark(folder: Path, wanted: str, state: str) -> None:
    """Note in the folder of an authority how far its hand-over has come. Raises OSError."""
    write_secret(folder / wanted[:SHORT] / state, "")
