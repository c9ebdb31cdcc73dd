"""The coordinator as a process: its store, its server, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from dorad import __version__
from dorad.control.choosing import AUTHORITY, token_file
from dorad.control.errors import ControlError
from dorad.control.limits import Limits
from dorad.control.server import ControlServer, HandlerTable
from dorad.control.standby import reporting
from dorad.notify import ServiceNotifier, feed_watchdog
from dorafleet.coordinator.access import AGENT_PATH, Access
from dorafleet.coordinator.audit import read_tail
from dorafleet.coordinator.authority import check_authority, load_authorities
from dorafleet.coordinator.connections import pause_of
from dorafleet.coordinator.control import FleetControl
from dorafleet.coordinator.desired import DesiredState
from dorafleet.coordinator.enrolling import Enrolling
from dorafleet.coordinator.gate import MAX_HANDSHAKES, MAX_WAITING
from dorafleet.coordinator.grants import Grants
from dorafleet.coordinator.handlers import Handlers
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.listening import TlsServer, bind, reachable_at
from dorafleet.coordinator.messages import METHODS, CoordinatorStatus
from dorafleet.coordinator.roles import with_role_check
from dorafleet.coordinator.token import make_token
from dorafleet.coordinator.writing import Writer
from dorafleet.notify.settings import NotifySettings, SettingsError
from dorafleet.store.errors import StoreError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from dorafleet.ca.authority import Authority
    from dorafleet.coordinator.gate import GatedSocket
    from dorafleet.coordinator.listening import Listen
    from dorafleet.coordinator.notifications import Notifications
    from dorafleet.coordinator.supplying import Supply
    from dorafleet.inventory.model import Machine
    from dorafleet.store.model import Store, Term

CA = "ca"
"""The folder of the fleet's authority."""

HISTORY = 10_000
"""Revisions whose changes a watch can still get."""

LIMITS = Limits(
    connections=512,
    connections_each=64,
    accepted_each=4,
    reserve=64,
    calls_each=128,
    streams_each=64,
)
"""Of a name, 64 connections, so that several of them are needed to take all that admins leave."""

OTHER_FILES = 256
"""Descriptors for everything but connections."""

MIN_WAITING = 256
"""Connections that may wait for their handshake even if descriptors are short."""

COMPACT_S = 3600.0
"""Seconds between two times that older ones are forgotten."""

_log = logging.getLogger(__name__)


