"""A connection to one robot: run commands and copy files; and its errors, with hints."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import shlex
import socket
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import asyncssh

from dorafleet.ssh.errors import Code, SshError
from dorafleet.ssh.hostkeys import Client, HostKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from dorafleet.inventory.model import Machine

RAISED = (OSError, asyncssh.Error, asyncssh.KeyImportError, asyncssh.ConfigParseError, ValueError)
"""The exceptions of a connection. TimeoutError is an OSError; asyncssh raises ValueError for wrong
options and files."""
CONNECT_TIMEOUT_S = 10.0
"""How long connecting and logging in may take."""
COMMAND_TIMEOUT_S = 30.0
"""How long a command may take by default."""
OUTPUT_LIMIT = 1 << 20
"""Maximum bytes that a command may print, to each of its two outputs."""
MAX_LINE = 300
"""Maximum characters of a command's last line in a message."""
KEEPALIVE_S = 5.0
MAX_MISSED_KEEPALIVES = 3
"""After these the connection ends: a robot that is cut off is noticed within 20 s."""
STALL_TIMEOUT_S = 60.0
"""How long one chunk of a file may take."""
START_TIMEOUT_S = 2.0
"""How long to wait for a command that is cancelled before the robot has said that it runs."""
CLOSE_TIMEOUT_S = 2.0
"""How long closing a connection may take."""
CHUNK = 256 << 10
"""Bytes that are read at once."""

# Our errors contain what asyncssh logs; without a handler Python would print it, too.
logging.getLogger("asyncssh").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command."""

    code: int
    """The exit code. After a signal: 128 + its number from a shell, -1 from sshd."""
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line of stderr, or else of stdout."""
        lines = self.stderr.strip().splitlines() or self.stdout.strip().splitlines()
        return lines[-1].strip()[:MAX_LINE] if lines else f"exit code {self.code}"


