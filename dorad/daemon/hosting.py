"""Who keeps processes and descriptors: systemd where it runs this daemon, else a keeper."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from dorad.launch.keeper import Keeper
from dorad.launch.model import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.launch.host import Host
    from dorad.launch.systemd.bus import SystemBus

_PATIENCE_S = 20.0
_RETRY_S = 0.2
_log = logging.getLogger("dorad")


async def attach_host(keeper_path: Path, *, system: bool) -> tuple[Host, str | None]:
    """Return the host, and one line if it is not the one that a daemon of the machine should have.

    Raises:
        LaunchError: there is none.
    """
    if not system:
        return await Keeper.attach(keeper_path), None
    address = os.environ.get("NOTIFY_SOCKET")
    if address is None:
        return await Keeper.attach(keeper_path), (
            "systemd does not run this dorad, so nodes are plain processes"
            " (no units, no `resources`, no `user`)"
        )
    # Few daemons are run by systemd.
    from dorad.launch.systemd.bus import BusError
    from dorad.launch.systemd.envfile import EnvironmentFiles
    from dorad.launch.systemd.host import SystemdHost
    from dorad.launch.systemd.notify import Notifier, take_descriptors
    from dorad.launch.systemd.store import SystemdStore, holds_something

    received = take_descriptors(os.environ)
    inherits = holds_something(name for name, _ in received)
    try:
        bus = await _connect(_PATIENCE_S if inherits else 0.0)
    except BusError as error:
        if inherits:
            raise LaunchError(
                f"nodes run as units of systemd, and D-Bus is not there to reach it: {error};"
                " they go on, and so does the next dorad"
            ) from error
        return await Keeper.attach(keeper_path), (
            f"D-Bus is not there ({error}), so nodes are plain processes and end with this one"
        )
    notifier = Notifier(address)
    store = SystemdStore(notifier, received)
    environments = EnvironmentFiles(keeper_path.with_name("environments"))
    return await SystemdHost.attach(bus, notifier, store, environments), None


async def _connect(patience: float) -> SystemBus:
    from dorad.launch.systemd.bus import BusError, SystemBus

    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience
    while True:
        try:
            return await SystemBus.connect()
        except BusError:
            if loop.time() >= give_up_at:
                raise
            await asyncio.sleep(_RETRY_S)
