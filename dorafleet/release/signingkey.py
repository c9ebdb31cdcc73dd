"""Sign a manifest with a key of the SSH agent, as `ssh-keygen -Y sign -n dorad-bundle` does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.agent import SSHAgentKeyPair
from asyncssh.packet import String, UInt32

from dorad.control.errors import ControlError
from dorad.control.privatefile import check_private
from dorad.release.signature import NAMESPACE
from dorafleet.release.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncssh import SSHKeyPair

TIMEOUT_S = 60.0
"""How long a signature may take: a security key waits for a touch."""
_HASH = "sha512"
_ABOUT = String(NAMESPACE) + String(b"") + String(_HASH)
_log = logging.getLogger(__name__)

_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE = 70


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that the agent has, or that is in a file."""

    public: str
    """Its line in `allowed_signers`, without the name of the signer."""
    fingerprint: str
    comment: str
    file: Path | None = None
    """The private key, if the agent does not have it."""

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.comment}".strip()

    def sign(self, content: bytes) -> bytes:
        """Return the signature of `content`. Raises BuildError."""
        return asyncio.run(_sign(self, content))


def choose(wanted: str | None, *, public: bool = False) -> SigningKey:
    """Return the key to sign with: the only one of the agent, or the one that `wanted` names.

    That is a file with a public or private key, a fingerprint, or a comment. With `public` it need
    not be able to sign.

    Raises:
        BuildError: there is no such key, or `wanted` is missing and there are several.
    """
    path = None if wanted is None else Path(wanted).expanduser()
    try:
        keys = asyncio.run(_agent_keys())
    except BuildError as error:
        # A key in a file needs no agent.
        if path is None or not path.is_file():
            raise
        _log.debug("%s", error)
        keys = []
    if wanted is None or path is None:
        if len(keys) == 1:
            return keys[0]
        if not keys:
            raise BuildError("the SSH agent has no key", "ssh-add, or name a file with --key")
        listed = "; ".join(map(str, keys))
        raise BuildError(f"the SSH agent has {len(keys)} keys: {listed}", "choose one with --key")
    if path.is_file():
        return _from_file(path, keys, public=public)
    matching = [key for key in keys if wanted in (key.fingerprint, key.comment)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise BuildError(f"{len(matching)} keys of the SSH agent are called {wanted!r}")
    raise BuildError(
        f"{wanted!r} is neither a file nor a key of the SSH agent", "ssh-add -l lists its keys"
    )


def agent_keys() -> list[SigningKey]:
    """Return the keys of the SSH agent, none without an agent. Raises BuildError."""
    return asyncio.run(_agent_keys())


def _from_file(path: Path, keys: Sequence[SigningKey], *, public: bool) -> SigningKey:
    """Return the key in a file; the agent's, if it has it."""
    try:
        key = asyncssh.read_public_key(path)
    except (asyncssh.KeyImportError, ValueError, OSError) as error:
        raise BuildError(f"{path} cannot be read as a key: {error}") from error
    fingerprint = key.get_fingerprint()
    for each in keys:
        if each.fingerprint == fingerprint:
            return each
    private = path.with_suffix("") if path.suffix == ".pub" else path
    if not public and not private.is_file():
        raise BuildError(f"the SSH agent does not have the key of {path}", f"ssh-add {private}")
    if not public:
        try:
            check_private(private)
        except ControlError as error:
            raise BuildError(error.message, error.hint) from error
    return SigningKey(_public(key), fingerprint, (key.get_comment() or ""), private)


async def _agent_keys() -> list[SigningKey]:
    socket = os.environ.get("SSH_AUTH_SOCK")
    if not socket:
        return []
    try:
        async with asyncio.timeout(TIMEOUT_S), asyncssh.connect_agent() as agent:
            return [_described(each) for each in await agent.get_keys() if not each.has_cert]
    except (OSError, ValueError, asyncssh.Error) as error:
        why = getattr(error, "strerror", None) or str(error) or "it takes too long"
        raise BuildError(
            f"the SSH agent at {socket} (SSH_AUTH_SOCK) does not answer: {why}",
            "start one with `eval $(ssh-agent)` and `ssh-add`, or name a file with --key",
        ) from error


def _described(pair: SSHKeyPair) -> SigningKey:
    key = asyncssh.import_public_key(_line(pair))
    return SigningKey(_public(key), key.get_fingerprint(), pair.get_comment() or "")


def _line(pair: SSHKeyPair) -> str:
    return f"{pair.algorithm.decode()} {base64.b64encode(pair.public_data).decode()}"


def _public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


async def _sign(key: SigningKey, content: bytes) -> bytes:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if key.file is not None:
                # Robots trust keys; a certificate beside the file, for logins, would come first.
                pairs = asyncssh.load_keypairs(str(key.file))
                pair = next(each for each in pairs if not each.has_cert)
                signed = _to_sign(pair, content)
                return _armoured(pair, pair.sign(signed))
            async with asyncssh.connect_agent() as agent:
                for pair in await agent.get_keys():
                    if isinstance(pair, SSHAgentKeyPair) and _line(pair) == key.public:
                        signed = _to_sign(pair, content)
                        return _armoured(pair, await pair.sign_async(signed))
    except TimeoutError as error:
        raise BuildError(f"the SSH agent has not signed within {TIMEOUT_S:g} s") from error
    except asyncssh.KeyImportError as error:
        message = f"{key.file} cannot be used: {error}"
        raise BuildError(message, "add it to the SSH agent: ssh-add") from error
    except (OSError, ValueError, asyncssh.Error) as error:
        raise BuildError(f"the SSH agent refuses to sign: {error}") from error
    raise BuildError(f"the SSH agent has no longer the key {key.fingerprint}", "ssh-add")


def _to_sign(pair: SSHKeyPair, content: bytes) -> bytes:
    """Return what the key signs instead of the content itself."""
    if pair.algorithm == b"ssh-rsa":
        pair.set_sig_algorithm(b"rsa-sha2-512")
    return b"SSHSIG" + _ABOUT + String(hashlib.new(_HASH, content).digest())


def _armoured(pair: SSHKeyPair, answer: bytes) -> bytes:
    blob = b"SSHSIG" + UInt32(1) + String(pair.public_data) + _ABOUT + String(answer)
    lines = textwrap.wrap(base64.b64encode(blob).decode(), _LINE)
    return "\n".join([_BEGIN, *lines, _END, ""]).encode()
