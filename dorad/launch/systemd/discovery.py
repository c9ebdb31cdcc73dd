"""Find the units that an earlier daemon has started, and adopt their processes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.launch.host import KeptProcess
from dorad.launch.systemd import failed
from dorad.launch.systemd.exits import exit_of
from dorad.launch.systemd.properties import is_helper, tag_of
from dorad.launch.systemd.units import STARTED

if TYPE_CHECKING:
    from dorad.launch.systemd.manager import Listed, Manager
    from dorad.launch.systemd.units import Units

_FOUND = ("LogExtraFields", *STARTED)
_log = logging.getLogger(__name__)


async def find_processes(manager: Manager, units: Units) -> list[KeptProcess]:
    """Add the units of an earlier daemon to `units`, and return the processes of its nodes.

    Raises:
        BusError: systemd does not report its units.
    """
    listed = (await manager.listed()).items()
    found = await asyncio.gather(*(_find(manager, units, *each) for each in listed))
    return [kept for kept in found if kept is not None]


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
    if failed.is_failed(listed.description):
        # The earlier daemon has stored this exit; the unit only stays visible as failed.
        unit.forgotten = True
        units.failed.add(unit)
        process.set_exit(ended)
        return None
    # Kill the rest of the unit before its exit is reported.
    await units.kill(unit)
    process.set_exit(ended)
    return KeptProcess(tag, process)
