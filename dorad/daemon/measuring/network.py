"""The network as it is now, and what changes of it, told at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from dorad.control.messages import Interface, Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LEAST_S = 0.05
"""Seconds between two looks, however fast things change."""
AGAIN_S = 5.0
"""Seconds until the next try when the kernel does not tell."""

_GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""RTMGRP_LINK, and RTMGRP_IPV4_… and RTMGRP_IPV6_… of IFADDR and ROUTE."""
_UP = 0x1 | 0x10000  # IFF_UP, IFF_LOWER_UP
_MAIN_TABLE = 254
_UNICAST = 1
_PACKET = 1 << 16

_log = logging.getLogger("dorad")


def compose(links: Iterable[Any], addresses: Iterable[Any], routes: Iterable[Any]) -> Network:
    """Return the network that pyroute2's messages describe."""
    names: dict[int, str] = {}
    found: dict[int, Interface] = {}
    for link in links:
        number, name = link["index"], link.get("ifname")
        names[number] = name
        found[number] = Interface(name=name, up=link["flags"] & _UP == _UP)
    for address in addresses:
        number = address["index"]
        if number in found:
            # Of a point-to-point link `address` is the other end.
            text = address.get("local") or address.get("address")
            found[number].addresses.append(f"{text}/{address['prefixlen']}")
    ways = [
        (route["family"], route.get("priority") or 0, _way(hop, names))
        for route in routes
        if route["dst_len"] == 0
        and route["type"] == _UNICAST
        and (route.get("table") or route["table"]) == _MAIN_TABLE
        for hop in (route.get("multipath") or (route,))
    ]
    return Network(interfaces=list(found.values()), defaults=[way for _, _, way in sorted(ways)])


def _way(route: Any, names: dict[int, str]) -> str:
    interface = names.get(route.get("oif") or 0, "?")
    via = route.get("gateway") or (route.get("via") or {}).get("addr")
    return f"{via} over {interface}" if via else f"over {interface}"


def changes(before: Network, after: Network) -> list[str]:
    """Return what has changed, a few words each."""
    old = {each.name: each for each in before.interfaces}
    new = {each.name: each for each in after.interfaces}
    said = [f"{name} is gone" for name in old if name not in new]
    for name, now in new.items():
        then = old.get(name)
        if then is None:
            said.append(f"{name} is new and {_state(now)}")
        elif then.up != now.up:
            said.append(f"{name} is {_state(now)}")
        had = [] if then is None else then.addresses
        said += [f"{name} has {each}" for each in now.addresses if each not in had]
        said += [f"{name} has lost {each}" for each in had if each not in now.addresses]
    if before.defaults != after.defaults:
        said.append(f"default route {', '.join(after.defaults) or 'gone'}")
    return said


def _state(interface: Interface) -> str:
    return "up" if interface.up else "down"


async def look() -> Network:
    """Ask the kernel for the network of this process's namespace.

    Raises:
        OSError: it does not tell; an InterruptedError when too much has changed meanwhile.
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
    """Knows the network; belongs to one event loop."""

    def __init__(self, on_change: Callable[[list[str], Network], None]) -> None:
        """`on_change` gets what has changed in words, and how all is now."""
        self.now: Network | None = None
        """None before the first look."""
        self._on_change = on_change
        self._stirred = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        told = False
        # It takes long; meanwhile the event loop goes on.
        await asyncio.to_thread(importlib.import_module, "pyroute2")
        while True:
            try:
                with _listen(self._stirred.set):
                    await self._watch()
            except OSError as error:
                if not told:
                    _log.warning("the network cannot be watched: %s", error)
                told = True
                await asyncio.sleep(AGAIN_S)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Cleared first: what changes during the look is looked at again.
            self._stirred.clear()
            looked = loop.time()
            with contextlib.suppress(InterruptedError):  # something has changed during the look
                self._take(await look())
            await self._stirred.wait()
            await asyncio.sleep(max(0.0, looked + LEAST_S - loop.time()))

    def _take(self, now: Network) -> None:
        before, self.now = self.now, now
        if before is not None and (said := changes(before, now)):
            self._on_change(said, now)


@contextlib.contextmanager
def _listen(stirred: Callable[[], None]) -> Any:
    """Have `stirred` called whenever the kernel says that something has changed.

    What it says is not read: a reader that is too slow misses some of it, while a look does not.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.setblocking(False)
        kernel.bind((0, _GROUPS))

        def heard() -> None:
            with contextlib.suppress(OSError):  # nothing more, or more than there was room for
                while kernel.recv(_PACKET):
                    stirred()
            stirred()

        loop.add_reader(kernel, heard)
        try:
            yield
        finally:
            loop.remove_reader(kernel)
