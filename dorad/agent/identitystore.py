"""The identity of this robot on its disk: requested, enrolled, renewed, handed over, removed.

All of it is in one folder, `identity`, which is a link that is replaced at once: a power cut leaves
the old identity or the new one, never the key of one with the certificate of the other.
"""

import hashlib
import logging
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from dorad.agent.folder import (
    FIRST,
    HAND_OVER,
    daemon_socket,
    decode,
    make_secret_folder,
    write_secret,
)
from dorad.agent.identity import IDENTITY, Config, Enrolment, Identity, checked
from dorad.agent.secrets import SecretFiles, unsealed_folder
from dorad.atomicfile import sync_folder
from dorad.control.errors import ControlError
from dorad.control.messages.agent import HandOver, Trust
from dorad.control.tls import MAX_NAME, is_name

ENROLMENT = "enrolment"
"""In the identity: a random text that changes with each enrolment, but not with a renewal. It is
missing if an earlier version has enrolled the robot."""

FILES = ("key.pem", "chain.pem", "authority.pem", "issuer.pem", ENROLMENT, FIRST, HAND_OVER)
"""All that belongs to an identity besides `agent.json`."""

_NOT_ENROLLED = "run `dorafleet enrol` on the operator's machine"

_log = logging.getLogger(__name__)


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
            config = decode(path.read_bytes(), Config, str(path))
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

        config = decode((self._link / "agent.json").read_bytes(), Config, "agent.json")
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
        """Trust the authority that follows, or only one again; return which are trusted then.

        Raises:
            ControlError: `order` is refused; see `handover.after`.
        """
        from dorad.agent import handover

        files = self._files()
        self._rewrite(files, handover.after(files, order, now))
        return self.trust()

    def end_hand_over(self, now: float) -> None:
        """Drop the old authority once its hand-over has ended, by this robot's clock."""
        from dorad.agent import handover

        files = self._files()
        self._rewrite(files, handover.ended(files, now))

    def trust(self) -> Trust:
        """Return which authorities this robot trusts. Raises ControlError."""
        from dorad.agent import handover

        return handover.trust_in(self._files())

    def move(self, coordinators: list[str]) -> Identity:
        """Use other addresses of the fleet's coordinators, with the same key. Raises as `load`."""
        identity = self.load()
        checked(identity.robot, coordinators)
        self._write(Config(identity.robot, coordinators), self._files())
        _log.info("this robot obeys %s", ", ".join(coordinators))
        return self.load()

    def _files(self) -> dict[str, bytes]:
        """Return the files of the present identity that there are. Raises ControlError."""
        files = {}
        for name in FILES:
            try:
                files[name] = (self._link / name).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ControlError(
                    "refused", f"{self._link / name} cannot be read: {error.strerror}"
                ) from None
        return files

    def _rewrite(self, before: Mapping[str, bytes], files: Mapping[str, bytes]) -> None:
        """Use other files with the same addresses, if they have changed."""
        if files != before:
            config = decode((self._link / "agent.json").read_bytes(), Config, "agent.json")
            self._write(config, files)

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
        text = msgspec.json.format(msgspec.json.encode(config)) + b"\n"
        try:
            make_secret_folder(made)
            for name, content in {**files, "agent.json": text}.items():
                write_secret(made / name, content)
            self._swap(made)
        except OSError:
            # On a full disk a coordinator tries again and again.
            if self.version != made.name:
                shutil.rmtree(made, ignore_errors=True)
            raise

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


def _read_enrolment(path: Path) -> bytes:
    """Return the text of an enrolment; empty if there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
