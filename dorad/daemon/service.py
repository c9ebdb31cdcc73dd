"""The daemon: its host, state, registry and control socket, from start to end."""

from __future__ import annotations

import asyncio
import grp
import logging
import math
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from dorad import __version__
from dorad.control.messages import METHODS
from dorad.control.roles import with_role_check
from dorad.control.server import ControlServer
from dorad.daemon.api.handlers import handlers
from dorad.daemon.config import ConfigError, Settings, load
from dorad.daemon.database import StateError
from dorad.daemon.descriptors import DescriptorWatch
from dorad.daemon.leases import Leases
from dorad.daemon.measuring.measure import Measure
from dorad.daemon.measuring.network import NetworkWatch
from dorad.daemon.measuring.watching import SelfWatch
from dorad.daemon.nodeusers import NodeUsers
from dorad.daemon.registry import Registry
from dorad.daemon.state import State
from dorad.launch.holder.client import HolderClient
from dorad.launch.host import Host, HostListener
from dorad.launch.model import LaunchError
from dorad.logs.journal.choice import choose
from dorad.notify import ServiceNotifier, feed_watchdog
from dorad.problems import ProblemError
from dorad.realtime import own

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from dorad.daemon.paths import DaemonPaths
    from dorad.daemon.recordstore import RecordStore
    from dorad.launch.systemd.bus import SystemBus

_BUS_TIMEOUT_S = 20.0
_RETRY_S = 0.2
_MAX_RETRY_S = 2.0


class Hosting(NamedTuple):
    """The host, and the reason if it is not systemd although it should be."""

    host: Host
    note: str = ""
    """A line for the operator of a machine without systemd."""
    missing: str = ""
    """Why systemd cannot be reached, although it runs this daemon."""


async def attach_host(holder_path: Path, listener: HostListener, *, system: bool) -> Hosting:
    """Return the host of a daemon: of the machine's with `system`, else of a user's.

    Raises:
        LaunchError: no host can be reached.
    """
    if not system:
        _log.debug("the process holder at %s hosts nodes", holder_path)
        return Hosting(await HolderClient.attach(holder_path, listener))
    address = os.environ.get("NOTIFY_SOCKET")
    if address is None:
        return Hosting(
            await HolderClient.attach(holder_path, listener),
            note="systemd does not run this dorad, so nodes are plain processes"
            " (no units, no `resources`, no `user`)",
        )
    # Imported here, because few daemons run under systemd.
    from dorad.launch.systemd.envfile import EnvironmentFiles
    from dorad.launch.systemd.host import SystemdHost
    from dorad.launch.systemd.messages import BusError
    from dorad.launch.systemd.notify import Notifier, take_descriptors
    from dorad.launch.systemd.store import SystemdStore, holds_dataflows

    received = take_descriptors(os.environ)
    inherits = holds_dataflows(name for name, _ in received)
    try:
        bus = await _connect(_BUS_TIMEOUT_S if inherits else 0.0)
    except BusError as error:
        if inherits:
            raise LaunchError(
                f"nodes run as units of systemd, but D-Bus is not available: {error};"
                " they keep running, and the next dorad adopts them"
            ) from error
        return Hosting(
            await HolderClient.attach(holder_path, listener),
            missing=f"D-Bus is not available ({error})",
        )
    notifier = Notifier(address)
    store = SystemdStore(notifier, received)
    environments = EnvironmentFiles(holder_path.with_name("environments"))
    return Hosting(await SystemdHost.attach(bus, notifier, store, environments, listener))


async def wait_for_bus() -> None:
    """Return when systemd can be reached over D-Bus."""
    bus = await _connect(math.inf)
    await bus.close()


