"""Whether a robot is who it says: its host key against known_hosts, as OpenSSH does it.

asyncssh refuses a key that is not known; what is added here is that an unknown key is told apart
from a changed one, and `accept_new`, which writes an unknown one down and never a changed one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorafleet.inventory.model import Machine

    Matched = tuple[Sequence[asyncssh.SSHKey], Sequence[asyncssh.SSHKey], Sequence[asyncssh.SSHKey]]

SYSTEM = Path("/etc/ssh/ssh_known_hosts")
SSH_PORT = 22


class HostKeys:
    """What is known of the host key of one connection, and what came of it.

    Made before the connection, it reads ~/.ssh/config. Raises what asyncssh does if that is wrong.
    """

    def __init__(self, machine: Machine, *, accept_new: bool) -> None:
        self._accept_new = accept_new
        options = asyncssh.SSHClientConnectionOptions(
            config=(),
            host=machine.host,
            port=machine.port or (),
            username=machine.user or (),
            client_keys=None,
        )
        self._files = _user_files(options.known_hosts)
        """The operator's known_hosts, of which the first is written to."""
        name = options.host_key_alias or options.host
        self.algorithms = (
            () if options.config.get("HostKeyAlgorithms") else self._wanted(name, options.port)
        )
        """Kinds of keys to ask for: those that are known first, but the others, too, so that a
        robot whose key is now of another kind shows it. Empty leaves it to asyncssh."""
        self._name = ""
        self._known: list[asyncssh.SSHKey] = []
        self._refused: asyncssh.SSHKey | None = None
        self._unwritten: OSError | None = None

    def match(self, host: str, addr: str, port: int | None) -> Matched:
        """Return host keys, authorities and revoked keys; asyncssh calls this once it connects."""
        self._name = host if port in (None, SSH_PORT) else f"[{host}]:{port}"
        found = self._look_up(host, addr, port)
        self._known = list(found[0])
        return found

    def accept(self, key: asyncssh.SSHKey) -> bool:
        """Return whether a key that is not among the known ones will do."""
        if self._known or not self._accept_new:
            self._refused = key
            return False
        try:
            self._write_down(key)
        except OSError as error:
            self._refused, self._unwritten = key, error
            return False
        return True

    def refusal(self) -> SshError | None:
        """Return why the key was refused; None if that is not what has failed."""
        if self._unwritten is not None:
            said = f"its host key cannot be written to {self._files[0]}"
            return SshError(Code.CONFIG, f"{said}: {self._unwritten.strerror}")
        shown = "" if self._refused is None else f" {self._refused.get_fingerprint()}"
        if self._known:
            return SshError(
                Code.HOST_KEY_CHANGED,
                f"its host key{shown} is not the one in known_hosts: another machine answers, or "
                "it was installed anew",
                f"if that is as it should be: ssh-keygen -R '{self._name}'",
            )
        if self._refused is None:
            return None
        host, _, port = self._name.removeprefix("[").partition("]:")
        option = f"-p {port} " if port else ""
        return SshError(
            Code.HOST_KEY_UNKNOWN,
            f"its host key{shown} is not known",
            f"compare it with the robot's own, then: ssh-keyscan {option}{host} >> "
            f"{self._files[0]}, or trust every new one: --accept-new",
        )

    def _look_up(self, host: str, addr: str, port: int | None) -> Matched:
        names = [str(path) for path in (*self._files, SYSTEM) if os.access(path, os.R_OK)]
        found = asyncssh.match_known_hosts(names or b"", host, addr, port)
        return found[0], found[1], found[2]

    def _wanted(self, host: str, port: int) -> list[str]:
        known, authorities, _ = self._look_up(host, "", None if port == SSH_PORT else port)
        if not known:
            return []
        first = [name for key in known for name in key.sig_algorithms]
        certificates = get_default_certificate_algs() if authorities else []
        wanted = [*certificates, *first, *get_default_public_key_algs()]
        return [name.decode() for name in dict.fromkeys(wanted)]

    def _write_down(self, key: asyncssh.SSHKey) -> None:
        path = self._files[0]
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = " ".join([self._name, *key.export_public_key("openssh").decode().split()[:2]])
        with path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    line = f"\n{line}"
            file.write(f"{line}\n".encode())


class Client(asyncssh.SSHClient):
    """Asks `HostKeys` about keys that asyncssh does not find among the known ones."""

    def __init__(self, keys: HostKeys) -> None:
        self._keys = keys

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Return whether to trust the key."""
        del host, addr, port
        return self._keys.accept(key)


def _user_files(given: object) -> list[Path]:
    """Return the operator's known_hosts files, as ~/.ssh/config has them or by default."""
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    default = Path("~/.ssh/known_hosts").expanduser()
    return [Path(name).expanduser() for name in names] or [default]
