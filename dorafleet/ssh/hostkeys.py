"""Verify a robot's host key against known_hosts, like OpenSSH.

asyncssh refuses every key that is not in known_hosts. This module distinguishes unknown keys from
changed ones, and adds `accept_new`, which writes unknown keys to known_hosts, never changed ones.
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
    """The known host keys of one machine, and the result of their check."""

    def __init__(self, machine: Machine, *, accept_new: bool) -> None:
        """Read ~/.ssh/config. Raises what asyncssh does if that file is not valid."""
        self._accept_new = accept_new
        options = asyncssh.SSHClientConnectionOptions(
            config=(),
            host=machine.host,
            port=machine.port or (),
            username=machine.user or (),
            client_keys=None,
        )
        self._files = _user_files(options.known_hosts)
        """The operator's known_hosts files; new keys are written to the first."""
        name = options.host_key_alias or options.host
        self.algorithms = (
            () if options.config.get("HostKeyAlgorithms") else self._preferred(name, options.port)
        )
        """The key algorithms to request. Those of known keys come first. The others follow, so that
        a changed key of another kind is detected. If empty, asyncssh decides."""
        self._name = ""
        self._known: list[asyncssh.SSHKey] = []
        self._refused: asyncssh.SSHKey | None = None
        self._write_error: OSError | None = None

    def match(self, host: str, addr: str, port: int | None) -> Matched:
        """Return known keys, authorities and revoked keys; asyncssh calls this when it connects."""
        self._name = host if port in (None, SSH_PORT) else f"[{host}]:{port}"
        keys = self._look_up(host, addr, port)
        self._known = list(keys[0])
        return keys

    def accept(self, key: asyncssh.SSHKey) -> bool:
        """Return True if a key that is not among the known ones is accepted."""
        if self._known or not self._accept_new:
            self._refused = key
            return False
        try:
            self._add_known(key)
        except OSError as error:
            self._refused, self._write_error = key, error
            return False
        return True

    def refusal(self) -> SshError | None:
        """Return why the key was refused, None if it was not refused."""
        if self._write_error is not None:
            message = f"its host key cannot be written to {self._files[0]}"
            return SshError(Code.CONFIG, f"{message}: {self._write_error.strerror}")
        shown = "" if self._refused is None else f" {self._refused.get_fingerprint()}"
        if self._known:
            return SshError(
                Code.HOST_KEY_CHANGED,
                f"its host key{shown} is not the one in known_hosts: another machine answers, or "
                "it was reinstalled",
                f"if that is expected: ssh-keygen -R '{self._name}'",
            )
        if self._refused is None:
            return None
        host, _, port = self._name.removeprefix("[").partition("]:")
        option = f"-p {port} " if port else ""
        return SshError(
            Code.HOST_KEY_UNKNOWN,
            f"its host key{shown} is not known",
            f"compare it with the robot's own, then: ssh-keyscan {option}{host} >> "
            f"{self._files[0]}, or trust all new keys: --accept-new",
        )

    def _look_up(self, host: str, addr: str, port: int | None) -> Matched:
        names = [str(path) for path in (*self._files, SYSTEM) if os.access(path, os.R_OK)]
        keys = asyncssh.match_known_hosts(names or b"", host, addr, port)
        return keys[0], keys[1], keys[2]

    def _preferred(self, host: str, port: int) -> list[str]:
        known, authorities, _ = self._look_up(host, "", None if port == SSH_PORT else port)
        if not known:
            return []
        first = [name for key in known for name in key.sig_algorithms]
        certificates = get_default_certificate_algs() if authorities else []
        names = [*certificates, *first, *get_default_public_key_algs()]
        return [name.decode() for name in dict.fromkeys(names)]

    def _add_known(self, key: asyncssh.SSHKey) -> None:
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
    """A client that asks `HostKeys` about keys that are not in known_hosts."""

    def __init__(self, keys: HostKeys) -> None:
        self._keys = keys

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Return True if the key is trusted."""
        del host, addr, port
        return self._keys.accept(key)


def _user_files(given: object) -> list[Path]:
    """Return the operator's known_hosts files, from ~/.ssh/config or the default."""
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    default = Path("~/.ssh/known_hosts").expanduser()
    return [Path(name).expanduser() for name in names] or [default]