async def _connect(timeout: float) -> SystemBus:
    from dorad.launch.systemd.bus import SystemBus
    from dorad.launch.systemd.messages import BusError

    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = _RETRY_S
    while True:
        try:
            return await SystemBus.connect()
        except BusError as error:
            if loop.time() >= deadline:
                raise
            _log.debug("D-Bus is not available: %s; next attempt in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RETRY_S)


def in_background(
    stack: AsyncExitStack,
    work: Coroutine[Any, Any, None],
    name: str,
    warn: Callable[[str], None],
) -> None:
    """Run `work` as a task that is cancelled when `stack` unwinds; warn if it fails."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s has failed", name, exc_info=error)
            warn(f"a task of the daemon has failed, until it is restarted: {name} ({error!r})")

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    stack.callback(task.cancel)


SYNC_EVERY_S = 5.0
"""Time between two flushes of the state to the disk."""

DETACH_TIMEOUT_S = 5.0
"""Maximum time to hand everything over to the next daemon."""

MAX_NOTICES = 20
"""Number of warnings that `dora status` shows; older ones are only in the log."""

_dorad_log = logging.getLogger("dorad")
"""The parent of all loggers, whose level is configurable."""

_log = logging.getLogger(__name__)


class ServiceError(ProblemError):
    """A daemon that cannot start; the message gives the reason and the fix."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class Service(HostListener):
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
        """Prepare a daemon; with `system`, the one of the machine, which systemd may host.

        `config` is read at the start and at SIGHUP. `realtime` and `log_level` override it.
        """
        self._paths = paths
        self._system = system
        self._config = config
        self._realtime = realtime
        self._log_level = log_level
        self._group = group
        self._ending = asyncio.Event()
        self._ended_by_signal = False
        """Whether a signal ends the daemon, so that nodes may keep running."""
        self._stopping = False
        self._code = 0
        self._start_settings = Settings()
        self._missing = ""
        """Why systemd cannot be reached, although it runs this daemon."""
        self._autostarted = False
        self._config_problem = ""
        """The error of the last reload, for the status line."""
        self.notices: list[str] = []
        """The latest warnings for the operator."""
        self.descriptors = DescriptorWatch()
        self.started_at = time.time()

    async def run(self) -> int:
        """Run until a signal or a client ends the daemon; return the exit code.

        Raises:
            ProblemError: another daemon uses these paths, or they cannot be used.
        """
        settings = self._start_settings = self._load()
        group = self._group_id()
        self._prepare()
        async with AsyncExitStack() as stack:
            hosting = await attach_host(self._paths.process_holder, self, system=self._system)
            host = hosting.host
            self._missing = hosting.missing
            if hosting.note:
                self._warn(hosting.note)
            notifier = ServiceNotifier()
            stack.callback(notifier.close)
            # After the host is attached, because nodes must not be pinned to the daemon's cores.
            realtime = settings.realtime
            if self._realtime:
                realtime = replace(realtime, enabled=True)
            for line in own.apply(realtime):
                self._warn(f"dorad itself: {line}")
            stack.push_async_callback(host.end)
            try:
                state = State(self._paths.database, self._warn, spare=self._paths.spare_database)
            except StateError:
                await host.detach()
                stack.pop_all()
                raise
            stack.callback(state.close)
            logs = choose(settings.journal, os.environ, system=self._system)
            if logs.note is not None:
                self._warn(logs.note)
            registry = Registry(
                state, host, self._paths, self._warn, journal=logs.journal, group=group
            )
            stack.push_async_callback(registry.close)
            self._apply(settings, registry, host)
            self._listen_to_signals(registry, host, notifier)
            try:
                await self._serve(stack, host, registry, notifier, group)
            except Exception:
                if await host.stays():
                    _log.exception("the daemon fails")
                    await self._detach(host, registry, code=1)
                raise
            self._stopping = True
            _log.info("ending")
            notifier.stopping("stopping all dataflows")
        _log.info("ended")
        return self._code

    async def _serve(
        self,
        stack: AsyncExitStack,
        host: Host,
        registry: Registry,
        notifier: ServiceNotifier,
        group: int | None,
    ) -> None:
        """Adopt the previous daemon's dataflows and serve clients until the daemon ends.

        Raises:
            ControlError: the control socket cannot be created.
        """
        await registry.adopt()
        self._autostart(registry)
        if self._missing:
            in_background(stack, self._restart_with_bus(registry), "D-Bus", self._warn)
        network = NetworkWatch(registry.event_bus.network_changed)
        in_background(stack, network.run(), "network", self._warn)
        measure = Measure(registry, network, self._warn)
        in_background(stack, measure.run(), "measuring", self._warn)
        watch = SelfWatch(registry, measure)
        in_background(stack, watch.run(), "row and alerts", self._warn)
        leases = Leases(self._paths.leases, self._warn)
        methods = with_role_check(handlers(self, registry, measure, watch, leases), METHODS)
        server = ControlServer(methods, version=__version__)
        await server.serve(self._paths.control, group=group)
        stack.push_async_callback(server.close)
        _log.info("ready at %s (dorad %s)", self._paths.control, __version__)
        notifier.ready(self._status(registry))
        in_background(stack, self.descriptors.run(), "descriptors", self._warn)
        watchdog = feed_watchdog(notifier, registry.fault, lambda: self._status(registry))
        in_background(stack, watchdog, "watchdog", self._warn)
        in_background(stack, _sync(registry.store), "sync of the state", self._warn)
        await self._ending.wait()
        if self._ended_by_signal and await host.stays():
            notifier.stopping("nodes keep running")
            await self._detach(host, registry)

    def end(self) -> None:
        """Stop all dataflows, then end."""
        self._ending.set()

    async def _detach(self, host: Host, registry: Registry, code: int = 0) -> NoReturn:
        """Exit at once, and leave nodes to the next daemon.

        The effect is that of SIGKILL, except that the state is on the disk. Nothing is closed,
        because nodes and the next daemon still use it.
        """
        try:
            registry.save_all()
            async with asyncio.timeout(DETACH_TIMEOUT_S):
                await registry.store.sync()
                await host.detach()
        except TimeoutError as error:
            _log.warning("nodes keep running, but the handover is incomplete: %r", error)
        except Exception:  # noqa: BLE001 - no error here may stop the nodes
            _log.exception("nodes keep running, but the handover is incomplete")
        finally:
            _log.info("ended; nodes keep running")
            logging.shutdown()
            os._exit(code)

    def on_problem(self, text: str) -> None:
        """Warn of what the host of processes cannot keep."""
        self._warn(text)

    def on_died(self) -> None:
        """End the daemon: every node has exited, and none can be started."""
        self._warn("the process holder was killed, and every node with it")
        self._code = 1
        self.end()

    def _prepare(self) -> None:
        for folder in (self._paths.runtime, self._paths.state):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ServiceError(f"cannot create {folder}: {error.strerror}") from error

    def _group_id(self) -> int | None:
        if self._group is None:
            return None
        try:
            return grp.getgrnam(self._group).gr_gid
        except KeyError:
            raise ServiceError(
                f"there is no group {self._group!r}; create it with `groupadd {self._group}`"
            ) from None

    def _load(self) -> Settings:
        if self._config is None:
            return Settings()
        return load(self._config)

    def _apply(self, settings: Settings, registry: Registry, host: Host) -> None:
        """Apply the settings that do not need a restart."""
        _log.debug("applying %s", settings)
        if self._config is not None:
            _dorad_log.setLevel((self._log_level or settings.log_level).upper())
        users = NodeUsers(
            settings.nodes, units=host.units, system=self._system, missing=self._missing
        )
        registry.runner.node_users = users
        if problem := users.problem():
            _log.error("nodes cannot be started: %s", problem)

    def _autostart(self, registry: Registry) -> None:
        """Start enabled dataflows, once, as soon as nodes can be started."""
        if self._system and not self._autostarted and not registry.runner.node_users.problem():
            self._autostarted = True
            registry.autostart()

    async def _restart_with_bus(self, registry: Registry) -> None:
        """End when D-Bus is available, so that systemd starts a daemon that uses it."""
        await wait_for_bus()
        if registry.running:
            self._warn("D-Bus is available now; restart dorad to run nodes as units")
            return
        _log.info("D-Bus is available now; systemd starts the daemon again")
        self.end()

    def _reload(self, registry: Registry, host: Host, notifier: ServiceNotifier) -> None:
        """Reload the configuration; keep the old one if the new one has errors."""
        notifier.reloading()
        try:
            settings = self._load()
            self._apply(settings, registry, host)
            self._autostart(registry)
            self._config_problem = ""
            _log.info("the configuration was reloaded")
            for section in settings.needing_restart(self._start_settings):
                self._warn(f"{section} of {self._config} takes effect when dorad is restarted")
        except ConfigError as error:
            self._config_problem = str(error)
            self._warn(f"the old configuration stays in use: {error}")
        finally:
            # `systemctl reload` waits for this.
            notifier.ready(self._status(registry))

    def _status(self, registry: Registry) -> str:
        """Return the status of the daemon in one line."""
        parts = [registry.summary()]
        if problem := registry.runner.node_users.problem():
            parts.append(f"nodes cannot be started: {problem}")
        if self._config_problem:
            parts.append(f"the old configuration is in use: {self._config_problem}")
        if trouble := self.descriptors.trouble:
            parts.append(trouble)
        return "; ".join(parts)

    def _listen_to_signals(self, registry: Registry, host: Host, notifier: ServiceNotifier) -> None:
        loop = asyncio.get_running_loop()

        def on_signal(number: int) -> None:
            _log.info("%s", signal.Signals(number).name)
            self._ended_by_signal = self._ended_by_signal or not self._ending.is_set()
            if self._stopping:
                registry.kill_all("was killed because the daemon got a second signal to end")
            self.end()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload, registry, host, notifier)

    def _warn(self, text: str) -> None:
        _log.warning("%s", text)
        self.notices.append(text)
        del self.notices[:-MAX_NOTICES]


async def _sync(store: RecordStore) -> None:
    """Flush the state to the disk regularly, until cancelled."""
    while True:
        await asyncio.sleep(SYNC_EVERY_S)
        await store.sync()
