"""Watch the network interfaces, addresses and default routes, and report changes at once."""

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from dorad.control.messages import Interface, Network

MIN_INTERVAL_S = 0.05
"""Minimum time between two queries, however fast the network changes."""
RETRY_S = 5.0
"""Time until the next attempt after the kernel refused."""
START_DELAY_S = 1.0
"""Time until the first query. The import of pyroute2 takes more than half as long as that of all
else, and would hold up the daemon and the dataflows that it starts."""

_GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""RTMGRP_LINK, and RTMGRP_IPV4_… and RTMGRP_IPV6_… of IFADDR and ROUTE."""
_UP = 0x1 | 0x10000  # IFF_UP, IFF_LOWER_UP
_MAIN_TABLE = 254
_UNICAST = 1
_PACKET = 1 << 16

_log = logging.getLogger(__name__)


def compose(links: Iterable[Any], addresses: Iterable[Any], routes: Iterable[Any]) -> Network:
    """Return the network that pyroute2's messages describe."""
    names: dict[int, str] = {}
    interfaces: dict[int, Interface] = {}
    for link in links:
        number, name = link["index"], link.get("ifname")
        names[number] = name
        interfaces[number] = Interface(name=name, up=link["flags"] & _UP == _UP)
    for address in addresses:
        number = address["index"]
        if number in interfaces:
            # On a point-to-point link `address` is the other end.
            text = address.get("local") or address.get("address")
            interfaces[number].addresses.append(f"{text}/{address['prefixlen']}")
    hops = [
        (route["family"], route.get("priority") or 0, _hop(hop, names))
        for route in routes
        if route["dst_len"] == 0
        and route["type"] == _UNICAST
        and (route.get("table") or route["table"]) == _MAIN_TABLE
        for hop in (route.get("multipath") or (route,))
    ]
    return Network(
        interfaces=list(interfaces.values()), defaults=[hop for _, _, hop in sorted(hops)]
    )


def _hop(route: Any, names: dict[int, str]) -> str:
    interface = names.get(route.get("oif") or 0, "?")
    via = route.get("gateway") or (route.get("via") or {}).get("addr")
    return f"{via} over {interface}" if via else f"over {interface}"


def changes(before: Network, after: Network) -> list[str]:
    """Return the differences, as a few words each."""
    old = {each.name: each for each in before.interfaces}
    new = {each.name: each for each in after.interfaces}
    changed = [f"{name} was removed" for name in old if name not in new]
    for name, now in new.items():
        then = old.get(name)
        if then is None:
            changed.append(f"{name} is new and {_state(now)}")
        elif then.up != now.up:
            changed.append(f"{name} is {_state(now)}")
        had = [] if then is None else then.addresses
        changed += [f"{name} has {each}" for each in now.addresses if each not in had]
        changed += [f"{name} has lost {each}" for each in had if each not in now.addresses]
    if before.defaults != after.defaults:
        changed.append(f"default route {', '.join(after.defaults) or 'removed'}")
    return changed


def _state(interface: Interface) -> str:
    return "up" if interface.up else "down"


async def query() -> Network:
    """Query the kernel for the network of this process's namespace.

    Raises:
        OSError: the kernel refuses; InterruptedError if the network changed meanwhile.
    """
    from pyroute2 import AsyncIPRoute, NetlinkDumpInterrupted, NetlinkError

    try:
        async with AsyncIPRoute() as kernel:
            links = [each async for each in await kernel.link("dump")]
            addresses = [each async for each in await kernel.addr("dump")]
            routes = []
            for family in (socket.AF_INET, socket.AF_INET6):
                routes += [
                    each
                    async for each in await kernel.route("dump", family=family, table=_MAIN_TABLE)
                ]
    except NetlinkDumpInterrupted as error:
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR)) from error
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
    return compose(links, addresses, routes)


class NetworkWatch:
    """Keeps the state of the network up to date. Belongs to one event loop."""

    def __init__(self, on_change: Callable[[list[str], Network], None]) -> None:
        """Call `on_change` with the changes in words, and the new state."""
        self.now: Network | None = None
        """None before the first query."""
        self._on_change = on_change
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        warned = False
        await asyncio.sleep(START_DELAY_S)
        # The import is slow, so it runs beside the event loop.
        await asyncio.to_thread(importlib.import_module, "pyroute2")
        while True:
            try:
                with _listen(self._changed.set):
                    await self._watch()
            except OSError as error:
                if not warned:
                    _log.warning("cannot watch the network: %s", error)
                warned = True
                await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Cleared first: a change during the query causes another query.
            self._changed.clear()
            queried_at = loop.time()
            with contextlib.suppress(InterruptedError):  # changed meanwhile; query again
                self._update(await query())
            await self._changed.wait()
            await asyncio.sleep(max(0.0, queried_at + MIN_INTERVAL_S - loop.time()))

    def _update(self, now: Network) -> None:
        before, self.now = self.now, now
        _log.debug("the network is %s", now)
        if before is not None and (changed := changes(before, now)):
            self._on_change(changed, now)


@contextlib.contextmanager
def _listen(on_change: Callable[[], None]) -> Any:
    """Call `on_change` whenever the kernel reports a change.

    The contents of reports are ignored, because a slow reader misses some. A query is complete.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.setblocking(False)
        kernel.bind((0, _GROUPS))

        def on_readable() -> None:
            with contextlib.suppress(OSError):  # no more reports, or the kernel dropped some
                while kernel.recv(_PACKET):
                    on_change()
            on_change()

        loop.add_reader(kernel, on_readable)
        try:
            yield
        finally:
            loop.remove_reader(kernel)
