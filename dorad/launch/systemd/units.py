"""The life of transient units: start, exit, kill, release, and systemd's signals about them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from dorad.launch.model import Command, Exit, RefusedError
from dorad.launch.spawner import Process
from dorad.launch.systemd import names
from dorad.launch.systemd.bus import SERVICE
from dorad.launch.systemd.manager import NO_UNIT, Descriptors, Manager
from dorad.launch.systemd.messages import BusError
from dorad.launch.systemd.properties import tag_of
from dorad.launch.systemd.unit import Unit, user_of
from dorad.procinfo import start_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dorad.launch.host import HostListener
    from dorad.launch.systemd.hardening import Properties

MAX_UNITS = 32
_DESCRIPTION = "Failed node "


class FailedUnits:
    """The failed units that are still loaded: at most 32, each until its node starts again."""

    def __init__(self, release: Callable[[Unit], None]) -> None:
        """Call `release` with each unit that systemd should unload."""
        self._release = release
        self._units: dict[str, Unit] = {}

    def add(self, unit: Unit) -> None:
        """Keep a failed unit loaded; release the oldest if there are too many."""
        self.replaced(unit.name)
        if len(self._units) >= MAX_UNITS:
            self._release(self._units.pop(next(iter(self._units))))
        _log.debug("%s stays visible as failed", unit.name)
        self._units[names.without_number(unit.name)] = unit

    def replaced(self, name: str) -> None:
        """Release the failed unit of the node that starts again as the unit `name`."""
        old = self._units.pop(names.without_number(name), None)
        if old is not None:
            self._release(old)

    def remove(self, unit: Unit) -> None:
        """Remove a unit that systemd has unloaded."""
        key = names.without_number(unit.name)
        if self._units.get(key) is unit:
            del self._units[key]


def description(tag: str) -> str:
    """Return the description of a unit whose failure the daemon has stored."""
    _, node, *_ = [*tag.split("/"), ""]
    return f"{_DESCRIPTION}{node}, until it is started again"


def is_failed(described: str) -> bool:
    """Return True if a unit has a description of ours."""
    return described.startswith(_DESCRIPTION)


_EXITED = 1
"""CLD_EXITED; 2 is killed, 3 is dumped."""

_WORKING_DIRECTORY = 200
SCHEDULER = 214
CAPABILITIES = 218
STATE_FOLDER = 238
_CONTROL_GROUP = 219
_CREDENTIALS = 243
_NOT_STARTED = {
    _WORKING_DIRECTORY: "its working directory cannot be entered",
    202: "its descriptors cannot be passed on",
    203: "it cannot be executed (does it exist, is it executable, may the node's user read it?)",
    205: "a limit cannot be set",
    SCHEDULER: "its scheduling policy cannot be set",
    206: "none of its cores can be used",
    216: "its group cannot be taken on",
    217: "its user does not exist or cannot be taken on",
    CAPABILITIES: "its capabilities cannot be set",
    _CONTROL_GROUP: "its control group cannot be set up",
    STATE_FOLDER: "its state folder cannot be made",
    _CREDENTIALS: "its secrets cannot be read; one may just have been removed",
}
"""Exit codes that systemd itself uses when it fails before it executes the program."""


def exit_of(values: Mapping[str, Any]) -> Exit | None:
    """Return how a unit's main process ended, from ExecMainCode and ExecMainStatus.

    None while it runs.
    """
    code = values.get("ExecMainCode", 0)
    status = values.get("ExecMainStatus", 0)
    if not code:
        return None
    return Exit(code=status) if code == _EXITED else Exit(signal=status)


def is_transient(values: Mapping[str, Any]) -> bool:
    """Return True if a unit failed to start for lack of resources, so a later start may succeed.

    For example, the machine has reached its limit of memory or processes.
    """
    status = values.get("ExecMainStatus")
    return values.get("Result") == "resources" or status in (_CONTROL_GROUP, _CREDENTIALS)


def why_not_started(values: Mapping[str, Any], command: Command) -> str:
    """Return why a unit failed to start, from the properties of its service."""
    status = values.get("ExecMainStatus", 0)
    if values.get("ExecMainCode") == _EXITED and status in _NOT_STARTED:
        if status == _WORKING_DIRECTORY and (user := command.identity.user):
            return (
                f"its user `{user}` may not enter {command.cwd} (move the dataflow to a"
                " folder that all users may enter, such as one in /opt)"
            )
        return _NOT_STARTED[status]
    result = values.get("Result", "unknown")
    return f"systemd reports {result!r}" + (f", status {status}" if status else "")


STARTED = (
    "ExecMainCode",
    "ExecMainStatus",
    "ExecMainPID",
    "ExecMainStartTimestampMonotonic",
    "Result",
    "ControlGroup",
    "User",
    "UID",
)
"""The properties of a service that has started, or failed to."""

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_MAX_STARTS = 16
"""Maximum number of units that start at the same time; each has _START_SECONDS."""
_EXIT = ("LogExtraFields", "ExecMainCode", "ExecMainStatus")
"""The properties of an exit, in the order of reading: the status is valid once the code is set."""
_TICKS = os.sysconf("SC_CLK_TCK")
_log = logging.getLogger(__name__)


class Units:
    """All units of this daemon. Belongs to one event loop."""

    def __init__(self, manager: Manager, listener: HostListener) -> None:
        self._listener = listener
        self.failed = FailedUnits(self.release_soon)
        self._manager = manager
        self._number = 0
        self._units: dict[str, Unit] = {}
        self._paths: dict[str, Unit] = {}
        self._starts = asyncio.Semaphore(_MAX_STARTS)
        self._querying: set[Unit] = set()
        """Units whose exit is being read from systemd."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def all(self) -> list[Unit]:
        """Return the units that systemd has loaded."""
        return list(self._units.values())

    def add(self, name: str, tag: str) -> Unit:
        """Make the object of a unit, whose signals are handled from now on."""
        unit = Unit(name, tag)
        self._units[name] = unit
        self._paths[names.object_path(name)] = unit
        # Numbers are never reused, so no two units of a node have the same name.
        self._number = max(self._number, names.number_of(name))
        return unit

    async def start(
        self, command: Command, wanted: Properties, fds: Descriptors, tag: str
    ) -> tuple[Unit, dict[str, Any]]:
        """Start a unit; return it and the properties STARTED of its service.

        Raises:
            RefusedError: systemd refuses, or does not finish the start in time.
        """
        async with self._starts:
            unit = self.add(self._free_name(command, tag), tag)
            self.failed.replaced(unit.name)
            _log.debug("starting unit %s for %s: %s", unit.name, tag, command.argv)
            try:
                await self._manager.start(unit.name, wanted, fds)
                async with asyncio.timeout(_START_SECONDS):
                    await unit.started.wait()
                return unit, await self._manager.values(unit.name, STARTED)
            except (BusError, TimeoutError) as error:
                self.release_soon(unit)
                why = "its start does not end" if isinstance(error, TimeoutError) else error
                raise RefusedError(
                    f"cannot start {command.argv[0]}: systemd refuses {unit.name}: {why}"
                ) from error
            except BaseException:
                self.release_soon(unit)
                raise

    def make_process(
        self,
        unit: Unit,
        values: dict[str, Any],
        skipped: tuple[int, ...] = (),
        refused: int = 0,
    ) -> Process:
        """Make the process of a unit from the properties STARTED of its service."""
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

    def set_exit(self, unit: Unit, how: Exit | None) -> None:
        """Record how the main process ended, if it did, and kill the rest of the unit."""
        if how is None or self._closed:
            return
        _log.debug("unit %s ended: %s", unit.name, how)
        if unit.exit is None:
            unit.exit = how
        if unit.process is not None and not unit.reaped:
            unit.reaped = True
            self._in_background(self._reap(unit, unit.process, unit.exit))

    def forget(self, pid: int) -> None:
        """Release the unit whose process has this pid; if it runs, as soon as it ends."""
        for unit in self.all():
            if unit.process is not None and unit.process.pid == pid and not unit.forgotten:
                unit.forgotten = True
                if unit.process.exit is not None:
                    self._in_background(self._dismiss(unit))
                return

    async def kill(self, unit: Unit) -> None:
        """SIGKILL every process of a unit."""
        await self._manager.kill(unit.name, signal.SIGKILL)

    async def release(self, unit: Unit) -> None:
        """Kill what is left of a unit, and make systemd unload it."""
        _log.debug("releasing unit %s", unit.name)
        await self.kill(unit)
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
        self._remove(unit)

    def release_soon(self, unit: Unit) -> None:
        """Release a unit in the background."""
        self._in_background(self.release(unit))

    def resync_soon(self) -> None:
        """Read the state of all units in the background: signals may have been missed."""
        self._in_background(self._resync())

    def on_signal(self, path: str, member: str, values: list[Any]) -> None:
        """Handle a signal of systemd's."""
        match member, values:
            case "PropertiesChanged", [str(interface), dict(changed), _]:
                unit = self._paths.get(path)
                has_exited = interface == SERVICE and exit_of(changed) is not None
                if unit is not None and has_exited and unit.started.is_set():
                    self._in_background(self._query_exit(unit))
            case "JobRemoved", [_, _, str(name), str(result)] if name in self._units:
                self._end_of_job(self._units[name], result)
            case "UnitRemoved", [str(name), _] if name in self._units:
                # Also sent for every unit after `systemctl daemon-reload`, which most packages run.
                # In that case the unit still exists.
                self._in_background(self._query(self._units[name]))
            case "Reloading", [False]:
                self.resync_soon()

    async def close(self) -> None:
        """Cancel work in the background; the units stay as they are. Idempotent."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _free_name(self, command: Command, tag: str) -> str:
        dataflow_id, node, *_ = [*tag.split("/"), ""]
        dataflow = command.dataflow_name or dataflow_id[:8]
        return names.unit_name(dataflow, node, self._number + 1)

    def _signal(self, unit: Unit, number: int) -> None:
        _log.debug("signal %d to %s", number, unit.name)
        if not self._closed:
            self._in_background(self._manager.kill(unit.name, number))

    async def _reap(self, unit: Unit, process: Process, how: Exit) -> None:
        await self.kill(unit)
        process.set_exit(how)
        if unit.forgotten:
            await self._dismiss(unit)

    async def _dismiss(self, unit: Unit) -> None:
        """Release a unit whose exit is stored, unless it failed.

        `systemctl --failed` shows a failed unit until its node starts again.
        """
        if unit.helper or unit.exit is None or unit.exit.ok or unit.exit.signal == signal.SIGTERM:
            await self.release(unit)
            return
        try:
            if await self._manager.describe(unit.name, description(unit.tag)):
                self.failed.add(unit)
        except BusError as error:
            _log.warning("%s is not shown as failed: %s", unit.name, error)
            await self.release(unit)

    async def _query_exit(self, unit: Unit) -> None:
        """Read from systemd whether a unit's main process has ended; record it if so."""
        if unit.exit is not None or unit in self._querying:
            return
        self._querying.add(unit)
        try:
            await self._query(unit)
        finally:
            self._querying.discard(unit)

    async def _query(self, unit: Unit) -> None:
        """Read the state of a unit; repeat that until systemd answers.

        A query for a unit that does not exist may create an empty unit of that name, and any user
        may do so. So if the unit lacks our tag, ours has been removed.
        """
        while not self._closed:
            try:
                values = await self._manager.values(unit.name, _EXIT)
            except BusError as error:
                if error.name not in NO_UNIT:
                    _log.warning("the state of %s cannot be read: %s", unit.name, error)
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                values = {}
            if tag_of(values.get("LogExtraFields", ())) == unit.tag:
                _log.debug("%s: %s", unit.name, exit_of(values) or "running")
                self.set_exit(unit, exit_of(values))
            else:
                _log.debug("%s: removed", unit.name)
                unit.stopped.set()
                if unit.process is not None:
                    self._remove(unit)
            return

    async def _resync(self) -> None:
        try:
            listed = await self._manager.listed()
        except BusError as error:
            self._listener.on_problem(f"systemd does not report the state of nodes: {error}")
            return
        for unit in self.all():
            state = listed[unit.name].state if unit.name in listed else ""
            _log.debug("%s: %s", unit.name, state or "removed")
            if not unit.started.is_set():
                if state in ("active", "failed", "inactive"):
                    self._end_of_job(unit, "done" if state == "active" else "failed")
                continue
            if state in ("", "failed", "inactive"):
                unit.stopped.set()
            if unit.process is None or unit.exit is not None:
                continue
            if state:
                self._in_background(self._query_exit(unit))
            else:
                self.set_exit(unit, Exit(signal=signal.SIGKILL))

    def _end_of_job(self, unit: Unit, result: str) -> None:
        if unit.started.is_set():
            unit.stopped.set()
        else:
            unit.start_result = result
            unit.started.set()

    def _remove(self, unit: Unit) -> None:
        """Remove a unit that systemd has unloaded."""
        if unit.process is not None and unit.exit is None:
            self.set_exit(unit, Exit(signal=signal.SIGKILL))
        self.failed.remove(unit)
        if self._units.get(unit.name) is unit:
            del self._units[unit.name]
            del self._paths[names.object_path(unit.name)]

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
