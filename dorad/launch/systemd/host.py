"""systemd as the `Host` of a daemon: processes are transient services, which outlive it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING

from dorad.launch import helper
from dorad.launch.host import HostListener, KeptProcess
from dorad.launch.model import Command, LaunchError, RefusedError
from dorad.launch.systemd.manager import LINK, Listed, Manager
from dorad.launch.systemd.messages import BusError
from dorad.launch.systemd.properties import (
    environment,
    helper_properties,
    is_helper,
    properties,
    tag_of,
    usable,
    without,
)
from dorad.launch.systemd.units import (
    CAPABILITIES,
    SCHEDULER,
    STARTED,
    STATE_FOLDER,
    Units,
    exit_of,
    is_failed,
    is_transient,
    why_not_started,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.launch.helper import HelperHost
    from dorad.launch.spawner import Process
    from dorad.launch.systemd.bus import SystemBus
    from dorad.launch.systemd.envfile import EnvironmentFiles
    from dorad.launch.systemd.notify import Notifier
    from dorad.launch.systemd.store import SystemdStore

_DELAY_SECONDS = 1.0
_COUNTS = ("NFileDescriptorStore", "FileDescriptorStoreMax")


class StoreCheck:
    """Compares the number of descriptors in systemd's store with the number sent."""

    def __init__(
        self,
        store: SystemdStore,
        notifier: Notifier,
        manager: Manager,
        own_unit: str,
        listener: HostListener,
    ) -> None:
        self._listener = listener
        self._store = store
        self._notifier = notifier
        self._manager = manager
        self._own_unit = own_unit
        self._due = False
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Check in a second, once for all calls until then."""
        self._due = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop checking. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while self._due:
            await asyncio.sleep(_DELAY_SECONDS)
            self._due = False
            await self._check()
        self._task = None

    async def _check(self) -> None:
        expected = self._store.count
        try:
            await self._notifier.barrier()
            values = await self._manager.values(self._own_unit, _COUNTS)
        except (BusError, OSError) as error:
            _log.warning("the number of descriptors that systemd keeps is unknown: %s", error)
            return
        kept = values.get("NFileDescriptorStore", 0)
        _log.debug("systemd keeps %d descriptors, expected %d", kept, expected)
        if kept < min(expected, self._store.count):
            limit = values.get("FileDescriptorStoreMax", 0)
            self._listener.on_problem(
                f"systemd keeps {kept} of {expected} descriptors; the others would be lost if"
                f" dorad were restarted (FileDescriptorStoreMax={limit} of {self._own_unit};"
                " raise it)"
            )


_FOUND = ("LogExtraFields", *STARTED)


async def find_processes(manager: Manager, units: Units) -> list[KeptProcess]:
    """Add the units of an earlier daemon to `units`, and return the processes of its nodes.

    Raises:
        BusError: systemd does not report its units.
    """
    listed = (await manager.listed()).items()
    processes = await asyncio.gather(*(_find(manager, units, *each) for each in listed))
    return [kept for kept in processes if kept is not None]


async def _find(manager: Manager, units: Units, name: str, listed: Listed) -> KeptProcess | None:
    """Return the process of a unit; None if it is not a node of this daemon, or already handled."""
    values = await manager.values(name, _FOUND)
    tag = tag_of(values.get("LogExtraFields", ()))
    if tag is None:
        _log.debug("unit %s is not ours", name)
        return None
    unit = units.add(name, tag)
    unit.started.set()
    if is_helper(tag) or not values.get("ExecMainPID"):
        _log.debug("unit %s of an earlier daemon is a helper, or did not start", name)
        units.release_soon(unit)
        return None
    process = units.make_process(unit, values)
    ended = unit.exit or exit_of(values)
    _log.debug("unit %s of an earlier daemon, for %s: %s", name, tag, ended or "running")
    if ended is None:
        return KeptProcess(tag, process)
    unit.exit, unit.reaped = ended, True
    if is_failed(listed.description):
        # The earlier daemon has stored this exit; the unit only stays visible as failed.
        unit.forgotten = True
        units.failed.add(unit)
        process.set_exit(ended)
        return None
    # Kill the rest of the unit before its exit is reported.
    await units.kill(unit)
    process.set_exit(ended)
    return KeptProcess(tag, process)


_LEFT_OUT = {
    STATE_FOLDER: "StateDirectory",
    SCHEDULER: "CPUScheduling",
    CAPABILITIES: "AmbientCapabilities",
}
"""Exit codes after which a unit is started again without these properties; in the order in which
systemd applies them."""
_FIRST_EXTRA = 3
"""The number of the first descriptor that is not a standard one."""
_log = logging.getLogger(__name__)


class SystemdHost:
    """A `Host` that runs each process as a transient unit. Made by `attach`."""

    units = True

    def __init__(
        self,
        bus: SystemBus,
        notifier: Notifier,
        store: SystemdStore,
        environments: EnvironmentFiles,
        own_unit: str,
        listener: HostListener,
    ) -> None:
        self.kept: list[KeptProcess] = []
        """The processes of an earlier daemon, including those that have ended since."""
        self.helpers: HelperHost = self
        self.parent = 0
        self.died = False
        self._bus = bus
        self._manager = Manager(bus)
        self._notifier = notifier
        self._store = store
        self._environments = environments
        self._own_unit = own_unit
        self._listener = listener
        self._units = Units(self._manager, listener)
        self._store_check = StoreCheck(store, notifier, self._manager, own_unit, listener)
        self._closed = False

    @classmethod
    async def attach(
        cls,
        bus: SystemBus,
        notifier: Notifier,
        store: SystemdStore,
        environments: EnvironmentFiles,
        listener: HostListener | None = None,
    ) -> SystemdHost:
        """Adopt the processes that an earlier daemon has started.

        Raises:
            LaunchError: systemd does not report its units.
        """
        try:
            own_unit = await Manager(bus).unit_of(os.getpid())
            host = cls(bus, notifier, store, environments, own_unit, listener or HostListener())
            await host._find()
        except BusError as error:
            raise LaunchError(f"systemd does not report its units: {error}") from error
        return host

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start a unit for `command`, as `Host.spawn`."""
        with self._environments.file(environment(command, os.environ)) as file:
            return await self._spawn(command, stdout_fd, stderr_fd, tag, os.fspath(file))

    async def start_helper(
        self, command: Command, stdio: int, link: int, *, tag: str, network: bool = False
    ) -> Process:
        """Start a helper as a unit with its own user, as `HelperHost.start_helper`."""
        environ = {**command.env, helper.LINK: str(_FIRST_EXTRA)}
        wanted = helper_properties(command, tag, environ, self._own_unit, network=network)
        fds = (("Input", stdio), ("Output", stdio), (LINK, link))
        unit, values = await self._units.start(command, wanted, fds, tag)
        # The daemon stores no exits of helpers.
        unit.forgotten = unit.helper = True
        if unit.start_result != "done":
            self._units.release_soon(unit)
            raise LaunchError(f"cannot start {command.argv[0]}: {why_not_started(values, command)}")
        process = self._units.make_process(unit, values)
        self._units.set_exit(unit, unit.exit or exit_of(values))
        return process

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates, as `Host.store`."""
        if self._closed:
            return
        try:
            self._store.store(name, fds)
        except OSError as error:
            self._listener.on_problem(
                f"systemd cannot keep the descriptors {name}: {error.strerror}"
            )
        self._store_check.soon()

    def drop(self, name: str) -> None:
        """Close the duplicates, as `Host.drop`."""
        if not self._closed:
            self._store.drop(name)

    def take(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return descriptors of the last daemon, as `Host.take`."""
        entries = self._store.entries
        taken = [name for name in entries if name.startswith(prefix)]
        return {name: entries.pop(name) for name in taken}

    def forget(self, pid: int) -> None:
        """Release the unit of the process with this pid, as `Host.forget`."""
        self._units.forget(pid)

    async def end_marked(self, mark: str, *, below_too: bool) -> int:
        """Do nothing: no process can leave the control group of its unit, and ends with it."""
        del mark, below_too
        return 0

    async def stays(self) -> bool:
        """Return True, except while the whole machine shuts down."""
        try:
            return not await self._manager.is_shutting_down()
        except BusError:
            return True

    async def detach(self) -> None:
        """Disconnect, as `Host.detach`."""
        if self._closed:
            return
        self._closed = True
        await self._store_check.close()
        await self._units.close()
        await self._notifier.flushed()
        await self._bus.close()
        self._store.close()
        self._notifier.close()
        _log.debug("detached from systemd")

    async def end(self) -> None:
        """End every process that is left, and close all descriptors, as `Host.end`."""
        if self._closed:
            return
        # While the machine shuts down, systemd stops the units itself, after the daemon.
        end = self._units.release if await self.stays() else self._units.kill
        await asyncio.gather(*map(end, self._units.all()))
        self._store.drop_all()
        await self.detach()

    async def _find(self) -> None:
        self._bus.on_signal = self._units.on_signal
        self._bus.on_reconnect = self._units.resync_soon
        self.kept += await find_processes(self._manager, self._units)

    async def _spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, tag: str, environment_file: str
    ) -> Process:
        cores = usable(command.cpu_affinity)
        wanted = properties(
            command,
            tag,
            environment_file=environment_file,
            own_unit=self._own_unit,
            cores=cores,
        )
        refused = 0
        outputs = (("Output", stdout_fd), ("Error", stderr_fd))
        unit, values = await self._units.start(command, wanted, outputs, tag)
        # Leave out settings that systemd itself may not grant; the node reports what it lacks.
        for status, prefix in _LEFT_OUT.items():
            if unit.start_result != "done" and values.get("ExecMainStatus") == status:
                _log.debug("%s ended with %d; trying without %s", unit.name, status, prefix)
                await self._units.release(unit)
                if status == SCHEDULER:
                    refused = errno.EPERM
                if status == STATE_FOLDER and command.identity.folder is not None:
                    self._listener.on_problem(
                        f"{unit.name} runs without its folder /var/lib/"
                        f"{command.identity.folder.path}, which cannot be made; is the disk full?"
                    )
                wanted = without(wanted, prefix)
                unit, values = await self._units.start(command, wanted, outputs, tag)
        if unit.start_result != "done":
            self._units.release_soon(unit)
            kind = RefusedError if is_transient(values) else LaunchError
            raise kind(f"cannot start {command.argv[0]}: {why_not_started(values, command)}")
        skipped = tuple(core for core in command.cpu_affinity if core not in cores)
        process = self._units.make_process(unit, values, skipped, refused)
        self._units.set_exit(unit, unit.exit or exit_of(values))
        return process
