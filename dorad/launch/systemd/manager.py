"""The calls to systemd's manager that the host makes, each as a method with plain values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.launch.systemd import names
from dorad.launch.systemd.bus import MANAGER, MANAGER_PATH, PROPERTIES, SERVICE, UNIT
from dorad.launch.systemd.messages import BusError

if TYPE_CHECKING:
    from dorad.launch.systemd.bus import Bus
    from dorad.launch.systemd.hardening import Properties

NO_UNIT = (
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.NoSuchProcess",
    "org.freedesktop.DBus.Error.UnknownObject",
)
_EXISTS = "org.freedesktop.systemd1.UnitExists"
LINK = "link"
"""The descriptor 3 of a unit that has one."""
Descriptors = Sequence[tuple[str, int]]
"""Each with what it is: Input, Output, Error, or LINK."""

_log = logging.getLogger(__name__)


class Listed(NamedTuple):
    """One unit in systemd's list."""

    description: str
    state: str
    """`active`, `activating`, `deactivating`, `failed`, ..."""


class Manager:
    """Raises BusError where it says nothing else."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def unit_of(self, pid: int) -> str:
        """Return the name of the unit that a process belongs to."""
        (path,) = await self._ask("GetUnitByPID", "u", [pid])
        (name,) = await self._bus.call(path, PROPERTIES, "Get", "ss", [UNIT, "Id"])
        return str(name)

    async def listed(self) -> dict[str, Listed]:
        """Return all units that may be ours, by name."""
        # Not empty ones, which any user can have systemd make.
        (found,) = await self._ask("ListUnitsByPatterns", "asas", [["loaded"], [names.PATTERN]])
        return {name: Listed(description, state) for name, description, _, state, *_ in found}

    async def values(self, unit: str, wanted: Sequence[str]) -> dict[str, Any]:
        """Return some properties of a unit's service, read one after the other.

        All of them would be two hundred, and systemd would read files of the kernel for many.
        """
        path = names.object_path(unit)
        found = {}
        for name in wanted:
            (found[name],) = await self._bus.call(path, PROPERTIES, "Get", "ss", [SERVICE, name])
        return found

    async def start(self, unit: str, wanted: Properties, fds: Descriptors) -> None:
        """Ask for a transient unit; the end of its job says whether it has started."""
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
            await self._ask("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        except BusError as error:
            if error.name != _EXISTS or not await self._is_from(unit, wanted):
                raise
            # The answer to a first call was lost.
            _log.debug("%s is there already", unit)

    async def kill(self, unit: str, number: int) -> None:
        """Send a signal to every process of a unit. Raises nothing."""
        try:
            await self._ask("KillUnit", "ssi", [unit, "all", int(number)])
        except BusError as error:
            if error.name not in NO_UNIT:
                _log.debug("signal %d to %s: %s", number, unit, error)

    async def stop(self, unit: str) -> bool:
        """Ask for a unit's stop; False if there is no such unit."""
        return await self._if_there("StopUnit", "ss", [unit, "replace"])

    async def reset(self, unit: str) -> bool:
        """Let a failed unit be forgotten; False if there is no such unit."""
        return await self._if_there("ResetFailedUnit", "s", [unit])

    async def describe(self, unit: str, text: str) -> bool:
        """Change a unit's description; False if there is no such unit."""
        body = [unit, True, [("Description", ("s", text))]]
        return await self._if_there("SetUnitProperties", "sba(sv)", body)

    async def ending(self) -> bool:
        """Return whether the machine is being shut down."""
        state = await self._bus.call(
            MANAGER_PATH, PROPERTIES, "Get", "ss", [MANAGER, "SystemState"]
        )
        return state == ["stopping"]

    async def _is_from(self, unit: str, wanted: Properties) -> bool:
        """Return whether a unit was started with these properties."""
        fields = next(value for name, _, value in wanted if name == "LogExtraFields")
        values = await self.values(unit, ["LogExtraFields"])
        return bool(values["LogExtraFields"] == fields)

    async def _if_there(self, method: str, signature: str, body: Sequence[Any]) -> bool:
        try:
            await self._ask(method, signature, body)
        except BusError as error:
            if error.name in NO_UNIT:
                return False
            raise
        return True

    async def _ask(self, method: str, signature: str, body: Sequence[Any]) -> list[Any]:
        return await self._bus.call(MANAGER_PATH, MANAGER, method, signature, body)
