"""Who this robot is in its fleet: its key, its certificate, and the coordinators that it obeys.

All of it is in one folder, `identity`, which is a link that is replaced at once: a power cut leaves
the old identity or the new one, never the key of one with the certificate of the other.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dorad.agent.folder import daemon_socket, make_secret_folder, write_secret
from dorad.agent.secrets import SecretFiles, unsealed_folder
from dorad.atomicfile import sync_folder
from dorad.control.errors import ControlError
from dorad.control.messages import LinkTls
from dorad.control.messages.agent import HandOver, Trust
from dorad.control.tls import MAX_NAME, is_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IDENTITY = "identity"
"""The link in the agent's folder."""

ENROLMENT = "enrolment"
"""In the identity: a random text that changes with each enrolment, but not with a renewal. It is
missing if an earlier version has enrolled the robot."""

FIRST = "enrolled-authority.pem"
"""In the identity after a hand-over: the authority that enrolled the robot. Its digest stays that
of the fleet, so the robot keeps the term, the head of the audit and the revocations."""

HAND_OVER = "hand-over.json"
"""In the identity during a hand-over."""

FILES = ("key.pem", "chain.pem", "authority.pem", "issuer.pem", ENROLMENT, FIRST, HAND_OVER)
"""All that belongs to an identity besides `agent.json`."""

DEFAULT_PORT = 6013
MAX_COORDINATORS = 16

