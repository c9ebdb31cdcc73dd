"""The agent as a service: assignments, the connection to the coordinator, and the watchdog."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection

from dorad import __version__
from dorad.agent.assignments.assignments import Assignments
from dorad.agent.assignments.files import Library, TreeLibrary
from dorad.agent.assignments.queries import Contact
from dorad.agent.backoff import Backoff
from dorad.agent.daemon import Daemon
from dorad.agent.dial import Dialer
from dorad.agent.files import Files
from dorad.agent.folder import recordings_folder, releases_folder, settings_file, signers_folder
from dorad.agent.handlers import AgentMethods, handlers
from dorad.agent.identitystore import IdentityStore
from dorad.agent.incidentupload import IncidentUpload
from dorad.agent.model import AgentStatus
from dorad.agent.secrets import SecretFiles, unsealed_folder
from dorad.agent.status import keep_status, only_one, runtime_folder
from dorad.agent.store import AssignmentStore
from dorad.bell import Bell
from dorad.control.errors import ControlError
from dorad.control.incidentfiles import INCIDENTS_PATH
from dorad.control.messages.agent import FILES_PATH, FILES_TICKET
from dorad.diskspace import DiskWatch
from dorad.notify import ServiceNotifier, feed_watchdog
from dorad.procinfo import start_time
from dorad.release.disk import free_bytes
from dorad.release.signature import Signers
from dorad.release.trees import Trees

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger(__name__)


class Service:
    """One agent. Runs once."""

    def __init__(self, folder: Path, socket: Path, library: Library | None = None) -> None:
        """`socket` is that of dorad's control API, `library` has the releases of this robot.

        Raises:
            ControlError: the robot is not enrolled, or the files cannot be used.
        """
        self._folder = folder
        self._identities = IdentityStore(folder)
        self._robot = self._identities.load().robot
        self._store = AssignmentStore(folder / "shares.db", runtime_folder(folder))
        self._boot = _BOOT_ID.read_text(encoding="ascii").strip()
        self._changed = Bell()
        name = f"dorad-agent {__version__}"
        # Three connections: forwarded requests must not delay the loop, nor the streams of many
        # clients the coordinator.
        self._own = Daemon(socket, name)
        self._forwarding = Daemon(socket, name)
        self._streaming = Daemon(socket, name)
        self._contact = Contact(self._answers)
        if library is None:
            library = TreeLibrary(_trees(folder))
        self._assignments = Assignments(
            folder,
            self._store,
            self._own,
            self._identities,
            library,
            self._boot,
            self._contact,
            self._changed.ring,
        )
        self._secrets = SecretFiles(folder, unsealed_folder(folder, socket))
        self._files = Files(partial(_trees, folder), self._open_files, self._assignments.observe)
        self._incidents = IncidentUpload(
            folder,
            settings_file(folder),
            self._forwarding,
            lambda: self._dialer.beside(INCIDENTS_PATH, {}),
        )
        self._methods = AgentMethods(
            self._identities,
            self._store,
            self._assignments,
            self._changed,
            self._boot,
            self._attached,
            partial(free_bytes, releases_folder(folder)),
            DiskWatch((folder, releases_folder(folder), recordings_folder(folder))),
            self._secrets,
            self._files,
            settings_file(folder),
            lambda: self._incidents.problem,
        )
        self._dialer = Dialer(
            self._identities,
            handlers(self._methods, self._forwarding, self._streaming),
            self._changed.ring,
        )
        self._started_at = time.time()
        self._ticks = start_time(os.getpid()) or 0
        self._ending = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal, or until the identity is removed; return the exit code.

        Raises:
            ControlError: another agent uses the folder.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        async with AsyncExitStack() as stack:
            stack.callback(self._store.close)
            stack.enter_context(only_one(self._folder))
            # Before any share is started, whose nodes may need them.
            self._secrets.restore(self._robot)
            notifier = ServiceNotifier()
            stack.callback(notifier.close)
            stack.push_async_callback(self._files.close)
            for daemon in (self._own, self._forwarding, self._streaming):
                stack.push_async_callback(daemon.close)
            _log.info("dorad-agent %s of robot %s", __version__, self._robot)
            dialing = asyncio.create_task(self._dial(), name="dialer")
            tasks: list[asyncio.Task[Any]] = [dialing]
            tasks += map(asyncio.create_task, self._background(notifier))
            stack.push_async_callback(_end, tasks)
            notifier.ready(self.status().line)
            ending = asyncio.create_task(self._ending.wait(), name="signal")
            tasks.append(ending)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            notifier.stopping("dataflows keep running")
            for task in done:
                task.result()
            if ending in done:
                _log.info("ended; dataflows keep running")
                return 0
            _log.error("ended: %s", dialing.result())
            return 1

    def status(self) -> AgentStatus:
        """Return the state of this agent."""
        return AgentStatus(
            version=__version__,
            pid=os.getpid(),
            ticks=self._ticks,
            robot=self._robot,
            started_at=self._started_at,
            connection=self._dialer.status,
            epoch=self._store.memory.epoch,
            daemon=self._assignments.problem,
            shares=list(self._assignments.reported.values()),
            releases=list(self._assignments.releases.values()),
            notice="; ".join(
                filter(None, (self._store.notice, self._store.trouble, self._methods.notice))
            ),
        )

    def _background(self, notifier: ServiceNotifier) -> list[Coroutine[Any, Any, None]]:
        """Return what runs beside the dialer until the service ends."""
        return [
            self._assignments.run(),
            self._follow_daemon(),
            self._incidents.run(),
            keep_status(self._folder, self._changed, self.status),
            feed_watchdog(notifier, lambda: None, lambda: self.status().line),
        ]

    async def _dial(self) -> ControlError:
        # A coordinator that attaches gets the state of all shares.
        await self._assignments.looked.wait()
        return await self._dialer.run()

    async def _follow_daemon(self) -> None:
        """Wake the loop at each event of dorad, and the dialer when the network changes."""
        backoff = Backoff()
        while True:
            try:
                client = await self._own.client()
                async with client.watch() as events:
                    self._assignments.wake()
                    async for event in events:
                        backoff = Backoff()
                        if event.what == "network-changed":
                            _log.debug("the network has changed: %s", event.text)
                            self._dialer.network_changed()
                        elif event.dataflow in self._assignments.uuids or event.what == "left-out":
                            self._assignments.wake()
            except ControlError as error:
                _log.debug("events of dorad: %s", error)
            self._assignments.wake()
            await asyncio.sleep(backoff.next())

    def _attached(self, pause: float) -> None:
        self._dialer.attached(pause)
        self._contact.heard()
        self._assignments.observe()
        self._incidents.attached(pause)

    def _open_files(self, ticket: str) -> AbstractAsyncContextManager[ClientConnection]:
        return self._dialer.beside(FILES_PATH, {FILES_TICKET: ticket})

    async def _answers(self) -> bool:
        return await self._dialer.answers()


def _trees(folder: Path) -> Trees:
    return Trees(releases_folder(folder), Signers(signers_folder(folder)))


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
