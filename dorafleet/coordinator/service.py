"""The coordinator as a process: its store, its server, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from contextlib import AsyncExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn

from dorad import __version__
from dorad.control.errors import ControlError
from dorad.control.server import ControlServer
from dorad.notify import ServiceNotifier, feed_watchdog
from dorafleet.coordinator.audit import read_tail
from dorafleet.coordinator.desired import DesiredState
from dorafleet.coordinator.handlers import Handlers
from dorafleet.coordinator.messages import METHODS, CoordinatorStatus
from dorafleet.coordinator.token import TokenCheck, make_token
from dorafleet.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorafleet.coordinator.messages import Robot
    from dorafleet.inventory.model import Address
    from dorafleet.store.model import Store, Term

DATABASE = "coordinator.db"
TOKEN = "token"  # noqa: S105 - the name of a file

HISTORY = 10_000
"""Revisions whose changes a watch can still get."""

COMPACT_S = 3600.0
"""Seconds between two times that older ones are forgotten."""

_log = logging.getLogger(__name__)


class Coordinator:
    """One coordinator. Runs once."""

    def __init__(self, folder: Path, robots: Sequence[Robot], listen: str, port: int) -> None:
        """Prepare a coordinator that keeps its files in `folder`.

        Raises:
            ControlError: `listen` is not an address of this machine's loopback.
        """
        self._folder = folder
        self._robots = robots
        self._address = _loopback(listen)
        self._port = port
        self._started_at = time.time()
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            ProblemError: another coordinator uses the folder or the port, or they cannot be used.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        make_folder(self._folder)
        async with AsyncExitStack() as stack:
            notifier = ServiceNotifier()
            stack.callback(notifier.close)
            token = make_token(self._folder / TOKEN)
            sock = _bind(self._address, self._port)
            stack.callback(sock.close)
            store = await SqliteStore.open(self._folder / DATABASE)
            stack.push_async_callback(store.close)
            term = await stack.enter_async_context(
                store.lead(f"{socket.gethostname()}:{os.getpid()}")
            )

            async def status() -> CoordinatorStatus:
                return await self._status(store, term)

            handlers = Handlers(store, DesiredState(store, term), self._robots, status)
            server = ControlServer(
                handlers.table, version=__version__, methods=METHODS, name="dorafleet"
            )
            await server.serve_tcp(sock, TokenCheck(token))
            stack.push_async_callback(server.close)
            where = f"{self._address} port {sock.getsockname()[1]}"
            _log.info("ready at %s, the token is in %s", where, self._folder / TOKEN)
            notifier.ready(f"listening at {where}")
            watchdog = feed_watchdog(notifier, lambda: None, lambda: f"listening at {where}")
            stack.callback(asyncio.create_task(watchdog).cancel)
            stack.callback(asyncio.create_task(_forget_history(store)).cancel)
            await self._ending.wait()
            _log.info("ending")
            notifier.stopping("ending")
        _log.info("ended")

    async def _status(self, store: Store, term: Term) -> CoordinatorStatus:
        tail = await read_tail(store)
        return CoordinatorStatus(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            state=str(self._folder / DATABASE),
            epoch=term.epoch,
            revision=(await store.get("", limit=1)).revision,
            robots=len(self._robots),
            audit=str(tail.head),
        )


async def _forget_history(store: Store) -> NoReturn:
    """Keep the store from growing with every change."""
    while True:
        revision = (await store.get("", limit=1)).revision
        await store.compact(revision - HISTORY)
        await asyncio.sleep(COMPACT_S)


def _loopback(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise ControlError("refused", f"`{text}` is not an IP address", "127.0.0.1") from None
    if not address.is_loopback:
        raise ControlError(
            "refused",
            f"{address} can be reached from other machines, and there is no TLS yet",
            "listen at 127.0.0.1 or ::1; from another machine, use `ssh -L`",
        )
    return address


def make_folder(folder: Path) -> None:
    """Make the folder, which only this user can enter. Raises ControlError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise ControlError("refused", f"{folder} cannot be used: {error.strerror}") from None
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ControlError(
            "refused",
            f"others may write to {folder}",
            f"chown {os.geteuid()} {folder} && chmod 700 {folder}",
        )


def _bind(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
    except OSError as error:
        sock.close()
        _raise_in_use(address, port, error)
    return sock


def _raise_in_use(address: Address, port: int, error: OSError) -> NoReturn:
    raise ControlError(
        "refused",
        f"{address} port {port} cannot be used: {error.strerror}",
        "is another coordinator running? choose another port with `--port`",
    ) from None
