"""What asyncssh and the network raise, in words that say what to do."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import asyncssh

from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from dorafleet.inventory.model import Machine
    from dorafleet.ssh.hostkeys import HostKeys

RAISED = (OSError, asyncssh.Error, asyncssh.KeyImportError, asyncssh.ConfigParseError, ValueError)
"""What a connection may raise; TimeoutError is an OSError. asyncssh says ValueError of wrong
options and files."""


def why_not_connected(
    error: Exception, machine: Machine, keys: HostKeys | None, seconds: float
) -> SshError:
    """Return what is wrong with a connection that did not come about."""
    where = machine.host if machine.port is None else f"{machine.host} port {machine.port}"
    match error:
        case TimeoutError():
            said = f"{where} does not answer within {seconds:g} s"
            return SshError(Code.UNREACHABLE, said, "is it on, and in this network?")
        case socket.gaierror():
            said = f"the name {machine.host} is not known"
            return SshError(Code.UNREACHABLE, said, "write an address, or the name that DNS has")
        case ConnectionRefusedError() | OSError(errno=errno.ECONNREFUSED):
            said = f"nothing listens at {where}"
            return SshError(Code.UNREACHABLE, said, "does sshd run there?")
        case asyncssh.HostKeyNotVerifiable() | asyncssh.KeyExchangeFailed():
            refusal = None if keys is None else keys.refusal()
            return refusal or SshError(Code.HOST_KEY_UNKNOWN, f"{where}: {error.reason}")
        case asyncssh.PermissionDenied():
            user = f"the user {machine.user}" if machine.user else "this user"
            said = f"{where} does not let {user} in with any key of the agent or of ~/.ssh"
            hint = "ssh-add, ssh-copy-id, or another `user`; passwords are not asked for"
            return SshError(Code.DENIED, said, hint)
        case asyncssh.ConfigParseError():
            return SshError(Code.CONFIG, f"~/.ssh/config cannot be read: {error}")
        case asyncssh.KeyEncryptionError() | asyncssh.KeyImportError():
            said = f"a key that ~/.ssh/config names cannot be used: {error}"
            return SshError(Code.CONFIG, said, "keys with a passphrase: ssh-add")
        case asyncssh.DisconnectError():
            return SshError(Code.UNREACHABLE, f"{where} ended the connection: {error.reason}")
        case asyncssh.ChannelOpenError():
            return SshError(Code.UNREACHABLE, f"{where} cannot be reached: {error.reason}")
        case OSError():
            said = f"{where} cannot be reached: {error.strerror or error}"
            return SshError(Code.UNREACHABLE, said)
    return SshError(Code.CONFIG, f"cannot connect to {where}: {error}")


def why_lost(error: Exception, doing: str) -> SshError:
    """Return what is wrong with a connection that ended in the middle of something."""
    if isinstance(error, asyncssh.ChannelOpenError):
        said = f"sshd there refuses to start a command: {error.reason}"
        return SshError(Code.FAILED, said, "MaxSessions in its sshd_config has to be 6 or more")
    reason = error.reason if isinstance(error, asyncssh.Error) else str(error)
    return SshError(Code.LOST, f"the connection was lost during {doing}: {reason or 'no reason'}")
