"""The daemon as a whole: host, state, dataflows and control socket, from start to end."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.control.errors import ControlError
from dorad.control.server import ControlServer
from dorad.daemon.api.handlers import handlers
from dorad.daemon.hosting import attach_host
from dorad.daemon.measure import Measure
from dorad.daemon.network import NetworkWatch
from dorad.daemon.notify import Notices
from dorad.daemon.registry import Registry
from dorad.daemon.state import State, StateError
from dorad.daemon.watchdog import watch
from dorad.launch.model import LaunchError
from dorad.logs.journal.choice import choose
from dorad.realtime import own
from dorad.realtime.settings import RealtimeSettings

if TYPE_CHECKING:
    from typing import NoReturn

    from dorad.daemon.places import Places
    from dorad.launch.host import Host

SYNC_EVERY_S = 5.0
"""Seconds between the moments at which what has changed is brought to the disk."""

LEAVE_S = 5.0
"""Seconds that may pass until everything is left to the next daemon."""

_log = logging.getLogger("dorad")


class ServiceError(Exception):
    """The daemon cannot start; the text says why and what to do."""


class Service:
    """One daemon. Runs once."""

    def __init__(
        self,
        places: Places,
        *,
        system: bool = False,
        group: str | None = None,
        realtime: RealtimeSettings | None = None,
        journal: bool | None = None,
    ) -> None:
        """Prepare a daemon; with `system` it is the one of the machine, which systemd may host.

        `journal` says whether lines of nodes go to the journal; None: if systemd hosts it.
        """
        self._places = places
        self._system = system
        self._realtime = realtime or RealtimeSettings()
        self._group = group
        self._journal = journal
        self._ending = asyncio.Event()
        self._told = False
        """Whether it was a signal that told it to end, so that nodes may go on."""
        self._stopping = False
        self._code = 0
        self.notices: list[str] = []
        """What the operator should know."""
        self.started_at = time.time()

    async def run(self) -> int:
        """Run until asked to end; return the exit code.

        Raises:
            ServiceError: another daemon runs in these places, or they cannot be used.
        """
        self._prepare()
        async with AsyncExitStack() as stack:
            try:
                host, fallback = await attach_host(self._places.keeper, system=self._system)
            except LaunchError as error:
                raise ServiceError(str(error)) from error
            if fallback is not None:
                self._notice(fallback)
            notices = Notices()
            stack.callback(notices.close)
            host.on_died = self._on_host_died
            host.on_problem = self._notice
            # Only now: nodes must not be bound to the daemon's cores.
            for line in own.apply(self._realtime):
                self._notice(f"dorad itself: {line}")
            stack.push_async_callback(host.end)
            try:
                state = State(self._places.database, self._notice)
            except StateError as error:
                await host.detach()
                stack.pop_all()
                raise ServiceError(str(error)) from error
            stack.callback(state.close)
            logs = choose(self._journal, os.environ, system=self._system)
            if logs.note is not None:
                self._notice(logs.note)
            registry = Registry(state, host, self._places, self._notice, journal=logs.journal)
            stack.push_async_callback(registry.close)
            self._listen_to_signals(registry)
            await registry.adopt()
            if self._system:
                registry.autostart()
            network = NetworkWatch(registry.happenings.network_changed)
            knowing = asyncio.create_task(network.run(), name="network")
            stack.callback(knowing.cancel)
            measure = Measure(registry, network)
            measuring = asyncio.create_task(measure.run(), name="measuring")
            stack.callback(measuring.cancel)
            server = ControlServer(handlers(self, registry, measure), version=__version__)
            try:
                await server.serve(self._places.control, group=self._group_id())
            except ControlError as error:
                raise ServiceError(str(error)) from error
            stack.push_async_callback(server.close)
            _log.info("ready at %s (dorad %s)", self._places.control, __version__)
            notices.ready(registry.summary())
            watching = asyncio.create_task(
                watch(notices, registry.fault, registry.summary), name="watchdog"
            )
            stack.callback(watching.cancel)
            syncing = asyncio.create_task(self._sync(state), name="sync of the state")
            stack.callback(syncing.cancel)
            await self._ending.wait()
            if self._told and await host.stays():
                notices.stopping("nodes go on")
                await self._leave(host, registry, state)
            self._stopping = True
            _log.info("ending")
            notices.stopping("stopping all dataflows")
        _log.info("ended")
        return self._code

    def end(self) -> None:
        """Stop all dataflows, then end."""
        self._ending.set()

    async def _leave(self, host: Host, registry: Registry, state: State) -> NoReturn:
        """End here and now, so that nodes and the next daemon find all as it is.

        As after SIGKILL, but what is written down is on the disk. Nothing is closed and nobody is
        told, because whatever is put in order here is put in disorder there.
        """
        try:
            registry.store_all()
            async with asyncio.timeout(LEAVE_S):
                await asyncio.to_thread(state.sync)
                await host.detach()
        except (StateError, TimeoutError) as error:
            _log.warning("nodes go on, though not all could be left in order: %r", error)
        except Exception:  # noqa: BLE001 - whatever it is, nodes are not to suffer from it
            _log.exception("nodes go on, though not all could be left in order")
        finally:
            _log.info("ended; nodes go on")
            logging.shutdown()
            os._exit(0)

    def _on_host_died(self) -> None:
        """End, too: every node has, and none can be started any more."""
        self._notice("the keeper of the processes was killed, and every node with it")
        self._code = 1
        self.end()

    def _prepare(self) -> None:
        for folder in (self._places.runtime, self._places.state):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ServiceError(f"cannot make {folder}: {error.strerror}") from error

    def _group_id(self) -> int | None:
        if self._group is None:
            return None
        try:
            return grp.getgrnam(self._group).gr_gid
        except KeyError:
            raise ServiceError(
                f"there is no group {self._group!r}; make it with `groupadd {self._group}`"
            ) from None

    def _listen_to_signals(self, registry: Registry) -> None:
        loop = asyncio.get_running_loop()

        def asked(number: int) -> None:
            _log.info("%s", signal.Signals(number).name)
            self._told = self._told or not self._ending.is_set()
            if self._stopping:
                registry.kill_all("was killed because the daemon was told to end twice")
            self.end()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked, number)
        loop.add_signal_handler(signal.SIGHUP, lambda: _log.info("SIGHUP: nothing to reload"))

    def _notice(self, text: str) -> None:
        _log.warning("%s", text)
        self.notices.append(text)
        del self.notices[:-20]

    async def _sync(self, state: State) -> None:
        """Bring the state to the disk now and then, outside the event loop's thread."""
        broken = False
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            try:
                await asyncio.to_thread(state.sync)
                broken = False
            except StateError as error:
                if not broken:
                    self._notice(f"the state cannot be brought to the disk: {error}")
                broken = True
