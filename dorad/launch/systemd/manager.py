"""The calls to systemd's manager that the host makes, each as a method with plain values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbus_fast import Variant

from dorad.launch.systemd import names
from dorad.launch.systemd.bus import (
    MANAGER,
    MANAGER_PATH,
    PROPERTIES,
    SERVICE,
    UNIT,
    BusError,
)

if TYPE_CHECKING:
    from dorad.launch.systemd.bus import Bus
    from dorad.launch.systemd.hardening import Properties

_NOTHING_TO_DO = (
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.NoSuchProcess",
    "org.freedesktop.DBus.Error.UnknownObject",
)
LINK = "link"
"""The descriptor 3 of a unit that has one."""
Descriptors = Sequence[tuple[str, int]]
"""Each with what it is: Input, Output, Error, or LINK."""

_log = logging.getLogger(__name__)


class Manager:
    """Raises BusError where it says nothing else."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def unit_of(self, pid: int) -> str:
        """Return the name of the unit that a process belongs to."""
        (path,) = await self._ask("GetUnitByPID", "u", [pid])
        (name,) = await self._bus.call(path, PROPERTIES, "Get", "ss", [UNIT, "Id"])
        return str(name)

    async def listed(self) -> dict[str, str]:
        """Return the descriptions of all units that may be ours, by name."""
        (found,) = await self._ask("ListUnitsByPatterns", "asas", [[], [names.PATTERN]])
        return {name: description for name, description, *_ in found}

    async def has(self, unit: str) -> bool:
        """Return whether there is such a unit."""
        return await self._if_there("GetUnit", "s", [unit])

    async def values(self, unit: str) -> dict[str, Any]:
        """Return the properties of a unit's service."""
        path = names.object_path(unit)
        (values,) = await self._bus.call(path, PROPERTIES, "GetAll", "s", [SERVICE])
        return dict(values)

    async def start(self, unit: str, wanted: Properties, fds: Descriptors) -> None:
        """Ask for a transient unit; the end of its job says whether it has started."""
        properties = [[name, Variant(kind, value)] for name, kind, value in wanted]
        for index, (name, _) in enumerate(fds):
            if name == LINK:
                properties.append(["ExtraFileDescriptors", Variant("a(hs)", [[index, name]])])
            else:
                properties.append([f"Standard{name}FileDescriptor", Variant("h", index)])
        body = [unit, "fail", properties, []]
        numbers = [fd for _, fd in fds]
        await self._ask("StartTransientUnit", "ssa(sv)a(sa(sv))", body, numbers)

    async def kill(self, unit: str, number: int) -> None:
        """Send a signal to every process of a unit. Raises nothing."""
        try:
            await self._ask("KillUnit", "ssi", [unit, "all", int(number)])
        except BusError as error:
            if error.name not in _NOTHING_TO_DO:
                _log.debug("signal %d to %s: %s", number, unit, error)

    async def stop(self, unit: str) -> bool:
        """Ask for a unit's stop; False if there is no such unit."""
        return await self._if_there("StopUnit", "ss", [unit, "replace"])

    async def reset(self, unit: str) -> bool:
        """Let a failed unit be forgotten; False if there is no such unit."""
        return await self._if_there("ResetFailedUnit", "s", [unit])

    async def describe(self, unit: str, text: str) -> bool:
        """Change a unit's description; False if there is no such unit."""
        body = [unit, True, [["Description", Variant("s", text)]]]
        return await self._if_there("SetUnitProperties", "sba(sv)", body)

    async def ending(self) -> bool:
        """Return whether the machine is being shut down."""
        state = await self._bus.call(
            MANAGER_PATH, PROPERTIES, "Get", "ss", [MANAGER, "SystemState"]
        )
        return state == ["stopping"]

    async def _if_there(self, method: str, signature: str, body: Sequence[Any]) -> bool:
        try:
            await self._ask(method, signature, body)
        except BusError as error:
            if error.name in _NOTHING_TO_DO:
                return False
            raise
        return True

    async def _ask(
        self, method: str, signature: str, body: Sequence[Any], fds: Sequence[int] = ()
    ) -> list[Any]:
        return await self._bus.call(MANAGER_PATH, MANAGER, method, signature, body, fds)
