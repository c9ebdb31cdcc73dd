"""A connection to one robot: run a command there, put a file there."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shlex
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import asyncssh

from dorafleet.ssh.errors import Code, SshError
from dorafleet.ssh.failures import RAISED, why_lost, why_not_connected
from dorafleet.ssh.hostkeys import Client, HostKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from dorafleet.inventory.model import Machine

CONNECT_S = 10.0
"""Seconds until the user is logged in."""
COMMAND_S = 30.0
"""Seconds for a command, unless it is given others."""
OUTPUT_LIMIT = 1 << 20
"""Bytes that a command may print, to each of its two outputs."""
MAX_WORDS = 300
"""Characters of a command's last line that are shown."""
KEEPALIVE_S = 5.0
SILENT_KEEPALIVES = 3
"""So many without an answer end a connection: a robot that is cut off is noticed within 20 s."""
STALL_S = 60.0
"""Seconds within which a file has to get on by one piece."""
CLOSE_S = 2.0
"""Seconds for a farewell."""
PIECE = 256 << 10
"""Bytes."""

# What asyncssh logs is in our errors too; without a handler Python would print it.
logging.getLogger("asyncssh").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended by itself."""

    code: int
    """Exit code; 128 + the signal's number is what a shell says of a signal, -1 what sshd does."""
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The last line of what it had to complain of, or of what it printed."""
        lines = self.stderr.strip().splitlines() or self.stdout.strip().splitlines()
        return lines[-1].strip()[:MAX_WORDS] if lines else f"exit code {self.code}"


class Connection:
    """An open connection. `connect` makes it."""

    def __init__(self, ssh: asyncssh.SSHClientConnection) -> None:
        self._ssh = ssh

    async def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = COMMAND_S,
        limit: int = OUTPUT_LIMIT,
        doing: str | None = None,
    ) -> Finished:
        """Run a command, whatever its exit code; the shell there sees its words quoted.

        `doing` is what errors say instead of the command.

        Raises:
            SshError: it takes longer than `timeout` seconds, prints more than `limit` bytes, or
                the connection is lost. What runs there is not waited for then.
        """
        doing = doing or f"`{shlex.join(command)}`"
        try:
            async with asyncio.timeout(timeout):
                return await self._run(command, limit, doing)
        except TimeoutError as error:
            said = f"{doing} is not done after {timeout:g} s"
            raise SshError(Code.TIMEOUT, said) from error
        except RAISED as error:
            raise why_lost(error, doing) from error

    async def check(self, command: Sequence[str], *, timeout: float = COMMAND_S) -> str:
        """Run a command and return what it printed. Raises SshError, also if it fails."""
        done = await self.run(command, timeout=timeout)
        if done.code:
            raise SshError(Code.FAILED, f"`{shlex.join(command)}` failed: {done.last_words}")
        return done.stdout

    async def upload(
        self, source: Path, target: str, sent: Callable[[int], object] = lambda count: None
    ) -> None:
        """Write a file to the path `target` there, and compare the checksum of what arrived.

        It goes through the input of `cat`, which every robot has, and which says why it failed.
        `sent` is called with the bytes that are sent so far.

        Raises:
            SshError: it cannot be written, does not get on, or arrives damaged.
            OSError: `source` cannot be opened.
        """
        doing = f"copying {source.name}"
        digest = hashlib.sha256()
        with source.open("rb") as file:
            try:
                done = await self._feed(target, partial(file.read, PIECE), digest.update, sent)
            except TimeoutError as error:
                said = f"{doing} does not get on"
                raise SshError(Code.TIMEOUT, said, f"nothing went for {STALL_S:g} s") from error
            except RAISED as error:
                raise why_lost(error, doing) from error
        if done.code:
            raise SshError(Code.FAILED, f"{doing} failed: {done.last_words}")
        arrived = (await self.check(["sha256sum", "--", target])).split()
        if arrived[:1] != [digest.hexdigest()]:
            raise SshError(Code.FAILED, f"{source.name} arrived damaged", "try again")

    async def _run(self, command: Sequence[str], limit: int, doing: str) -> Finished:
        process = await self._ssh.create_process(
            shlex.join(command), encoding=None, stdin=asyncssh.DEVNULL
        )
        # Not `async with`, which would wait for a robot that never confirms the end.
        with closing(process):
            outputs = await asyncio.gather(
                _read(process, process.stdout, limit), _read(process, process.stderr, limit)
            )
            if None in outputs:
                said = f"{doing} prints more than {limit >> 10} KiB"
                raise SshError(Code.TOO_MUCH_OUTPUT, said)
            await process.wait_closed()
        return _finished(process, outputs[0] or b"", outputs[1] or b"")

    async def _feed(
        self,
        target: str,
        read: Callable[[], bytes],
        took: Callable[[bytes], object],
        sent: Callable[[int], object],
    ) -> Finished:
        count = 0
        command = f"cat > {shlex.quote(target)}"
        async with asyncio.timeout(STALL_S) as stall:
            process = await self._ssh.create_process(command, encoding=None)
            with closing(process):
                try:
                    while piece := await asyncio.to_thread(read):
                        took(piece)
                        process.stdin.write(piece)
                        await process.stdin.drain()
                        stall.reschedule(asyncio.get_running_loop().time() + STALL_S)
                        count += len(piece)
                        sent(count)
                    process.stdin.write_eof()
                except BrokenPipeError:
                    pass  # it has ended, and says why
                complaint = await _read(process, process.stderr, OUTPUT_LIMIT)
                await process.wait_closed()
        return _finished(process, b"", complaint or b"")


async def _read(
    process: asyncssh.SSHClientProcess[bytes], stream: asyncssh.SSHReader[bytes], limit: int
) -> bytes | None:
    """Return all of a stream; None, with the process closed, once it is more than `limit`."""
    pieces, size = [], 0
    while piece := await stream.read(PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            process.close()
            return None
    return b"".join(pieces)


def _finished(process: asyncssh.SSHClientProcess[bytes], stdout: bytes, stderr: bytes) -> Finished:
    code = process.returncode
    if code is None:
        raise asyncssh.ConnectionLost("the command's end was not told")
    return Finished(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


@asynccontextmanager
async def connect(
    machine: Machine, *, accept_new: bool = False, timeout: float = CONNECT_S
) -> AsyncIterator[Connection]:
    """Connect to a robot as `ssh` does: ~/.ssh/config, the agent, keys of ~/.ssh, known_hosts.

    `accept_new` trusts host keys that are new, and writes them down. No password is asked for.
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
                keepalive_count_max=SILENT_KEEPALIVES,
                agent_forwarding=False,
                x11_forwarding=False,
                command=None,
                request_pty=False,
            )
    except RAISED as error:
        raise why_not_connected(error, machine, keys, timeout) from error
    try:
        yield Connection(ssh)
    finally:
        ssh.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await ssh.wait_closed()
        except TimeoutError:
            ssh.abort()
