"""systemd's manager object on D-Bus: each call as a method with plain values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.launch.systemd import names
from dorad.launch.systemd.bus import MANAGER, MANAGER_PATH, PROPERTIES, SERVICE, UNIT, SystemBus
from dorad.launch.systemd.messages import BusError

if TYPE_CHECKING:
    from dorad.launch.systemd.hardening import Properties

NO_UNIT = (
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.NoSuchProcess",
    "org.freedesktop.DBus.Error.UnknownObject",
)
_EXISTS = "org.freedesktop.systemd1.UnitExists"
LINK = "link"
"""The name of a unit's extra descriptor, which has the number 3."""
Descriptors = Sequence[tuple[str, int]]
"""The descriptors of a unit, each with its role: Input, Output, Error, or LINK."""

_log = logging.getLogger(__name__)


class Listed(NamedTuple):
    """An entry of systemd's list of units."""

    description: str
    state: str
    """`active`, `activating`, `deactivating`, `failed`, ..."""


class Manager:
    """Calls systemd's manager. Its methods raise BusError unless they say otherwise."""

    def __init__(self, bus: SystemBus) -> None:
        self._bus = bus

    async def unit_of(self, pid: int) -> str:
        """Return the name of the unit that a process belongs to."""
        (path,) = await self._call("GetUnitByPID", "u", [pid])
        (name,) = await self._bus.call(path, PROPERTIES, "Get", "ss", [UNIT, "Id"])
        return str(name)

    async def listed(self) -> dict[str, Listed]:
        """Return all units whose name matches ours, by name."""
        # Only loaded ones: any user can make systemd create an empty unit with such a name.
        (units,) = await self._call("ListUnitsByPatterns", "asas", [["loaded"], [names.PATTERN]])
        return {name: Listed(description, state) for name, description, _, state, *_ in units}

    async def values(self, unit: str, wanted: Sequence[str]) -> dict[str, Any]:
        """Return some properties of a unit's service, read one after the other.

        GetAll would return two hundred, and systemd would read files of the kernel for many.
        """
        path = names.object_path(unit)
        answers = {}
        for name in wanted:
            (answers[name],) = await self._bus.call(path, PROPERTIES, "Get", "ss", [SERVICE, name])
        return answers

    async def start(self, unit: str, wanted: Properties, fds: Descriptors) -> None:
        """Request a transient unit; the result of its job reports whether it has started."""
        properties: list[tuple[str, tuple[str, Any]]] = [
            (name, (kind, value)) for name, kind, value in wanted
        ]
        for name, fd in fds:
            if name == LINK:
                properties.append(("ExtraFileDescriptors", ("a(hs)", [(fd, name)])))
            else:
                properties.append((f"Standard{name}FileDescriptor", ("h", fd)))
        body = [unit, "fail", properties, []]
        try:
            await self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        except BusError as error:
            if error.name != _EXISTS or not await self._has_properties(unit, wanted):
                raise
            # An earlier try of this call created the unit, and its answer was lost.
            _log.debug("%s exists already", unit)

    async def kill(self, unit: str, number: int) -> None:
        """Send a signal to every process of a unit. Raises nothing."""
        try:
            await self._call("KillUnit", "ssi", [unit, "all", int(number)])
        except BusError as error:
            if error.name not in NO_UNIT:
                _log.debug("signal %d to %s: %s", number, unit, error)

    async def stop(self, unit: str) -> bool:
        """Request the stop of a unit; return False if it does not exist."""
        return await self._call_existing("StopUnit", "ss", [unit, "replace"])

    async def reset(self, unit: str) -> bool:
        """Make systemd unload a failed unit; return False if it does not exist."""
        return await self._call_existing("ResetFailedUnit", "s", [unit])

    async def describe(self, unit: str, text: str) -> bool:
        """Change a unit's description; return False if it does not exist."""
        body = [unit, True, [("Description", ("s", text))]]
        return await self._call_existing("SetUnitProperties", "sba(sv)", body)

    async def is_shutting_down(self) -> bool:
        """Return True if the machine is being shut down."""
        state = await self._bus.call(
            MANAGER_PATH, PROPERTIES, "Get", "ss", [MANAGER, "SystemState"]
        )
        return state == ["stopping"]

    async def _has_properties(self, unit: str, wanted: Properties) -> bool:
        """Return True if a unit was started with these properties."""
        fields = next(value for name, _, value in wanted if name == "LogExtraFields")
        values = await self.values(unit, ["LogExtraFields"])
        return bool(values["LogExtraFields"] == fields)

    async def _call_existing(self, method: str, signature: str, body: Sequence[Any]) -> bool:
        try:
            await self._call(method, signature, body)
        except BusError as error:
            if error.name in NO_UNIT:
                return False
            raise
        return True

    async def _call(self, method: str, signature: str, body: Sequence[Any]) -> list[Any]:
        return await self._bus.call(MANAGER_PATH, MANAGER, method, signature, body)
