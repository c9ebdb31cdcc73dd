"""Choose the host of processes and descriptors: systemd, or a process holder without it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from typing import TYPE_CHECKING, NamedTuple

from dorad.launch.holder.client import HolderClient
from dorad.launch.model import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.launch.host import Host
    from dorad.launch.systemd.bus import SystemBus

_BUS_TIMEOUT_S = 20.0
_RETRY_S = 0.2
_MAX_RETRY_S = 2.0
_log = logging.getLogger(__name__)


class Hosting(NamedTuple):
    """The host, and the reason if it is not systemd although it should be."""

    host: Host
    note: str = ""
    """A line for the operator of a machine without systemd."""
    missing: str = ""
    """Why systemd cannot be reached, although it runs this daemon."""


async def attach_host(holder_path: Path, *, system: bool) -> Hosting:
    """Return the host of a daemon: of the machine's with `system`, else of a user's.

    Raises:
        LaunchError: no host can be reached.
    """
    if not system:
        _log.debug("the process holder at %s hosts nodes", holder_path)
        return Hosting(await HolderClient.attach(holder_path))
    address = os.environ.get("NOTIFY_SOCKET")
    if address is None:
        return Hosting(
            await HolderClient.attach(holder_path),
            note="systemd does not run this dorad, so nodes are plain processes"
            " (no units, no `resources`, no `user`)",
        )
    # Imported here, because few daemons run under systemd.
    from dorad.launch.systemd.envfile import EnvironmentFiles
    from dorad.launch.systemd.host import SystemdHost
    from dorad.launch.systemd.messages import BusError
    from dorad.launch.systemd.notify import Notifier, take_descriptors
    from dorad.launch.systemd.store import SystemdStore, holds_dataflows

    received = take_descriptors(os.environ)
    inherits = holds_dataflows(name for name, _ in received)
    try:
        bus = await _connect(_BUS_TIMEOUT_S if inherits else 0.0)
    except BusError as error:
        if inherits:
            raise LaunchError(
                f"nodes run as units of systemd, but D-Bus is not available: {error};"
                " they keep running, and the next dorad adopts them"
            ) from error
        return Hosting(
            await HolderClient.attach(holder_path), missing=f"D-Bus is not available ({error})"
        )
    notifier = Notifier(address)
    store = SystemdStore(notifier, received)
    environments = EnvironmentFiles(holder_path.with_name("environments"))
    return Hosting(await SystemdHost.attach(bus, notifier, store, environments))


async def wait_for_bus() -> None:
    """Return when systemd can be reached over D-Bus."""
    bus = await _connect(math.inf)
    await bus.close()


async def _connect(timeout: float) -> SystemBus:
    from dorad.launch.systemd.bus import SystemBus
    from dorad.launch.systemd.messages import BusError

    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = _RETRY_S
    while True:
        try:
            return await SystemBus.connect()
        except BusError as error:
            if loop.time() >= deadline:
                raise
            _log.debug("D-Bus is not available: %s; next attempt in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RETRY_S)
