"""Failed units that stay visible to administrators after the daemon has handled their exit."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dorad.launch.systemd import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.launch.systemd.unit import Unit

MAX_UNITS = 32
_DESCRIPTION = "Failed node "
_log = logging.getLogger(__name__)


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
