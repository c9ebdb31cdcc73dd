"""systemd as the host of nodes: transient services in a slice, which outlive the daemon."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from dorad.launch import helper
from dorad.launch.host import KeptProcess
from dorad.launch.model import Exit, LaunchError, RefusedError
from dorad.launch.spawner import Process
from dorad.procinfo import start_time
from dorad.launch.systemd import failed, names
from dorad.launch.systemd.bus import SERVICE
from dorad.launch.systemd.exits import (
    CAPABILITIES,
    SCHEDULER,
    exit_of,
    is_transient,
    why_not_started,
)
from dorad.launch.systemd.failed import FailedUnits
from dorad.launch.systemd.manager import LINK, NO_UNIT, Manager
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
from dorad.launch.systemd.unit import Unit, user_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from dorad.launch.helper import HelperHost
    from dorad.launch.model import Command
    from dorad.launch.systemd.bus import Bus
    from dorad.launch.systemd.envfile import EnvironmentFiles
    from dorad.launch.systemd.hardening import Properties
    from dorad.launch.systemd.manager import Descriptors, Listed
    from dorad.launch.systemd.notify import Notifier
    from dorad.launch.systemd.store import SystemdStore

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_CHECK_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 1.0
_MAX_STARTS = 16
"""Units that are started at the same time, so that each is given its time."""
_END = ("LogExtraFields", "ExecMainCode", "ExecMainStatus")
"""What tells how a unit is, in this order: the status counts only if the code came before it."""
_STARTED = (
    "ExecMainCode",
    "ExecMainStatus",
    "ExecMainPID",
    "ExecMainStartTimestampMonotonic",
    "Result",
)
_FOUND = ("LogExtraFields", *_STARTED)
_STORE = ("NFileDescriptorStore", "FileDescriptorStoreMax")
_LEFT_OUT = {SCHEDULER: "CPUScheduling", CAPABILITIES: "AmbientCapabilities"}
"""What a unit is started without if it ended with this, in the order in which systemd fails."""
_TICKS = os.sysconf("SC_CLK_TCK")
_FIRST_EXTRA = 3
"""The number that systemd gives the first descriptor that is not a standard one."""
_KILL = signal.SIGKILL
_log = logging.getLogger(__name__)


class SystemdHost:
    """A `Host`. Made by `attach`; belongs to one event loop."""

    units = True
    """They are."""

    def __init__(
        self, bus: Bus, notifier: Notifier, store: SystemdStore, environments: EnvironmentFiles
    ) -> None:
        self.kept: list[KeptProcess] = []
        """The processes that were found, also those that ended while no daemon was there."""
        self.helpers: HelperHost = self
        self.parent = 0
        self.died = False
        self.on_died: Callable[[], None] = lambda: None
        """Never called: without systemd there is no machine."""
        self.on_problem: Callable[[str], None] = _log.warning
        self._bus = bus
        self._manager = Manager(bus)
        self._notifier = notifier
        self._store = store
        self._environments = environments
        self._own_unit = ""
        self._number = 0
        self._units: dict[str, Unit] = {}
        self._paths: dict[str, Unit] = {}
        self._starts = asyncio.Semaphore(_MAX_STARTS)
        self._asking: set[Unit] = set()
        """Units that systemd is being asked about, whether they have ended."""
        self._failed = FailedUnits(lambda unit: self._in_background(self._release(unit)))
        self._work: set[asyncio.Task[None]] = set()
        self._check: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    async def attach(
        cls, bus: Bus, notifier: Notifier, store: SystemdStore, environments: EnvironmentFiles
    ) -> SystemdHost:
        """Find what an earlier daemon has started.

        Raises:
            LaunchError: systemd does not say what there is.
        """
        host = cls(bus, notifier, store, environments)
        bus.on_signal = host._on_signal
        bus.on_reconnect = lambda: host._in_background(host._look_again())
        try:
            await host._find()
        except BusError as error:
            raise LaunchError(f"systemd does not say which units there are: {error}") from error
        return host

    # -- processes ---------------------------------------------------------------------------

    async def spawn(
        self, command: Command, stdout_fd: int, stderr_fd: int, *, tag: str = ""
    ) -> Process:
        """Start a unit for `command`, as `Host.spawn`."""
        with self._environments.file(environment(command, os.environ)) as file:
            return await self._spawn(command, stdout_fd, stderr_fd, tag, os.fspath(file))

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
        unit, values = await self._start(command, wanted, outputs, tag)
        # What systemd may not give itself is left out; the node then tells what it lacks.
        for status, prefix in _LEFT_OUT.items():
            if unit.start_result != "done" and values.get("ExecMainStatus") == status:
                await self._release(unit)
                if status == SCHEDULER:
                    refused = errno.EPERM
                wanted = without(wanted, prefix)
                unit, values = await self._start(command, wanted, outputs, tag)
        if unit.start_result != "done":
            self._in_background(self._release(unit))
            kind = RefusedError if is_transient(values) else LaunchError
            raise kind(f"cannot start {command.argv[0]}: {why_not_started(values)}")
        skipped = tuple(core for core in command.cpu_affinity if core not in cores)
        process = self._process(unit, values, skipped, refused)
        self._note_exit(unit, unit.exit or exit_of(values))
        return process

    async def start_helper(
        self, command: Command, stdio: int, link: int, *, tag: str, network: bool = False
    ) -> Process:
        """Start a helper as a unit with a user of its own, as `HelperHost.start_helper`."""
        environ = {**command.env, helper.LINK: str(_FIRST_EXTRA)}
        wanted = helper_properties(command, tag, environ, self._own_unit, network=network)
        fds = (("Input", stdio), ("Output", stdio), (LINK, link))
        unit, values = await self._start(command, wanted, fds, tag)
        # Its end is nothing that anybody writes down.
        unit.forgotten = unit.helper = True
        if unit.start_result != "done":
            self._in_background(self._release(unit))
            raise LaunchError(f"cannot start {command.argv[0]}: {why_not_started(values)}")
        process = self._process(unit, values)
        self._note_exit(unit, unit.exit or exit_of(values))
        return process

    def forget(self, pid: int) -> None:
        """Release the unit whose process had this pid, as `Host.forget`."""
        for unit in list(self._units.values()):
            if unit.process is not None and unit.process.pid == pid and not unit.forgotten:
                unit.forgotten = True
                if unit.process.exit is not None:
                    self._in_background(self._dismiss(unit))
                return

    async def end_marked(self, mark: str, *, below_too: bool) -> int:
        """Do nothing: no process leaves the control group of its unit, and that ends with it."""
        del mark, below_too
        return 0

    async def stays(self) -> bool:
        """Return whether nodes go on: always but at the end of the whole machine."""
        try:
            return not await self._manager.is_shutting_down()
        except BusError:
            return True

    async def detach(self) -> None:
        """Let go, as `Host.detach`."""
        if self._closed:
            return
        self._closed = True
        if self._check is not None:
            self._check.cancel()
        await self._notifier.flushed()
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)
        await self._bus.close()
        self._store.close()
        self._notifier.close()

    async def end(self) -> None:
        """End every process that is left, and keep nothing, as `Host.end`."""
        if self._closed:
            return
        # When the whole machine ends, systemd stops the units itself, after the daemon.
        stays = await self.stays()
        units = list(self._units.values())
        await asyncio.gather(
            *(self._release(u) if stays else self._manager.kill(u.name, _KILL) for u in units)
        )
        self._store.drop_all()
        await self.detach()

    # -- descriptors -------------------------------------------------------------------------

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates, as `Host.store`."""
        if self._closed:
            return
        try:
            self._store.store(name, fds)
        except OSError as error:
            self.on_problem(f"systemd cannot be told to keep {name}: {error.strerror}")
        self._check_soon()

    def drop(self, name: str) -> None:
        """Keep these no longer, as `Host.drop`."""
        if not self._closed:
            self._store.drop(name)

    def take(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Return what was kept, as `Host.take`."""
        entries = self._store.entries
        found = [name for name in entries if name.startswith(prefix)]
        return {name: entries.pop(name) for name in found}

    def _check_soon(self) -> None:
        if self._check is None:
            loop = asyncio.get_running_loop()
            self._check = loop.call_later(
                _CHECK_SECONDS, lambda: self._in_background(self._check_store())
            )

    async def _check_store(self) -> None:
        """Compare: systemd says nothing of a descriptor that it does not take."""
        self._check = None
        expected = self._store.count
        try:
            await self._notifier.barrier()
            values = await self._manager.values(self._own_unit, _STORE)
        except (BusError, OSError) as error:
            _log.warning("it cannot be told what systemd has kept: %s", error)
            return
        there = values.get("NFileDescriptorStore", 0)
        if there < min(expected, self._store.count):
            most = values.get("FileDescriptorStoreMax", 0)
            self.on_problem(
                f"systemd keeps {there} of {expected} descriptors; the others would be lost if"
                f" dorad were restarted (FileDescriptorStoreMax={most} of {self._own_unit};"
                " raise it)"
            )

    # -- what there is -----------------------------------------------------------------------

    async def _find(self) -> None:
        """Take over the units of an earlier daemon."""
        self._own_unit = await self._manager.unit_of(os.getpid())
        there = (await self._manager.listed()).items()
        found = await asyncio.gather(*(self._find_one(*each) for each in there))
        self.kept += [kept for kept in found if kept is not None]

    async def _find_one(self, name: str, listed: Listed) -> KeptProcess | None:
        """Return the process of a unit; None if it is not one of ours, or of no interest."""
        values = await self._manager.values(name, _FOUND)
        tag = tag_of(values.get("LogExtraFields", ()))
        if tag is None:
            return None
        self._number = max(self._number, names.number_of(name))
        _log.debug("unit %s of an earlier daemon is found, for %s", name, tag)
        unit = self._made(name, tag)
        unit.started.set()
        if is_helper(tag) or not values.get("ExecMainPID"):
            self._in_background(self._release(unit))
            return None
        process = self._process(unit, values)
        ended = unit.exit or exit_of(values)
        if ended is not None and failed.is_failed(listed.description):
            unit.exit, unit.reaped, unit.forgotten = ended, True, True
            process.set_exit(ended)
            self._failed.add(unit)
            return None
        if ended is not None:
            # Ended for good before anybody is told of it.
            unit.exit, unit.reaped = ended, True
            await self._manager.kill(unit.name, _KILL)
            process.set_exit(ended)
        return KeptProcess(tag, process)

    async def _look_again(self) -> None:
        """Find out what was missed while there was no D-Bus, or while systemd read its files."""
        try:
            there = await self._manager.listed()
        except BusError as error:
            self.on_problem(f"systemd does not say how nodes are: {error}")
            return
        for unit in list(self._units.values()):
            state = there[unit.name].state if unit.name in there else ""
            _log.debug("%s is %s", unit.name, state or "gone")
            if not unit.started.is_set():
                if state in ("active", "failed", "inactive"):
                    self._end_of_job(unit, "done" if state == "active" else "failed")
                continue
            if state in ("", "failed", "inactive"):
                unit.stopped.set()
            if unit.process is None or unit.exit is not None:
                continue
            if state:
                self._in_background(self._ask_exit(unit))
            else:
                self._note_exit(unit, Exit(signal=signal.SIGKILL))

    # -- the life of a unit ------------------------------------------------------------------

    async def _start(
        self, command: Command, wanted: Properties, fds: Descriptors, tag: str
    ) -> tuple[Unit, dict[str, Any]]:
        """Start a unit; return it and the properties of its service. Raises LaunchError."""
        async with self._starts:
            return await self._start_now(command, wanted, fds, tag)

    async def _start_now(
        self, command: Command, wanted: Properties, fds: Descriptors, tag: str
    ) -> tuple[Unit, dict[str, Any]]:
        unit = self._made(self._free_name(command, tag), tag)
        self._failed.replaced(unit.name)
        _log.debug("unit %s for %s is started: %s", unit.name, tag, command.argv)
        try:
            await self._manager.start(unit.name, wanted, fds)
            async with asyncio.timeout(_START_SECONDS):
                await unit.started.wait()
            return unit, await self._manager.values(unit.name, _STARTED)
        except (BusError, TimeoutError) as error:
            self._in_background(self._release(unit))
            why = "it does not come up" if isinstance(error, TimeoutError) else error
            raise RefusedError(
                f"cannot start {command.argv[0]}: systemd refuses {unit.name}: {why}"
            ) from error
        except BaseException:
            self._in_background(self._release(unit))
            raise

    def _free_name(self, command: Command, tag: str) -> str:
        dataflow_id, node, *_ = [*tag.split("/"), ""]
        self._number += 1
        return names.unit_name(command.dataflow_name or dataflow_id[:8], node, self._number)

    def _made(self, name: str, tag: str) -> Unit:
        unit = Unit(name, tag)
        self._units[name] = unit
        self._paths[names.object_path(name)] = unit
        return unit

    def _process(
        self,
        unit: Unit,
        values: dict[str, Any],
        skipped: tuple[int, ...] = (),
        refused: int = 0,
    ) -> Process:
        pid = values["ExecMainPID"]
        started = start_time(pid)
        if started is None or exit_of(values) is not None:
            started = values["ExecMainStartTimestampMonotonic"] * _TICKS // 1_000_000
        unit.process = Process(
            pid, started, lambda _, number: self._signal(unit, number), skipped, refused
        )
        unit.process.unit = unit.name
        unit.process.control_group = values.get("ControlGroup", "")
        unit.process.uid = user_of(values)
        return unit.process

    def _signal(self, unit: Unit, number: int) -> None:
        _log.debug("signal %d to %s", number, unit.name)
        if not self._closed:
            self._in_background(self._manager.kill(unit.name, number))

    def _note_exit(self, unit: Unit, how: Exit | None) -> None:
        """Take note of the end of the main process; the rest of the unit ends with it."""
        if how is None or self._closed:
            return
        _log.debug("unit %s ended: %s", unit.name, how)
        if unit.exit is None:
            unit.exit = how
        if unit.process is not None and not unit.reaped:
            unit.reaped = True
            self._in_background(self._reap(unit, unit.process, unit.exit))

    async def _ask_exit(self, unit: Unit) -> None:
        """Take note of the end of a unit's main process if systemd, when asked, says so."""
        if unit.exit is not None or unit in self._asking:
            return
        self._asking.add(unit)
        try:
            await self._look_at(unit)
        finally:
            self._asking.discard(unit)

    async def _look_at(self, unit: Unit) -> None:
        """Ask how a unit is until systemd answers.

        Asked for a unit that it does not have, systemd may make an empty one with that name, and so
        may any user. So one without our tag is not ours: ours is gone.
        """
        while not self._closed:
            try:
                values = await self._manager.values(unit.name, _END)
            except BusError as error:
                if error.name not in NO_UNIT:
                    _log.warning("systemd does not say how %s is: %s", unit.name, error)
                    await asyncio.sleep(_ASK_AGAIN_SECONDS)
                    continue
                values = {}
            ours = tag_of(values.get("LogExtraFields", ())) == unit.tag
            _log.debug("%s %s", unit.name, (exit_of(values) or "runs") if ours else "is gone")
            if ours:
                self._note_exit(unit, exit_of(values))
            else:
                unit.stopped.set()
                if unit.process is not None:
                    self._removed(unit)
            return

    async def _reap(self, unit: Unit, process: Process, how: Exit) -> None:
        await self._manager.kill(unit.name, _KILL)
        process.set_exit(how)
        if unit.forgotten:
            await self._dismiss(unit)

    async def _dismiss(self, unit: Unit) -> None:
        """Release a unit whose end is written down, unless it is to be seen as failed.

        Those who know only systemd find there what failed, until the node is started again.
        """
        if unit.helper or unit.exit is None or unit.exit.ok or unit.exit.signal == signal.SIGTERM:
            await self._release(unit)
            return
        try:
            if await self._manager.describe(unit.name, failed.description(unit.tag)):
                self._failed.add(unit)
        except BusError as error:
            _log.warning("%s is not shown as failed: %s", unit.name, error)
            await self._release(unit)

    async def _release(self, unit: Unit) -> None:
        """End what is left of a unit, and let systemd forget it."""
        _log.debug("unit %s is released", unit.name)
        await self._manager.kill(unit.name, _KILL)
        try:
            unit.stopped.clear()
            if await self._manager.stop(unit.name):
                async with asyncio.timeout(_STOP_SECONDS):
                    await unit.stopped.wait()
            await self._manager.reset(unit.name)
        except BusError as error:
            _log.warning("%s is not released: %s", unit.name, error)
        except TimeoutError:
            _log.warning("%s is not released: it does not stop", unit.name)
        self._removed(unit)

    def _removed(self, unit: Unit) -> None:
        """Take note that systemd has no such unit any more."""
        if unit.process is not None and unit.exit is None:
            self._note_exit(unit, Exit(signal=signal.SIGKILL))
        self._failed.remove(unit)
        if self._units.get(unit.name) is unit:
            del self._units[unit.name]
            del self._paths[names.object_path(unit.name)]

    # -- signals of systemd's ----------------------------------------------------------------

    def _on_signal(self, path: str, member: str, values: list[Any]) -> None:
        match member, values:
            case "PropertiesChanged", [str(interface), dict(changed), _]:
                unit = self._paths.get(path)
                ends = interface == SERVICE and exit_of(changed) is not None
                if unit is not None and ends and unit.started.is_set():
                    self._in_background(self._ask_exit(unit))
            case "JobRemoved", [_, _, str(name), str(result)] if name in self._units:
                self._end_of_job(self._units[name], result)
            case "UnitRemoved", [str(name), _] if name in self._units:
                # It says so of every unit when it reads its files again (`systemctl daemon-reload`,
                # and every package with a unit does that), though all are there afterwards.
                self._in_background(self._look_at(self._units[name]))
            case "Reloading", [False]:
                self._in_background(self._look_again())

    def _end_of_job(self, unit: Unit, result: str) -> None:
        if unit.started.is_set():
            unit.stopped.set()
        else:
            unit.start_result = result
            unit.started.set()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
