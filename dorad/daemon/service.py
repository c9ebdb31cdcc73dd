"""The daemon as a whole: host, state, dataflows and control socket, from start to end."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.control.errors import ControlError
from dorad.control.server import ControlServer
from dorad.daemon.api.handlers import handlers
from dorad.daemon.config import ConfigError, Settings, load
from dorad.daemon.database import StateError
from dorad.daemon.descriptors import DescriptorWatch
from dorad.daemon.hosting import attach_host, wait_for_bus
from dorad.daemon.measuring.measure import Measure
from dorad.daemon.measuring.network import NetworkWatch
from dorad.daemon.nodeusers import NodeUsers
from dorad.daemon.notify import ServiceNotifier
from dorad.daemon.registry import Registry
from dorad.daemon.state import State
from dorad.daemon.watchdog import watch
from dorad.launch.model import LaunchError
from dorad.logs.journal.choice import choose
from dorad.realtime import own

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from dorad.daemon.paths import DaemonPaths
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
        paths: DaemonPaths,
        *,
        system: bool = False,
        group: str | None = None,
        config: Path | None = None,
        realtime: bool = False,
        log_level: str | None = None,
    ) -> None:
        """Prepare a daemon; with `system` it is the one of the machine, which systemd may host.

        `config` is read at the start and at SIGHUP; with `realtime` the daemon runs in real time
        whatever it says, and with `log_level` it logs from that level on.
        """
        self._places = paths
        self._system = system
        self._config = config
        self._realtime = realtime
        self._log_level = log_level
        self._group = group
        self._ending = asyncio.Event()
        self._told = False
        """Whether it was a signal that told it to end, so that nodes may go on."""
        self._stopping = False
        self._code = 0
        self._begun_with = Settings()
        self._missing = ""
        """What systemd cannot be reached without, although it runs this daemon."""
        self._autostarted = False
        self._unread = ""
        """What is wrong with the configuration, as long as it is."""
        self.notices: list[str] = []
        """What the operator should know."""
        self.descriptors = DescriptorWatch()
        self.started_at = time.time()

    async def run(self) -> int:
        """Run until asked to end; return the exit code.

        Raises:
            ServiceError: another daemon runs in these places, or they cannot be used.
        """
        settings = self._begun_with = self._load()
        group = self._group_id()
        self._prepare()
        async with AsyncExitStack() as stack:
            try:
                hosting = await attach_host(self._places.keeper, system=self._system)
            except LaunchError as error:
                raise ServiceError(str(error)) from error
            host = hosting.host
            self._missing = hosting.missing
            if hosting.note:
                self._notice(hosting.note)
            notices = ServiceNotifier()
            stack.callback(notices.close)
            host.on_died = self._on_host_died
            host.on_problem = self._notice
            # Only now: nodes must not be bound to the daemon's cores.
            realtime = settings.realtime
            if self._realtime:
                realtime = replace(realtime, enabled=True)
            for line in own.apply(realtime):
                self._notice(f"dorad itself: {line}")
            stack.push_async_callback(host.end)
            try:
                state = State(
                    self._places.database, self._notice, spare=self._places.spare_database
                )
            except StateError as error:
                await host.detach()
                stack.pop_all()
                raise ServiceError(str(error)) from error
            stack.callback(state.close)
            logs = choose(settings.journal, os.environ, system=self._system)
            if logs.note is not None:
                self._notice(logs.note)
            registry = Registry(state, host, self._places, self._notice, journal=logs.journal)
            registry.group = group
            stack.push_async_callback(registry.close)
            self._apply(settings, registry, host)
            self._listen_to_signals(registry, host, notices)
            try:
                await self._serve(stack, host, registry, state, notices, group)
            except Exception:
                if await host.stays():
                    _log.exception("the daemon cannot go on")
                    await self._leave(host, registry, state, code=1)
                raise
            self._stopping = True
            _log.info("ending")
            notices.stopping("stopping all dataflows")
        _log.info("ended")
        return self._code

    async def _serve(
        self,
        stack: AsyncExitStack,
        host: Host,
        registry: Registry,
        state: State,
        notices: ServiceNotifier,
        group: int | None,
    ) -> None:
        """Take over what there is and be there for everybody, until asked to end.

        Raises:
            ServiceError: the control socket cannot be made.
        """
        await registry.adopt()
        self._autostart(registry)
        if self._missing:
            waiting = asyncio.create_task(self._begin_anew_with_bus(registry), name="D-Bus")
            stack.callback(waiting.cancel)
        network = NetworkWatch(registry.event_bus.network_changed)
        knowing = asyncio.create_task(network.run(), name="network")
        stack.callback(knowing.cancel)
        measure = Measure(registry, network, self._notice)
        measuring = asyncio.create_task(measure.run(), name="measuring")
        stack.callback(measuring.cancel)
        server = ControlServer(handlers(self, registry, measure), version=__version__)
        try:
            await server.serve(self._places.control, group=group)
        except ControlError as error:
            raise ServiceError(str(error)) from error
        stack.push_async_callback(server.close)
        _log.info("ready at %s (dorad %s)", self._places.control, __version__)
        notices.ready(self._status(registry))
        counting = asyncio.create_task(self.descriptors.run(), name="descriptors")
        stack.callback(counting.cancel)
        watching = asyncio.create_task(
            watch(notices, registry.fault, lambda: self._status(registry)), name="watchdog"
        )
        stack.callback(watching.cancel)
        syncing = asyncio.create_task(self._sync(state), name="sync of the state")
        stack.callback(syncing.cancel)
        await self._ending.wait()
        if self._told and await host.stays():
            notices.stopping("nodes go on")
            await self._leave(host, registry, state)

    def end(self) -> None:
        """Stop all dataflows, then end."""
        self._ending.set()

    async def _leave(self, host: Host, registry: Registry, state: State, code: int = 0) -> NoReturn:
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
            os._exit(code)

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

    def _load(self) -> Settings:
        if self._config is None:
            return Settings()
        try:
            return load(self._config)
        except ConfigError as error:
            raise ServiceError(str(error)) from error

    def _apply(self, settings: Settings, registry: Registry, host: Host) -> None:
        """Do what can be done at any time of what the configuration says."""
        if self._config is not None:
            _log.setLevel((self._log_level or settings.log_level).upper())
        users = NodeUsers(
            settings.nodes, units=host.units, system=self._system, missing=self._missing
        )
        registry.node_users = users
        if problem := users.problem():
            _log.error("nodes cannot be started: %s", problem)

    def _autostart(self, registry: Registry) -> None:
        """Start what is to run, once nodes can be started."""
        if self._system and not self._autostarted and not registry.node_users.problem():
            self._autostarted = True
            registry.autostart()

    async def _begin_anew_with_bus(self, registry: Registry) -> None:
        """End when D-Bus is there, so that systemd starts a daemon that can use it."""
        await wait_for_bus()
        if any(record.running for record in registry.records):
            self._notice("D-Bus is there now; nodes are units once dorad is restarted")
            return
        _log.info("D-Bus is there now; systemd starts the daemon again")
        self.end()

    def _reload(self, registry: Registry, host: Host, notices: ServiceNotifier) -> None:
        """Read the configuration again; one that cannot be used changes nothing."""
        notices.reloading()
        try:
            settings = self._load()
            self._apply(settings, registry, host)
            self._autostart(registry)
            self._unread = ""
            _log.info("the configuration was read again")
            for section in settings.taken_at_start(self._begun_with):
                self._notice(f"{section} of {self._config} is taken when dorad is restarted")
        except ServiceError as error:
            self._unread = f"; the configuration is the old one: {error}"
            self._notice(f"the configuration stays the old one: {error}")
        finally:
            # Without this, whoever asked for it would wait for ever.
            notices.ready(self._status(registry))

    def _status(self, registry: Registry) -> str:
        """Return in one line how things are."""
        trouble = self.descriptors.trouble
        problem = registry.node_users.problem()
        blocked = f"; nodes cannot be started: {problem}" if problem else ""
        return registry.summary() + blocked + self._unread + (f"; {trouble}" if trouble else "")

    def _listen_to_signals(self, registry: Registry, host: Host, notices: ServiceNotifier) -> None:
        loop = asyncio.get_running_loop()

        def asked(number: int) -> None:
            _log.info("%s", signal.Signals(number).name)
            self._told = self._told or not self._ending.is_set()
            if self._stopping:
                registry.kill_all("was killed because the daemon was told to end twice")
            self.end()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload, registry, host, notices)

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