_NOT_ENROLLED = "run `dorafleet enrol` on the operator's machine"
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[A-Za-z0-9_.-]{1,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file `agent.json`."""

    robot: str
    """The id of this robot in its fleet."""
    coordinators: list[str]
    """`host` or `host:port`, the first to try first."""


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a robot gets for its request."""

    robot: str
    coordinators: list[str]
    chain: str
    """Its certificate and those between it and the authority (PEM)."""
    authority: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A robot's place in a fleet."""

    folder: Path
    """The link `identity`, which always leads to the newest files."""
    robot: str
    coordinators: tuple[tuple[str, int], ...]
    """Host and port of each."""
    fleet: str
    """A digest of the fleet's authority and of this enrolment: the terms of coordinators that were
    obeyed before mean nothing."""
    authority: str
    """A digest of the authority that has enrolled this robot; a hand-over does not change it."""

    @property
    def tls(self) -> LinkTls:
        """The files with which this robot proves to a coordinator who it is."""
        return _files(self.folder, "authority.pem")

    @property
    def links(self) -> LinkTls:
        """The same for links to other robots, which trust only what signs robots."""
        return _files(self.folder, "issuer.pem")


def link_files(folder: Path) -> LinkTls:
    """Return where the files for links are if the agent with this folder is enrolled."""
    return _files(folder / IDENTITY, "issuer.pem")


def _files(identity: Path, authority: str) -> LinkTls:
    return LinkTls(
        ca=str(identity / authority),
        certificate=str(identity / "chain.pem"),
        key=str(identity / "key.pem"),
    )


class IdentityStore:
    """The identity of the agent in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._link = folder / IDENTITY
        self._pending = folder / "pending"

    @property
    def version(self) -> str:
        """A text that changes with the identity; empty if there is none."""
        try:
            return str(self._link.readlink())
        except OSError:
            return ""

    def load(self) -> Identity:
        """Return the identity.

        Raises:
            ControlError: with code `not-found` if the robot is not enrolled, or `refused` if a file
                is damaged.
        """
        path = self._link / "agent.json"
        try:
            config = _decode(path.read_bytes(), Config, str(path))
            first = self._link / FIRST
            kept = first if first.exists() else self._link / "authority.pem"
            authority = kept.read_bytes()
            enrolment = _read_enrolment(self._link / ENROLMENT)
        except FileNotFoundError:
            raise ControlError("not-found", "this robot is not enrolled", _NOT_ENROLLED) from None
        except OSError as error:
            raise ControlError("refused", f"{path} cannot be read: {error.strerror}") from None
        digest = hashlib.sha256(authority)
        alone = digest.hexdigest()
        digest.update(enrolment)
        where = checked(config.robot, config.coordinators)
        return Identity(self._link, *where, digest.hexdigest(), alone)

    def request(self, robot: str, *, replace: bool = False, same_key: bool = False) -> str:
        """Make a new key, and return a request for a certificate of it (PEM).

        The present identity stays in use until `certify`. With `same_key`, a key whose certificate
        has not arrived is used again.

        Raises:
            ControlError: the robot is enrolled, possibly under another id, and not to be replaced.
        """
        from dorad.agent import keys

        if not is_name(robot):
            raise ControlError("bad-request", f"{robot[:MAX_NAME]!r} is not a valid robot id")
        self._check_replace(robot, replace=replace)
        waiting = self._waiting_key() if same_key else None
        if waiting is not None:
            _log.debug("the key for robot %s waits for its certificate", robot)
            return keys.request_for(robot, waiting)
        key = keys.new_key()
        self._pending.mkdir(mode=0o700, exist_ok=True)
        write_secret(self._pending / "key.pem", key.encode())
        _log.debug("made a new key for robot %s", robot)
        return keys.request_for(robot, key)

    def _waiting_key(self) -> str | None:
        """Return the key whose certificate has not arrived, or None."""
        waiting, used = (
            path.read_text(encoding="ascii") if path.exists() else None
            for path in (self._pending / "key.pem", self._link / "key.pem")
        )
        # A kill at the end of `enrol` leaves the key that is in use. It is not used again: it may
        # have become known to others.
        return None if waiting == used else waiting

    def refuse_other(self, robot: str) -> None:
        """Raise ControlError if this robot is enrolled under another id than `robot`."""
        try:
            present = self.load().robot
        except ControlError:
            return  # not enrolled, or its identity is damaged
        if present != robot:
            raise ControlError(
                "exists",
                f"this robot is enrolled already as {present}",
                f"run the command on {robot}; `dorad-agent leave` forgets what this robot is",
            )

    def cancel(self) -> None:
        """Forget the key of the last request: no certificate will come for it."""
        if self._pending.exists():
            shutil.rmtree(self._pending)

    def enrol(self, enrolment: Enrolment, *, replace: bool = False) -> Identity:
        """Use a new certificate for the key of the last request, and new coordinators.

        The terms of the coordinators until now are forgotten: an operator says whom to obey. So
        are the secrets and their key, which may belong to another fleet or be known to others.

        Raises:
            ControlError: it is refused, see `request` and `keys.check_chain`.
        """
        more = {ENROLMENT: secrets.token_hex(16).encode(), **self._kept_first(enrolment.authority)}
        identity = self._use(enrolment, more, replace=replace)
        self._forget_secrets()
        return identity

    def _kept_first(self, authority: str) -> dict[str, bytes]:
        """Return the authority that enrolled this robot if `authority` follows it."""
        from dorad.agent import keys

        try:
            files = self._files()
            trusted = files["authority.pem"].decode("ascii")
            if FIRST in files and keys.is_among(authority, trusted):
                return {FIRST: files[FIRST]}
        except (ControlError, KeyError, UnicodeError) as error:
            # An enrolment also mends an identity that is damaged.
            _log.debug("the authority until now is not known: %s", error)
        return {}

    def _forget_secrets(self) -> None:
        unsealed = unsealed_folder(self._folder, daemon_socket(self._folder))
        SecretFiles(self._folder, unsealed).forget()

    def _use(self, enrolment: Enrolment, more: Mapping[str, bytes], *, replace: bool) -> Identity:
        """Use a new certificate, and these files besides it."""
        from dorad.agent import keys

        robot, _ = checked(enrolment.robot, enrolment.coordinators)
        self._check_replace(robot, replace=replace)
        try:
            key = (self._pending / "key.pem").read_text(encoding="ascii")
        except FileNotFoundError:
            raise ControlError(
                "conflict", "there is no key that waits for a certificate", "request one first"
            ) from None
        keys.check_chain(robot, key, enrolment.chain, enrolment.authority)
        files = {
            "key.pem": key.encode(),
            "chain.pem": enrolment.chain.encode(),
            "authority.pem": enrolment.authority.encode(),
            "issuer.pem": keys.issuer_of(enrolment.chain, enrolment.authority).encode(),
            **more,
        }
        self._write(Config(robot, enrolment.coordinators), files)
        shutil.rmtree(self._pending)
        _log.info("this robot is %s; it obeys %s", robot, ", ".join(enrolment.coordinators))
        return self.load()

    def renew(self) -> str:
        """Make a new key for the present identity; return a request for it. Raises as `load`."""
        return self.request(self.load().robot, replace=True)

    def certify(self, chain: str, authority: str) -> Identity:
        """Use a new certificate for the key of `renew`.

        The authority stays: a coordinator in wrong hands must not hand the robot over to another.
        Only `hand_over` adds one.

        Raises:
            ControlError: as `enrol`, or the authority is another one.
        """
        from dorad.agent import keys

        config = _decode((self._link / "agent.json").read_bytes(), Config, "agent.json")
        files = self._files()
        trusted = files["authority.pem"].decode("ascii")
        if not keys.is_among(authority, trusted):
            raise ControlError(
                "refused",
                "the new certificate is of another authority than the one that this robot trusts",
                "only an enrolment changes that: `dorafleet enrol CLUSTER.yml ROBOT --again`",
            )
        more = {name: files.get(name, b"") for name in (ENROLMENT, FIRST, HAND_OVER)}
        if more[HAND_OVER]:
            # Links trust both issuers, whichever has signed this certificate.
            more["issuer.pem"] = files["issuer.pem"]
        enrolment = Enrolment(config.robot, config.coordinators, chain, trusted)
        kept = {name: content for name, content in more.items() if content}
        return self._use(enrolment, kept, replace=True)

    def hand_over(self, order: HandOver, now: float) -> Trust:
        """Trust the authority that follows, which the present one has signed, beside it.

        With `finished` the present one is dropped, once this robot has a certificate of the other.

        Raises:
            ControlError: `order` is refused; see `handover.check`.
        """
        from dorad.agent import handover, keys

        files = self._files()
        trusted = files["authority.pem"].decode("ascii")
        if not keys.is_among(order.root, trusted):
            # The newest, which is the last.
            newest = keys.newest_of(trusted)
            dates = handover.check(newest, order.root, order.issuer, order.signature, now)
            _log.warning(
                "the authority %.16s has handed over to %.16s; both are trusted until %s",
                *handover.fingerprints(newest + order.root),
                time.strftime("%Y-%m-%d", time.localtime(dates.ends)),
            )
            issuer = keys.newest_of(files["issuer.pem"].decode("ascii"))
            # As this robot writes them, without what a text may have around a certificate.
            root, own_issuer = map(keys.newest_of, (order.root, order.issuer))
            stored = HandOver(root=root, issuer=own_issuer, signature=order.signature)
            files |= {
                "authority.pem": (newest + root).encode(),
                "issuer.pem": (issuer + own_issuer).encode(),
                HAND_OVER: msgspec.json.encode(stored),
            }
            files.setdefault(FIRST, trusted.encode())
            self._rewrite(files)
        elif order.finished and HAND_OVER in files:
            stored = _decode(files[HAND_OVER], HandOver, HAND_OVER)
            if keys.is_among(order.root, stored.root):
                self._drop_old(files)
        return self.trust()

    def end_hand_over(self, now: float) -> None:
        """Drop the old authority once its hand-over has ended, by this robot's clock.

        Without a certificate of the new one nothing is dropped: the robot would have none.
        """
        from dorad.agent import handover

        files = self._files()
        if HAND_OVER not in files:
            return
        order = _decode(files[HAND_OVER], HandOver, HAND_OVER)
        if now > handover.end_of(order.signature) and self._has_new_chain(files, order):
            _log.warning("the hand-over of the authority has ended by this robot's clock")
            self._drop_old(files)

    def trust(self) -> Trust:
        """Return which authorities this robot trusts. Raises ControlError."""
        from dorad.agent import handover, keys

        files = self._files()
        trusted, chain = (files[name].decode("ascii") for name in ("authority.pem", "chain.pem"))
        newest = keys.newest_of(trusted)
        return Trust(trusted=handover.fingerprints(trusted), certified=keys.leads_to(chain, newest))

    def _drop_old(self, files: dict[str, bytes]) -> None:
        """Trust only the new authority of a hand-over. Raises ControlError."""
        order = _decode(files.pop(HAND_OVER), HandOver, HAND_OVER)
        if not self._has_new_chain(files, order):
            raise ControlError(
                "refused",
                "the hand-over cannot end: this robot has no certificate of the new authority yet",
                "it gets one over its connection to the coordinator",
            )
        files |= {"authority.pem": order.root.encode(), "issuer.pem": order.issuer.encode()}
        self._rewrite(files)
        _log.warning("this robot trusts only the new authority now")

    def _has_new_chain(self, files: Mapping[str, bytes], order: HandOver) -> bool:
        from dorad.agent import keys

        return keys.leads_to(files["chain.pem"].decode("ascii"), order.root)

    def move(self, coordinators: list[str]) -> Identity:
        """Use other addresses of the fleet's coordinators, with the same key. Raises as `load`."""
        identity = self.load()
        checked(identity.robot, coordinators)
        self._write(Config(identity.robot, coordinators), self._files())
        _log.info("this robot obeys %s", ", ".join(coordinators))
        return self.load()

    def _files(self) -> dict[str, bytes]:
        """Return the files of the present identity that there are. Raises ControlError."""
        found = {}
        for name in FILES:
            try:
                found[name] = (self._link / name).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ControlError(
                    "refused", f"{self._link / name} cannot be read: {error.strerror}"
                ) from None
        return found

    def _rewrite(self, files: Mapping[str, bytes]) -> None:
        """Use other files with the same addresses."""
        self._write(_decode((self._link / "agent.json").read_bytes(), Config, "agent.json"), files)

    def remove(self) -> None:
        """Forget the identity, with its key, and all secrets, with theirs."""
        self._forget_secrets()
        self._link.unlink(missing_ok=True)
        sync_folder(self._folder)
        self._remove_others("")

    def _check_replace(self, robot: str, *, replace: bool) -> None:
        if replace or not self.version:
            return
        present = self.load().robot
        other = "" if present == robot else f" as {present}"
        raise ControlError(
            "exists",
            f"this robot is enrolled already{other}",
            "enrol it with `--replace` to give it a new identity",
        )

    def _write(self, config: Config, files: Mapping[str, bytes]) -> None:
        """Make these files the identity, all at once."""
        made = self._folder / f"identity.{secrets.token_hex(4)}"
        make_secret_folder(made)
        for name, content in files.items():
            write_secret(made / name, content)
        text = msgspec.json.format(msgspec.json.encode(config)) + b"\n"
        write_secret(made / "agent.json", text)
        self._swap(made)

    def _swap(self, made: Path) -> None:
        link = self._folder / ".identity.new"
        link.unlink(missing_ok=True)
        link.symlink_to(made.name)
        link.replace(self._link)
        sync_folder(self._folder)
        self._remove_others(made.name)

    def _remove_others(self, kept: str) -> None:
        for path in self._folder.glob("identity.*"):
            if path.name != kept:
                shutil.rmtree(path)


def checked(robot: str, coordinators: list[str]) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Return a robot's id, and the addresses of its coordinators. Raises ControlError."""
    if not is_name(robot):
        raise ControlError("bad-request", f"{robot[:MAX_NAME]!r} is not a valid robot id")
    if not 0 < len(coordinators) <= MAX_COORDINATORS:
        raise ControlError(
            "bad-request",
            f"{len(coordinators)} coordinators are named; 1 to {MAX_COORDINATORS} are possible",
        )
    return robot, tuple(address_of(each) for each in coordinators)


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of `host`, `host:port`, `[IPv6]` or `[IPv6]:port`.

    Raises:
        ControlError: it has another form.
    """
    found = _ADDRESS.fullmatch(text)
    port = int((found and found["port"]) or DEFAULT_PORT)
    if found is None or not 0 < port < 1 << 16:
        raise ControlError(
            "bad-request",
            f"{text[:300]!r} is not the address of a coordinator",
            "write `host`, `host:port` or `[IPv6 address]:port`",
        )
    return found["v6"] or found["host"], port


def _read_enrolment(path: Path) -> bytes:
    """Return the text of an enrolment; empty if there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _decode(content: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ControlError("refused", f"{what} is damaged: {error}", "enrol it again") from None
