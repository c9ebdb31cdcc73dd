"""Who keeps processes and descriptors: systemd if it runs this daemon, else a process holder."""

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

_PATIENCE_S = 20.0
_RETRY_S = 0.2
_LONGEST_PAUSE_S = 2.0
_log = logging.getLogger("dorad")


class Hosting(NamedTuple):
    """Who keeps processes, and why it is not systemd where it should be."""

    host: Host
    note: str = ""
    """One line for the operator of a machine whose service manager is another one."""
    missing: str = ""
    """What systemd cannot be reached without, although it runs this daemon."""


async def attach_host(holder_path: Path, *, system: bool) -> Hosting:
    """Return the host of a daemon; with `system` of that of the machine.

    Raises:
        LaunchError: there is none.
    """
    if not system:
        return Hosting(await HolderClient.attach(holder_path))
    address = os.environ.get("NOTIFY_SOCKET")
    if address is None:
        return Hosting(
            await HolderClient.attach(holder_path),
            note="systemd does not run this dorad, so nodes are plain processes"
            " (no units, no `resources`, no `user`)",
        )
    # Few daemons are run by systemd.
    from dorad.launch.systemd.envfile import EnvironmentFiles
    from dorad.launch.systemd.host import SystemdHost
    from dorad.launch.systemd.messages import BusError
    from dorad.launch.systemd.notify import Notifier, take_descriptors
    from dorad.launch.systemd.store import SystemdStore, holds_dataflows

    received = take_descriptors(os.environ)
    inherits = holds_dataflows(name for name, _ in received)
    try:
        bus = await _connect(_PATIENCE_S if inherits else 0.0)
    except BusError as error:
        if inherits:
            raise LaunchError(
                f"nodes run as units of systemd, and D-Bus is not there to reach it: {error};"
                " they go on, and so does the next dorad"
            ) from error
        return Hosting(
            await HolderClient.attach(holder_path), missing=f"D-Bus is not there ({error})"
        )
    notifier = Notifier(address)
    store = SystemdStore(notifier, received)
    environments = EnvironmentFiles(holder_path.with_name("environments"))
    return Hosting(await SystemdHost.attach(bus, notifier, store, environments))


async def wait_for_bus() -> None:
    """Return when D-Bus is there, and systemd on it."""
    bus = await _connect(math.inf)
    await bus.close()


async def _connect(patience: float) -> SystemBus:
    from dorad.launch.systemd.bus import SystemBus
    from dorad.launch.systemd.messages import BusError

    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience
    pause = _RETRY_S
    while True:
        try:
            return await SystemBus.connect()
        except BusError as error:
            if loop.time() >= give_up_at:
                raise
            _log.debug("D-Bus is not there: %s; next attempt in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
