"""The socket of a robot's dorad, forwarded over SSH to a socket in a folder of our own."""

import asyncio
import logging
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from dorad.control.errors import ControlError
from dorad.control.target import Targets, UnixSocket
from dorafleet.inventory.model import Machine
from dorafleet.ssh.connection import Connection, connect
from dorafleet.ssh.errors import SshError

FIND = (
    "sh",
    "-c",
    (
        'for d in "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/dora" "/run/user/$(id -u)/dora" '
        '"/tmp/dora-$(id -u)" "$HOME/.local/state/dora/run" /run/dorad; do s=$d/control.sock; '
        '[ "$d" = /run/dorad ] || { [ -O "$d" ] && [ ! -L "$d" ]; } || continue; '
        '[ -S "$s" ] && [ -w "$s" ] && { printf %s "$s"; exit 0; }; done; exit 1'
    ),
)
"""Prints the first socket of a dorad that this account may use.

Every user of the robot may make folders in /tmp: those of others are passed over, as `rendezvous`
does.
"""

_log = logging.getLogger(__name__)


class Tunnel:
    """A connection to one robot, opened again when it is lost."""

    def __init__(self, host: str) -> None:
        """`host` is a name of ~/.ssh/config, HOST or USER@HOST."""
        user, _, name = host.rpartition("@")
        self._machine = Machine(name, name, user=user or None)
        self._folder = Path(tempfile.mkdtemp(prefix="dorafleet-"))
        self._stack: AsyncExitStack | None = None
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._number = 0
        self._socket = self._folder / "control.sock"

    def check(self) -> None:
        """Connect once, to report a mistake before the console opens. Raises ProblemError."""

        async def once() -> None:
            async with connect(self._machine) as connection:
                await self._find(connection)

        try:
            asyncio.run(once())
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    async def open(self) -> Targets:
        """Return the forwarded socket. Raises ControlError."""
        async with self._opening:
            if self._connection is None or self._connection.closed:
                await self._close()
                try:
                    await self._forward()
                except SshError as error:
                    raise ControlError("unavailable", error.message, error.hint) from None
        return (UnixSocket(self._socket, self._machine.host),)

    async def _forward(self) -> None:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(connect(self._machine))
            remote = await self._find(connection)
            self._number += 1
            self._socket = self._folder / f"{self._number}.sock"
            await connection.forward_socket(self._socket, remote)
            self._connection = connection
            self._stack = stack.pop_all()
        _log.debug("%s of %s is forwarded to %s", remote, self._machine.host, self._socket)

    async def _find(self, connection: Connection) -> str:
        done = await connection.run(FIND, doing="looking for its dorad")
        if done.code or not done.stdout:
            raise ControlError(
                "unavailable",
                f"`{self._machine.host}` has no running dorad that this account may use",
                "start it there, or join the group `dorad` there",
            )
        return done.stdout

    async def _close(self) -> None:
        self._connection = None
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()

    async def close(self) -> None:
        """End the connection and remove the socket."""
        await self._close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