class Coordinator:
    """One coordinator. Runs once."""

    def __init__(
        self,
        folder: Path,
        open_store: Callable[[], Awaitable[Store]],
        machines: Sequence[Machine],
        listen: Listen,
        *,
        zenoh_peer: str | None = None,
        new_authority: bool = False,
        supply: Supply | None = None,
        load_notify: Callable[[], NotifySettings] = NotifySettings,
    ) -> None:
        """Prepare a coordinator with its files in `folder`; `open_store` connects to its store.

        All links between machines connect to `zenoh_peer`, if there is one. `new_authority` takes
        the authority in the folder, whatever the fleet had before. Robots that wait for files of a
        release get them from `supply`. Alerts are sent as `load_notify` says, which is called again
        at SIGHUP.

        Raises:
            SettingsError: of `load_notify`.
        """
        self._folder = folder
        self._open_store = open_store
        self._machines = machines
        self._listen = listen
        self._zenoh_peer = zenoh_peer
        self._new_authority = new_authority
        self._supply = supply
        self._load_notify = load_notify
        self._notify = load_notify()
        self._notifications: Notifications | None = None
        """While it leads."""
        self._notifier: ServiceNotifier | None = None
        self._problem = ""
        """The error of the last reload."""
        self._started_at = time.time()
        self._ending = asyncio.Event()
        self._doing = "starting"
        """For systemd's status line."""

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            ProblemError: the folder, the port or the store cannot be used, or another coordinator
                leads meanwhile.
        """
        serving = asyncio.create_task(self._serve())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ending.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        waiting = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                _log.info("ending")
                serving.cancel()
                await asyncio.wait((serving,))
        finally:
            waiting.cancel()
        if not serving.cancelled():
            await serving
        _log.info("ended")

    def _reload(self) -> None:
        """Load the settings of alerts again; keep the old ones if the new ones have errors."""
        if self._notifier is not None:
            self._notifier.reloading()
        try:
            self._notify = self._load_notify()
            self._problem = ""
            _log.info("the configuration was reloaded")
        except SettingsError as error:
            self._problem = str(error)
            _log.error("the old configuration stays in use: %s", error)
        if self._notifications is not None:
            self._notifications.problem = self._problem
            if not self._problem:
                self._notifications.change(self._notify)
        if self._notifier is not None:
            # `systemctl reload` waits for this.
            self._notifier.ready(self._doing)

    async def _serve(self) -> NoReturn:
        """Wait for the lead, then serve clients until another coordinator leads."""
        make_folder(self._folder)
        # Each robot and each client needs a descriptor.
        _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        waiting = waiting_within(limit, len(self._machines))
        if waiting < MIN_WAITING:
            _log.warning(
                "%d open files are too few for %d robots: set `LimitNOFILE=%d` in the unit",
                limit,
                len(self._machines),
                limit + MAX_WAITING - waiting,
            )
        async with AsyncExitStack() as stack:
            notifier = ServiceNotifier()
            stack.callback(notifier.close)
            self._notifier = notifier
            token = make_token(token_file(self._folder))
            sock = bind(self._listen.address, self._listen.port, max(MIN_WAITING, waiting))
            stack.callback(sock.close)
            report = stack.enter_context(reporting(self._folder))
            store = await self._open_store()
            stack.push_async_callback(store.close)
            if not self._new_authority:
                # Check now, not when this coordinator takes over.
                await check_authority(store, self._folder / CA)
            self._doing = "waiting to lead"
            watchdog = feed_watchdog(notifier, lambda: None, lambda: self._doing)
            stack.callback(asyncio.create_task(watchdog).cancel)
            # One that waits for another to end is ready as well.
            notifier.ready(self._doing)
            _log.info("%s with the store %s", self._doing, store.name)
            name = f"{socket.gethostname()}:{os.getpid()}"
            term = await stack.enter_async_context(store.lead(name, on_waiting=report))
            report("")
            await self._lead(store, term, sock, token, notifier)
            raise ControlError(
                "unavailable", "another coordinator may lead now: the lease has ended"
            )

    async def _lead(
        self,
        store: Store,
        term: Term,
        sock: GatedSocket,
        token: str,
        notifier: ServiceNotifier,
    ) -> None:
        """Serve clients and robots at `sock` until the term ends."""

        async def status() -> CoordinatorStatus:
            return await self._status(store, term, control.questions)

        authorities = await load_authorities(
            store, term, self._folder / CA, new_authority=self._new_authority
        )
        ids = [machine.id for machine in self._machines]
        writer = Writer(store, term)
        grants = Grants(store, writer)
        await grants.load()
        access = Access(grants, token, ids, sock.admit)
        tls = TlsServer(
            self._folder,
            socket.gethostname(),
            reachable_at(self._listen.address, self._listen.advertised),
        )

        async def show(authority: Authority, trusted: str) -> None:
            await asyncio.to_thread(tls.use, authority, trusted)
            if trusted == authority.certificate:
                access.close_unsigned(authority)

        hand_overs = HandOvers(store, writer, grants, self._folder / CA, authorities, ids, show)
        await hand_overs.load()
        enrolling = Enrolling(
            grants,
            access,
            writer,
            hand_overs,
            ids,
            tls=self._listen.tls,
            on_enrolled=lambda robot: control.robots.forget_place(robot),
            on_revoked=lambda robot: control.secrets.forget_robot(robot),
        )
        control = FleetControl(
            store,
            writer,
            self._machines,
            self._zenoh_peer,
            self._ending.set,
            enrolling.renew,
            self._supply,
            self._notify,
            lambda: grants.revocations,
            hand_overs,
        )
        control.notifications.problem = self._problem
        self._notifications = control.notifications
        access.on_refused = control.robots.refuse
        await control.load()
        desired = DesiredState(store, writer, control.on_desired)
        handlers = Handlers(store, desired, ids, status, self._ending.set)
        table = HandlerTable()
        table.include(handlers.table, enrolling.table, control.table)
        server = ControlServer(
            with_role_check(table, METHODS),
            version=__version__,
            methods=METHODS,
            name="dorafleet",
            accept={AGENT_PATH: control.connections.accept},
            limits=_limits(len(ids)),
        )
        async with AsyncExitStack() as stack:
            await server.serve_tcp(sock, access, await self._context(tls, hand_overs))
            stack.push_async_callback(server.close)
            where = f"{self._listen.address} port {sock.getsockname()[1]}"
            self._doing = f"listening at {where}"
            notifier.status(self._doing)
            _log.info("ready at %s, the token is in %s", where, token_file(self._folder))
            stack.callback(notifier.stopping, "ending")
            stack.callback(asyncio.create_task(_forget_history(store)).cancel)
            async with asyncio.TaskGroup() as tasks:
                working = [
                    tasks.create_task(control.run(), name="reconcile"),
                    tasks.create_task(access.run(), name="ends of tokens"),
                    tasks.create_task(hand_overs.run(), name="end of a hand-over"),
                ]
                await term.lost.wait()
                for task in working:
                    task.cancel()

    async def _context(self, tls: TlsServer, hand_overs: HandOvers) -> ssl.SSLContext | None:
        """Return what TLS needs, None if clients connect without it."""
        if not self._listen.tls:
            # This file shows commands on this machine that the coordinator uses TLS.
            await asyncio.to_thread((self._folder / AUTHORITY).unlink, missing_ok=True)
            return None
        return await asyncio.to_thread(tls.use, hand_overs.current, hand_overs.trusted)

    async def _status(self, store: Store, term: Term, questions: list[str]) -> CoordinatorStatus:
        tail = await read_tail(store)
        return CoordinatorStatus(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            state=store.name,
            epoch=term.epoch,
            revision=(await store.get("", limit=1)).revision,
            robots=len(self._machines),
            audit=str(tail.head),
            zenoh_peer=self._zenoh_peer,
            questions=questions,
        )


def _limits(robots: int) -> Limits:
    """Return the limits with so many robots.

    Each kind of connection is bounded separately, so that none of them takes the places of others.
    """
    opening = MAX_HANDSHAKES + LIMITS.connections + LIMITS.accepted_each * robots
    return replace(LIMITS, opening=opening, retry_after=max(1, round(pause_of(robots))))


def waiting_within(files: int, robots: int) -> int:
    """Return how many connections may wait for their handshake, with a limit of open files.

    A robot has one connection, and another one while it connects anew. Only if many robots are
    hostile, and have more, can descriptors run out; then no connection is accepted for a second.
    """
    return min(MAX_WAITING, files - OTHER_FILES - MAX_HANDSHAKES - LIMITS.connections - 2 * robots)


async def _forget_history(store: Store) -> NoReturn:
    """Keep the store from growing with every change."""
    while True:
        try:
            revision = (await store.get("", limit=1)).revision
            await store.compact(revision - HISTORY)
        except StoreError as error:
            _log.warning("the history was not shortened: %s", error)
        await asyncio.sleep(COMPACT_S)


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
