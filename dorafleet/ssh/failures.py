"""Convert exceptions of asyncssh and the network to errors with a hint."""

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
"""The exceptions of a connection. TimeoutError is an OSError; asyncssh raises ValueError for wrong
options and files."""


def connect_error(
    error: Exception, machine: Machine, keys: HostKeys | None, seconds: float
) -> SshError:
    """Return the error of a failed attempt to connect."""
    where = machine.host if machine.port is None else f"{machine.host} port {machine.port}"
    match error:
        case TimeoutError():
            message = f"{where} does not answer within {seconds:g} s"
            return SshError(Code.UNREACHABLE, message, "is it switched on, and in this network?")
        case socket.gaierror():
            message = f"the name {machine.host} is unknown"
            return SshError(Code.UNREACHABLE, message, "use an address, or a name that DNS knows")
        case ConnectionRefusedError() | OSError(errno=errno.ECONNREFUSED):
            message = f"nothing listens at {where}"
            return SshError(Code.UNREACHABLE, message, "does sshd run there?")
        case asyncssh.HostKeyNotVerifiable() | asyncssh.KeyExchangeFailed():
            refusal = None if keys is None else keys.refusal()
            return refusal or SshError(Code.HOST_KEY_UNKNOWN, f"{where}: {error.reason}")
        case asyncssh.PermissionDenied():
            user = f"the user {machine.user}" if machine.user else "this user"
            message = f"{where} refuses {user} with every key of the agent and of ~/.ssh"
            hint = "use ssh-add, ssh-copy-id, or another `user`; passwords are not supported"
            return SshError(Code.DENIED, message, hint)
        case asyncssh.ConfigParseError():
            return SshError(Code.CONFIG, f"~/.ssh/config cannot be read: {error}")
        case asyncssh.KeyEncryptionError() | asyncssh.KeyImportError():
            message = f"a key that ~/.ssh/config names cannot be used: {error}"
            return SshError(Code.CONFIG, message, "keys with a passphrase: ssh-add")
        case asyncssh.DisconnectError():
            return SshError(Code.UNREACHABLE, f"{where} ended the connection: {error.reason}")
        case asyncssh.ChannelOpenError():
            return SshError(Code.UNREACHABLE, f"{where} cannot be reached: {error.reason}")
        case OSError():
            message = f"{where} cannot be reached: {error.strerror or error}"
            return SshError(Code.UNREACHABLE, message)
    return SshError(Code.CONFIG, f"cannot connect to {where}: {error}")


def lost_error(error: Exception, doing: str) -> SshError:
    """Return the error of a connection that ended during an operation."""
    if isinstance(error, asyncssh.ChannelOpenError):
        message = f"its sshd refuses to start a command: {error.reason}"
        return SshError(Code.FAILED, message, "MaxSessions in its sshd_config must be 6 or more")
    reason = error.reason if isinstance(error, asyncssh.Error) else str(error)
    return SshError(Code.LOST, f"the connection was lost during {doing}: {reason or 'no reason'}")
