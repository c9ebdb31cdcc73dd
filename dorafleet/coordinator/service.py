"""The coordinator as a process: its store, its server, and its end."""

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NoReturn

from msgspec.structs import replace

from dorad import __version__
from dorad.control.choosing import AUTHORITY, token_file
from dorad.control.errors import ControlError
from dorad.control.incidentfiles import INCIDENTS_PATH
from dorad.control.limits import Limits
from dorad.control.messages.agent import FILES_PATH
from dorad.control.roles import with_role_check
from dorad.control.server import ControlServer, HandlerTable
from dorad.control.standby import reporting
from dorad.notify import ServiceNotifier, feed_watchdog
from dorafleet.ca.authority import Authority
from dorafleet.coordinator.access import AGENT_PATH, Access
from dorafleet.coordinator.audit import read_tail
from dorafleet.coordinator.authority import check_authority, load_authorities
from dorafleet.coordinator.connections import pause_of
from dorafleet.coordinator.control import FleetControl
from dorafleet.coordinator.conversion import convert
from dorafleet.coordinator.desired import DesiredState
from dorafleet.coordinator.enrolments import Enrolments
from dorafleet.coordinator.follower import Follower, publish
from dorafleet.coordinator.gate import MAX_HANDSHAKES, MAX_WAITING, GatedSocket
from dorafleet.coordinator.grants import Grants
from dorafleet.coordinator.handlers import Handlers
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.handoverstate import HandOverState
from dorafleet.coordinator.incidentmessages import INCIDENT_FILES_PATH
from dorafleet.coordinator.keptincidents import KeptIncidents
from dorafleet.coordinator.keptreleases import Folder
from dorafleet.coordinator.listener import Listen, TlsServer, bind, reachable_at
from dorafleet.coordinator.members import Members
from dorafleet.coordinator.messages import METHODS, CoordinatorStatus
from dorafleet.coordinator.notifications import Notifications
from dorafleet.coordinator.settings import Settings, SettingsError
from dorafleet.coordinator.supply import Supply
from dorafleet.coordinator.token import make_token
from dorafleet.coordinator.uploadmessages import COPIES_PATH, UPLOAD_PATH
from dorafleet.coordinator.writer import Writer
from dorafleet.inventory.model import Cluster, Machine, endpoint
from dorafleet.store.errors import StoreError
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
        uploads: Folder | None = None,
        load_settings: Callable[[], Settings] = Settings,
        read_file: Callable[[], Cluster] | None = None,
    ) -> None:
        """Prepare a coordinator with its files in `folder`; `open_store` connects to its store.

        A store that never had machines takes these `machines`; later they come and go by commands.
        `read_file` reads the cluster file again, to show how it differs.

        All links between machines connect to `zenoh_peer`, if there is one. `new_authority` takes
        the authority in the folder, whatever the fleet had before. Robots that wait for files of a
        release get them from `supply`; operators upload releases to `uploads`. `load_settings` is
        called again at SIGHUP.

        Raises:
            SettingsError: of `load_settings`.
        """
        self._folder = folder
        self._open_store = open_store
        self._machines = machines
        self._read_file = read_file
        self._listen = listen
        self._zenoh_peer = zenoh_peer
        self._new_authority = new_authority
        self._supply = supply
        self._uploads = uploads
        self._load_settings = load_settings
        self._settings = load_settings()
        self._incidents = KeptIncidents(folder / "incidents", self._settings.incidents)
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
        """Load the settings again; keep the old ones if the new ones have errors."""
        if self._notifier is not None:
            self._notifier.reloading()
        try:
            self._settings = self._load_settings()
            self._incidents.settings = self._settings.incidents
            self._problem = ""
            _log.info("the configuration was reloaded")
        except SettingsError as error:
            self._problem = str(error)
            _log.error("the old configuration stays in use: %s", error)
        if self._notifications is not None:
            self._notifications.problem = self._problem
            if not self._problem:
                self._notifications.change(self._settings.alerts)
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
            async with self._following(store, sock.getsockname()[1]):
                term = await stack.enter_async_context(store.lead(name, on_waiting=report))
            report("")
            await self._lead(store, term, sock, token, notifier)
            raise ControlError(
                "unavailable", "another coordinator may lead now: the lease has ended"
            )

    @asynccontextmanager
    async def _following(self, store: Store, port: int) -> AsyncIterator[None]:
        """In this block, copy files from the coordinator that leads, if it can be another one."""
        uploads, supply = self._uploads, self._supply
        if not store.shared or not self._listen.tls or uploads is None or supply is None:
            yield
            return
        name = f"{socket.gethostname()}:{port}"
        follower = Follower(name, self._folder, store, uploads, supply)
        following = asyncio.create_task(follower.run(), name="copies of files")
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait({following})
            if not following.cancelled():
                following.result()

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
            port = sock.getsockname()[1]
            return await self._status(store, term, len(members.machines), port, control.questions)

        authorities = await load_authorities(
            store, term, self._folder / CA, new_authority=self._new_authority
        )
        writer = Writer(store, term)
        await convert(store, writer, self._folder)
        members = Members(
            store,
            writer,
            self._read_file,
            lambda size: server.change_limits(_limits(size)),
        )
        await members.load(self._machines)
        ids = members.machines
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

        state = HandOverState(store, writer, grants, authorities, ids)
        await state.load()
        hand_overs = HandOvers(state, writer, self._folder / CA, show)
        enrolments = Enrolments(
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
            members,
            self._zenoh_peer,
            self._ending.set,
            enrolments.renew,
            self._supply,
            self._settings.alerts,
            lambda: grants.revocations,
            hand_overs,
            enrolments.dismiss,
            self._uploads,
            incidents=self._incidents,
        )
        control.notifications.problem = self._problem
        self._notifications = control.notifications
        access.on_refused = control.robots.refuse
        await control.load()
        desired = DesiredState(store, writer, control.fleet.follow)
        handlers = Handlers(store, desired, ids, status, self._ending.set)
        table = HandlerTable.of(handlers, enrolments)
        table.include(control.table)
        server = ControlServer(
            with_role_check(table, METHODS),
            version=__version__,
            methods=METHODS,
            name="dorafleet",
            accept={
                AGENT_PATH: control.connections.accept,
                FILES_PATH: control.files.accept,
                UPLOAD_PATH: control.uploads.accept,
                COPIES_PATH: control.copies.accept,
                INCIDENTS_PATH: control.incidents.accept,
                INCIDENT_FILES_PATH: control.incidents.serve_files,
            },
            limits=_limits(len(ids)),
        )
        async with AsyncExitStack() as stack:
            await server.serve_tcp(sock, access, await self._context(tls, state))
            stack.push_async_callback(server.close)
            if store.shared and self._listen.tls:
                await publish(writer, self._listen, sock.getsockname()[1])
            where = f"{self._listen.address} port {sock.getsockname()[1]}"
            self._doing = f"listening at {where}"
            notifier.status(self._doing)
            _log.info("ready at %s, the token is in %s", where, token_file(self._folder))
            stack.callback(notifier.stopping, "ending")
            stack.callback(asyncio.create_task(_forget_history(store)).cancel)
            async with asyncio.TaskGroup() as tasks:
                working = [
                    tasks.create_task(control.run(), name="robots and dataflows"),
                    tasks.create_task(access.run(), name="ends of tokens"),
                    tasks.create_task(hand_overs.run(), name="end of a hand-over"),
                ]
                await term.lost.wait()
                for task in working:
                    task.cancel()

    async def _context(self, tls: TlsServer, state: HandOverState) -> ssl.SSLContext | None:
        """Return what TLS needs, None if clients connect without it."""
        if not self._listen.tls:
            # This file shows commands on this machine that the coordinator uses TLS.
            await asyncio.to_thread((self._folder / AUTHORITY).unlink, missing_ok=True)
            return None
        return await asyncio.to_thread(tls.use, state.current, state.trusted)

    async def _status(
        self, store: Store, term: Term, robots: int, port: int, questions: list[str]
    ) -> CoordinatorStatus:
        tail = await read_tail(store)
        return CoordinatorStatus(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            state=store.name,
            epoch=term.epoch,
            revision=(await store.get("", limit=1)).revision,
            robots=robots,
            audit=str(tail.head),
            zenoh_peer=self._zenoh_peer,
            address=endpoint(self._listen.advertised, port) if self._listen.tls else "",
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
        status = folder.stat()
    except OSError as error:
        raise ControlError("refused", f"{folder} cannot be used: {error.strerror}") from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ControlError(
            "refused",
            f"others may write to {folder}",
            f"chown {os.geteuid()} {folder} && chmod 700 {folder}",
        )