class Connection:
    """An open connection; see `connect`."""

    def __init__(self, ssh: asyncssh.SSHClientConnection) -> None:
        self._ssh = ssh

    async def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = COMMAND_TIMEOUT_S,
        limit: int = OUTPUT_LIMIT,
        doing: str | None = None,
        given: bytes | None = None,
    ) -> CommandResult:
        """Run a command and return its result, with any exit code. Its words are quoted.

        Errors name `doing` instead of the command; `given` is its input.

        Raises:
            SshError: it takes longer than `timeout` seconds, when it gets SIGTERM, prints more
                than `limit` bytes, or the connection is lost. The command may then still run.
        """
        doing = doing or f"`{shlex.join(command)}`"
        try:
            async with asyncio.timeout(timeout):
                return await self._run(command, limit, doing, given)
        except TimeoutError as error:
            message = f"{doing} is not done after {timeout:g} s"
            raise SshError(Code.TIMEOUT, message) from error
        except RAISED as error:
            raise lost_error(error, doing) from error

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._ssh.is_closed()

    async def forward_socket(self, local: Path, remote: str) -> None:
        """Forward connections to the socket `local` to the Unix socket `remote` of the robot.

        Raises:
            SshError: the connection is lost, or the socket cannot be made.
        """
        try:
            await self._ssh.forward_local_path(str(local), remote)
        except RAISED as error:
            raise lost_error(error, f"forwarding {remote}") from error

    async def check(self, command: Sequence[str], *, timeout: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command and return what it printed. Raises SshError if it fails."""
        done = await self.run(command, timeout=timeout)
        if done.code:
            raise SshError(Code.FAILED, f"`{shlex.join(command)}` failed: {done.last_line}")
        return done.stdout

    @asynccontextmanager
    async def talk(self, command: Sequence[str]) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
        """Run a command and talk to it over its pipes. It is closed at the end.

        The caller puts a deadline on each step. Raises SshError if the connection is lost.
        """
        doing = f"`{shlex.join(command)}`"
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                process = await self._ssh.create_process(shlex.join(command), encoding=None)
            with closing(process):
                yield process
        except RAISED as error:
            raise lost_error(error, doing) from error

    async def upload(
        self, source: Path, target: str, sent: Callable[[int], object] = lambda count: None
    ) -> None:
        """Copy a file to the path `target` on the robot, and verify its checksum.

        It is the input of `cat`, which every robot has, and which reports why it failed. `sent` is
        called with the number of bytes sent so far.

        Raises:
            SshError: the file cannot be written, stalls, or arrives damaged.
            OSError: `source` cannot be opened.
        """
        doing = f"copying {source.name}"
        digest = hashlib.sha256()
        with source.open("rb") as file:
            try:
                done = await self._feed(target, partial(file.read, CHUNK), digest.update, sent)
            except TimeoutError as error:
                message = f"{doing} has stalled for {STALL_TIMEOUT_S:g} s"
                raise SshError(Code.TIMEOUT, message) from error
            except RAISED as error:
                raise lost_error(error, doing) from error
        if done.code:
            raise SshError(Code.FAILED, f"{doing} failed: {done.last_line}")
        arrived = (await self.check(["sha256sum", "--", target])).split()
        if arrived[:1] != [digest.hexdigest()]:
            raise SshError(Code.FAILED, f"{source.name} arrived damaged", "try again")

    async def _run(
        self, command: Sequence[str], limit: int, doing: str, given: bytes | None
    ) -> CommandResult:
        source = asyncssh.DEVNULL if given is None else asyncssh.PIPE
        process = await self._start(command, source)
        # Not `async with`, which would wait for a robot that never confirms the end.
        with closing(process):
            if given is not None:
                # A command that ends without reading it says why on stderr.
                with suppress(BrokenPipeError):
                    process.stdin.write(given)
                    process.stdin.write_eof()
            try:
                outputs = await asyncio.gather(
                    _read(process, process.stdout, limit), _read(process, process.stderr, limit)
                )
                if None in outputs:
                    message = f"{doing} prints more than {limit >> 10} KiB"
                    raise SshError(Code.TOO_MUCH_OUTPUT, message)
                await process.wait_closed()
            except asyncio.CancelledError:
                # Closing it would end only a command that still reads or writes.
                with suppress(OSError):
                    process.terminate()
                raise
        return _result(process, outputs[0] or b"", outputs[1] or b"")

    async def _start(self, command: Sequence[str], source: int) -> asyncssh.SSHClientProcess[bytes]:
        line = shlex.join(command)
        starting = asyncio.ensure_future(
            self._ssh.create_process(line, encoding=None, stdin=source)
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The robot may run it already, and only has not said so yet.
            with suppress(TimeoutError, *RAISED):
                process = await asyncio.wait_for(starting, START_TIMEOUT_S)
                process.terminate()
                process.close()
            raise

    async def _feed(
        self,
        target: str,
        read: Callable[[], bytes],
        on_chunk: Callable[[bytes], object],
        sent: Callable[[int], object],
    ) -> CommandResult:
        count = 0
        command = f"cat > {shlex.quote(target)}"
        async with asyncio.timeout(STALL_TIMEOUT_S) as stall:
            process = await self._ssh.create_process(command, encoding=None)
            with closing(process):
                try:
                    while chunk := await asyncio.to_thread(read):
                        on_chunk(chunk)
                        process.stdin.write(chunk)
                        await process.stdin.drain()
                        stall.reschedule(asyncio.get_running_loop().time() + STALL_TIMEOUT_S)
                        count += len(chunk)
                        sent(count)
                    process.stdin.write_eof()
                except BrokenPipeError:
                    pass  # `cat` has ended, and stderr has the reason
                errors = await _read(process, process.stderr, OUTPUT_LIMIT)
                await process.wait_closed()
        return _result(process, b"", errors or b"")


async def _read(
    process: asyncssh.SSHClientProcess[bytes], stream: asyncssh.SSHReader[bytes], limit: int
) -> bytes | None:
    """Return all bytes of a stream; beyond `limit`, close the process and return None."""
    chunks, size = [], 0
    while chunk := await stream.read(CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            process.close()
            return None
    return b"".join(chunks)


def _result(
    process: asyncssh.SSHClientProcess[bytes], stdout: bytes, stderr: bytes
) -> CommandResult:
    code = process.returncode
    if code is None:
        raise asyncssh.ConnectionLost("the exit code of the command is missing")
    return CommandResult(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


@asynccontextmanager
async def connect(
    machine: Machine, *, accept_new: bool = False, timeout: float = CONNECT_TIMEOUT_S
) -> AsyncIterator[Connection]:
    """Connect to a robot like `ssh`, with ~/.ssh/config, the agent, keys in ~/.ssh and known_hosts.

    `accept_new` trusts new host keys and adds them to known_hosts. Passwords are never requested.
    Raises SshError after `timeout` seconds at the latest.
    """
    keys: HostKeys | None = None
    try:
        keys = await asyncio.to_thread(HostKeys, machine, accept_new=accept_new)
        async with asyncio.timeout(timeout):
            ssh = await asyncssh.connect(
                machine.host,
                machine.port or (),
                username=machine.user or (),
                client_factory=partial(Client, keys),
                known_hosts=keys.match,
                server_host_key_algs=keys.algorithms or (),
                connect_timeout=None,
                login_timeout=timeout,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=MAX_MISSED_KEEPALIVES,
                agent_forwarding=False,
                x11_forwarding=False,
                command=None,
                request_pty=False,
            )
    except RAISED as error:
        raise connect_error(error, machine, keys, timeout) from error
    try:
        yield Connection(ssh)
    finally:
        ssh.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await ssh.wait_closed()
        except TimeoutError:
            ssh.abort()


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
