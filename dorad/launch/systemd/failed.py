"""Failed units that are left for administrators to see, though the daemon is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.launch.systemd import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.launch.systemd.unit import Unit

MOST = 32
_DISMISSED = "Failed node "


class FailedUnits:
    """Each stays until its node is started again, and so do at most 32."""

    def __init__(self, release: Callable[[Unit], None]) -> None:
        """`release` is called with each that systemd is to forget."""
        self._release = release
        self._units: dict[str, Unit] = {}

    def add(self, unit: Unit) -> None:
        """Leave a unit where it is."""
        self.replaced(unit.name)
        if len(self._units) >= MOST:
            self._release(self._units.pop(next(iter(self._units))))
        self._units[names.without_number(unit.name)] = unit

    def replaced(self, name: str) -> None:
        """Release the one whose node is started again as the unit `name`."""
        old = self._units.pop(names.without_number(name), None)
        if old is not None:
            self._release(old)

    def remove(self, unit: Unit) -> None:
        """Take note that systemd has forgotten a unit by itself."""
        key = names.without_number(unit.name)
        if self._units.get(key) is unit:
            del self._units[key]


def description(tag: str) -> str:
    """Return what describes the unit of a process whose failure the daemon has written down."""
    _, node, *_ = [*tag.split("/"), ""]
    return f"{_DISMISSED}{node}, until it is started again"


def is_one(described: str) -> bool:
    """Whether a unit is described so."""
    return described.startswith(_DISMISSED)
