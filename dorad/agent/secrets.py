"""The secrets of a robot: sealed on the disk, unsealed in memory for the nodes that dorad starts.

The key to unseal them is in a file of its own. No renewal of a certificate touches it; who leaves
the fleet, or joins another one, forgets it with all secrets.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dorad.agent.folder import SYSTEM_DIR, make_secret_folder, write_secret
from dorad.atomicfile import ANY_TEMPORARY, remove_abandoned, sync_folder
from dorad.boundedfile import read_bounded
from dorad.control.errors import ControlError
from dorad.control.messages.agent import HeldSecret, SealedSecret, SecretsHeld
from dorad.dataflow.secrets import MAX_SECRET, NAME_PATTERN
from dorad.launch.secrets import FOLDER, OF_AGENT

MAX_SECRETS = 100
"""Secrets of one robot."""

_KEY = "key"
_SUFFIX = ".sealed"
_KEY_BYTES = 32
_MAX_FILE = 2 * MAX_SECRET
_NAME = re.compile(NAME_PATTERN)
_log = logging.getLogger(__name__)


def unsealed_folder(folder: Path, socket: Path) -> Path:
    """Return where dorad, at `socket`, looks for the secrets of the agent with this folder."""
    return OF_AGENT if folder == SYSTEM_DIR else socket.parent / FOLDER


class SecretFiles:
    """The secrets of one agent. Nothing is cached: a command may change them while it runs."""

    def __init__(self, folder: Path, unsealed: Path) -> None:
        """`folder` is the agent's; `unsealed` is in memory."""
        self._folder = folder / FOLDER
        self._unsealed = unsealed
        self.problems: dict[str, str] = {}
        """Why secrets cannot be used, by name, since the last time that any method looked."""

    def held(self, robot: str, refused: dict[str, str] | None = None) -> SecretsHeld:
        """Return the key for sealing, and the secrets that this robot can give to nodes.

        Makes the key if there is none. Never raises: what cannot be used is in `refused`.
        """
        from dorad.control.sealed import public_key  # few commands of the agent need cryptography

        problems, versions = dict(refused or {}), {}
        public = ""
        try:
            key = self._key()
            public = public_key(key)
            for name, secret in self._stored(problems):
                if self._open(secret, key, robot, problems) is not None:
                    versions[name] = HeldSecret(version=secret.version, target=secret.target)
        except (ControlError, OSError) as error:
            problems.setdefault("", f"secrets cannot be used: {error}")
        self.problems = problems
        return SecretsHeld(key=public, held=versions, refused=problems)

    def restore(self, robot: str) -> SecretsHeld:
        """Unseal all secrets after a boot, and return what `held` does."""
        problems: dict[str, str] = {}
        try:
            key = self._key()
            kept = set()
            for name, secret in self._stored(problems):
                kept.add(name)
                value = self._open(secret, key, robot, problems)
                if value is not None:
                    self._write_unsealed(name, value)
            for name in self._unsealed_names() - kept - problems.keys():
                _log.info("secret %s is removed: it is not stored", name)
                (self._unsealed / name).unlink(missing_ok=True)
        except (ControlError, OSError) as error:
            problems[""] = f"secrets cannot be restored: {error}"
        for text in problems.values():
            _log.warning("%s", text)
        return self.held(robot, problems)

    def change(
        self, robot: str, puts: Sequence[SealedSecret], removes: Sequence[str]
    ) -> SecretsHeld:
        """Store secrets and remove others; return what `held` does.

        Each is stored as a whole or not at all. One that cannot be used does not replace the one
        before.
        """
        refused: dict[str, str] = {}
        for name in removes:
            if _NAME.fullmatch(name):
                self._remove(name, refused)
        for secret in puts:
            try:
                self._put(robot, secret)
            except ControlError as error:
                refused[secret.name] = error.message
            except OSError as error:
                refused[secret.name] = f"secret {secret.name} cannot be stored: {error.strerror}"
        for text in refused.values():
            _log.warning("%s", text)
        return self.held(robot, refused)

    def forget(self) -> None:
        """Remove the key and all secrets, sealed and unsealed. Raises OSError."""
        if not self._folder.is_dir():
            return
        for path in self._folder.glob(f"*{_SUFFIX}"):
            (self._unsealed / path.name.removesuffix(_SUFFIX)).unlink(missing_ok=True)
        shutil.rmtree(self._folder)
        sync_folder(self._folder.parent)
        _log.info("the key for secrets and all secrets are removed")

    def _put(self, robot: str, secret: SealedSecret) -> None:
        """Store one secret. Raises ControlError or OSError."""
        name = secret.name
        if not _NAME.fullmatch(name):
            raise ControlError("bad-request", f"{name[:80]!r} is not a valid name of a secret")
        value = _unseal(secret, self._key(), robot)
        if not 0 < len(value) <= MAX_SECRET:
            raise ControlError(
                "refused",
                f"secret {name} has {len(value)} bytes; 1 to {MAX_SECRET} are possible",
            )
        others = sum(other != name for other, _ in self._stored({}))
        if others >= MAX_SECRETS:
            raise ControlError(
                "refused", f"secret {name}: a robot has at most {MAX_SECRETS} secrets"
            )
        write_secret(self._sealed(name), msgspec.json.encode(secret))
        self._write_unsealed(name, value)
        _log.info("secret %s is stored, version %d", name, secret.version)

    def _remove(self, name: str, refused: dict[str, str]) -> None:
        try:
            for path in (self._sealed(name), self._unsealed / name):
                path.unlink(missing_ok=True)
            if self._folder.is_dir():
                sync_folder(self._folder)
            _log.info("secret %s is removed", name)
        except OSError as error:
            refused[name] = f"secret {name} cannot be removed: {error.strerror}"

    def _key(self) -> bytes:
        """Return the private key; make one if there is none. Raises OSError."""
        from dorad.control.sealed import new_key

        path = self._folder / _KEY
        try:
            key = read_bounded(path, _KEY_BYTES)
        except FileNotFoundError:
            key = b""
        if len(key) != _KEY_BYTES:
            if key:
                _log.error("%s is damaged: a new key is made, and all secrets have to be set", path)
            if not self._folder.is_dir():
                make_secret_folder(self._folder)
            key = new_key()
            write_secret(path, key)
            # dorad needs the values only.
            path.chmod(0o600)
            _log.info("made a key for secrets")
        return key

    def _stored(self, problems: dict[str, str]) -> Iterator[tuple[str, SealedSecret]]:
        """Yield the sealed secrets; add to `problems` what is damaged. Raises OSError."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            name = path.name.removesuffix(_SUFFIX)
            if not _NAME.fullmatch(name):
                continue
            try:
                secret = msgspec.json.decode(read_bounded(path, _MAX_FILE), type=SealedSecret)
            except (msgspec.DecodeError, UnicodeError, RecursionError, OSError) as error:
                problems[name] = f"secret {name}: {path} is damaged: {error}"
                continue
            if secret.name != name:
                problems[name] = f"secret {name}: {path} is that of {secret.name}"
                continue
            yield name, secret

    def _open(
        self, secret: SealedSecret, key: bytes, robot: str, problems: dict[str, str]
    ) -> bytes | None:
        try:
            return _unseal(secret, key, robot)
        except ControlError as error:
            problems[secret.name] = error.message
            return None

    def _write_unsealed(self, name: str, value: bytes) -> None:
        """Write a value for dorad, unless it is there: its time says when it changed."""
        if not self._unsealed.is_dir():
            make_secret_folder(self._unsealed)
        remove_abandoned(self._unsealed, ANY_TEMPORARY)
        path = self._unsealed / name
        with contextlib.suppress(OSError):
            if read_bounded(path, MAX_SECRET) == value:
                return
        write_secret(path, value)

    def _unsealed_names(self) -> set[str]:
        try:
            return {path.name for path in self._unsealed.iterdir()}
        except FileNotFoundError:
            return set()

    def _sealed(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def _unseal(secret: SealedSecret, key: bytes, robot: str) -> bytes:
    from dorad.control.sealed import Purpose, unseal

    return unseal(secret.sealed, key, Purpose(robot, secret.name, secret.version))
