"""A fake systemd that answers the calls of the host."""

import asyncio
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dorad.launch.systemd import names
from dorad.launch.systemd.bus import MANAGER_PATH, SERVICE
from dorad.launch.systemd.messages import BusError

NO_UNIT = "org.freedesktop.systemd1.NoSuchUnit"


class Systemd:
    """A systemd with transient units."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """The folder of the units' environment files."""
        self.on_signal: Callable[[str, str, list[Any]], None] = lambda path, member, values: None
        self.on_reconnect: Callable[[], None] = lambda: None
        self.soon: Callable[[Callable[[], None]], object] = lambda work: (
            asyncio.get_running_loop().call_soon(work)
        )
        """Runs its argument after the answer to a call."""
        self.units: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        """Names of units by the paths of their objects."""
        self.calls: list[tuple[str, list[Any]]] = []
        self.state = "running"
        self.refusal: BusError | None = None
        self.first_fails_with: int | None = None
        self.kept = 1
        self._pid = 4_000_000  # larger than any pid

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
    ) -> list[Any]:
        await asyncio.sleep(0)
        return self.answer(path, member, list(body))

    def answer(self, path: str, member: str, body: list[Any]) -> list[Any]:
        """Return what a method returns. Raises BusError."""
        self.calls.append((member, body))
        if path != MANAGER_PATH:
            assert member == "Get"
            return [self._property(path, *body)]
        match member, body:
            case "Get", _:
                return [self.state]
            case "GetUnitByPID", _:
                return [names.object_path("dorad.service")]
            case "ListUnitsByPatterns", _:
                return [[self._listed(name) for name in self.units]]
            case "StartTransientUnit", [name, _, properties, _]:
                return self._start(name, {key: value for key, (_, value) in properties})
            case "KillUnit", [name, "all", _]:
                self._known(name)
                return []
            case "GetUnit", [name]:
                self._known(name)
                return [names.object_path(name)]
            case "StopUnit", [name, _]:
                self._known(name)
                self._signal("JobRemoved", [0, "/", name, "done"])
                if not self.units[name]["failed"]:
                    self.vanish(name)
                return ["/"]
            case "SetUnitProperties", [name, True, [["Description", value]]]:
                self._known(name)
                self.units[name]["description"] = value[1]
                return []
            case "ResetFailedUnit", [name]:
                self._known(name)
                self.vanish(name)
                return []
        raise AssertionError(member)

    async def close(self) -> None:
        return

    def _property(self, path: str, interface: str, wanted: str) -> Any:
        if path == names.object_path("dorad.service"):
            found = {"Id": "dorad.service", "NFileDescriptorStore": self.kept}
            return (found | {"FileDescriptorStoreMax": 7})[wanted]
        assert interface == SERVICE
        name = self._names.get(path) or next(
            (each for each in self.units if names.object_path(each) == path), ""
        )
        if name not in self.units:
            raise BusError("org.freedesktop.DBus.Error.UnknownObject", "gone")
        return self.units[name].get(wanted, [] if wanted == "LogExtraFields" else 0)

    def _listed(self, name: str) -> list[Any]:
        values = self.units[name]
        state = "failed" if values.get("failed") else "active"
        return [name, values.get("description", ""), "loaded", state]

    def _known(self, name: str) -> None:
        if name not in self.units:
            raise BusError(NO_UNIT, f"Unit {name} not loaded.")

    def _start(self, name: str, properties: dict[str, Any]) -> list[Any]:
        if self.refusal is not None:
            raise self.refusal
        assert name not in self.units
        ((file, _),) = properties["EnvironmentFiles"]
        self._pid += 1
        self._names[names.object_path(name)] = name
        failed, self.first_fails_with = self.first_fails_with, None
        self.units[name] = {
            "ExecMainPID": self._pid,
            "ExecMainCode": 0 if failed is None else 1,
            "ExecMainStatus": failed or 0,
            "ExecMainStartTimestampMonotonic": 1,
            "LogExtraFields": properties["LogExtraFields"],
            "ControlGroup": f"/dorad.slice/{name}",
            "User": properties.get("User", ""),
            "UID": 4242,
            "properties": properties,
            "environment": Path(file).read_text(),
            "environment_mode": stat.S_IMODE(Path(file).stat().st_mode),
            "failed": failed is not None,
        }
        result = "done" if failed is None else "failed"
        self.soon(lambda: self._signal("JobRemoved", [1, "/", name, result]))
        return ["/"]

    def end(self, name: str, code: int, status: int) -> None:
        """End a main process and emit the signal."""
        self.end_silently(name, code, status)
        changed = {"ExecMainCode": code, "ExecMainStatus": status}
        self.on_signal(names.object_path(name), "PropertiesChanged", [SERVICE, changed, []])

    def end_silently(self, name: str, code: int, status: int) -> None:
        self.units[name] |= {"ExecMainCode": code, "ExecMainStatus": status}
        self.units[name]["failed"] = (code, status) != (1, 0)

    def daemon_reload(self) -> None:
        """Emit what `systemctl daemon-reload` does: UnitRemoved for units that still exist."""
        self._signal("Reloading", [True])
        for name in self.units:
            self._signal("UnitRemoved", [name, names.object_path(name)])
        self._signal("Reloading", [False])

    def vanish(self, name: str) -> None:
        """Unload a unit."""
        del self.units[name]
        self._signal("UnitRemoved", [name, names.object_path(name)])

    def _signal(self, member: str, values: list[Any]) -> None:
        self.on_signal(MANAGER_PATH, member, values)

    def killed(self, name: str) -> list[int]:
        """Return the signals that were sent to all processes of a unit."""
        return [body[2] for member, body in self.calls if member == "KillUnit" and body[0] == name]
