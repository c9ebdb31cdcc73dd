"""The network as the daemon reports it, in a network namespace of the test."""

import asyncio
import ctypes
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dorad.control.eventbus import EventBus
from dorad.control.messages import Interface, Network
from dorad.daemon.measuring.measure import Counts, InterfaceMeter, read
from dorad.daemon.measuring.network import NetworkWatch, changes, compose, query
from tests.harness.daemon import daemon
from tests.harness.waiting import DEADLINE_S, until, wait_until

_CLONE_NEWNET = 0x40000000


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, timeout=DEADLINE_S, capture_output=True)


def apart(work: Callable[[], Awaitable[None]]) -> None:
    """Run a function on a thread in a new network namespace."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network namespace takes root and the program ip")
    failed: list[BaseException] = []

    def run() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(_CLONE_NEWNET) != 0:
            failed.append(PermissionError(ctypes.get_errno(), "unshare"))
            return
        try:
            ip("link set lo up")
            asyncio.run(asyncio.wait_for(work(), DEADLINE_S * 2))
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed and isinstance(failed[0], PermissionError):
        pytest.skip("no network namespace can be made here")
    if failed:
        raise failed[0]


class Watched:
    """A running watch, and its reports."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self._heard = asyncio.Event()
        self.watch = NetworkWatch(self._hear)
        self.task = asyncio.create_task(self.watch.run())

    def _hear(self, reports: list[str], _: Network) -> None:
        self.reports += reports
        self._heard.set()

    async def until(self, *words: str) -> None:
        """Wait until all of this was reported."""
        async with asyncio.timeout(DEADLINE_S):
            while not all(any(word in each for each in self.reports) for word in words):
                self._heard.clear()
                await self._heard.wait()

    async def known(self) -> Network:
        await until(lambda: self.watch.now is not None)
        assert self.watch.now is not None
        return self.watch.now


def test_changes_of_links_addresses_and_routes_are_reported() -> None:
    async def work() -> None:
        found = Watched()
        (lo,) = (await found.known()).interfaces
        assert (lo.name, lo.up, "127.0.0.1/8" in lo.addresses) == ("lo", True, True)
        ip("link add near type veth peer name far")
        await found.until("near is new and down", "far is new and down")
        ip("link set near up")
        ip("link set far up")
        await found.until("near is up", "far is up")
        ip("addr add 192.0.2.7/24 dev near")
        await found.until("near has 192.0.2.7/24")
        ip("route add default via 192.0.2.1")
        await found.until("default route 192.0.2.1 over near")
        ip("link set far down")
        await found.until("near is down")
        ip("link del near")
        await found.until("near was removed", "near was removed", "default route removed")
        assert found.watch.now == Network([lo], [])
        found.task.cancel()

    apart(work)


def test_many_changes_at_once_give_the_final_state() -> None:
    async def work() -> None:
        found = Watched()
        await found.known()
        ip("link add near type veth peer name far")
        ip("link set near up")
        for number in range(40):
            ip(f"addr add 192.0.2.{number + 1}/24 dev near")
        await found.until("near has 192.0.2.1/24", "near has 192.0.2.40/24")
        assert found.watch.now == await query()
        found.task.cancel()

    apart(work)


def test_a_namespace_has_its_own_network() -> None:
    async def work() -> None:
        assert [each.name for each in (await query()).interfaces] == ["lo"]

    apart(work)


def test_several_default_routes_are_in_order_of_priority() -> None:
    async def work() -> None:
        ip("link add near type veth peer name far")
        ip("link set near up")
        ip("link set far up")
        ip("addr add 192.0.2.7/24 dev near")
        ip("addr add 198.51.100.7/24 dev far")
        ip("route add default via 198.51.100.1 metric 300")
        ip("route add default dev near metric 100")
        ip("route add 203.0.113.0/24 via 192.0.2.2")
        assert (await query()).defaults == ["over near", "198.51.100.1 over far"]
        ip("route del default metric 300")
        ip("route del default metric 100")
        ip("route add default nexthop via 192.0.2.1 nexthop via 198.51.100.1")
        assert sorted((await query()).defaults) == ["192.0.2.1 over near", "198.51.100.1 over far"]

    apart(work)


def message(**fields: Any) -> dict[str, Any]:
    return fields


def test_a_point_to_point_link_has_its_own_address() -> None:
    found = compose(
        [message(index=3, ifname="ppp0", flags=0x10001)],
        [message(index=3, address="192.0.2.1", local="192.0.2.2", prefixlen=32)],
        [],
    )
    assert found == Network([Interface("ppp0", up=True, addresses=["192.0.2.2/32"])])


def test_unchanged_parts_are_not_reported() -> None:
    one = Network([Interface("eth0", up=True, addresses=["192.0.2.2/24"])], ["over eth0"])
    assert changes(one, one) == []
    assert changes(one, Network([Interface("eth0", up=False)])) == [
        "eth0 is down",
        "eth0 has lost 192.0.2.2/24",
        "default route removed",
    ]


async def test_it_is_an_event_of_no_dataflow() -> None:
    event_bus = EventBus()
    watcher = event_bus.subscribe(None)
    first = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(0)
    event_bus.network_changed(["eth0 is down"], Network([Interface("eth0", up=False)]))
    event = await first
    assert (event.what, event.dataflow, event.text) == (
        "network-changed",
        "",
        "eth0 is down",
    )
    assert event.data["interfaces"] == [{"name": "eth0", "up": False, "addresses": []}]
    await watcher.aclose()


def test_rates_are_differences_over_time() -> None:
    seen = iter([{"a": Counts(0, 0, 0)}, {"a": Counts(500, 50, 4), "b": Counts(9, 9, 9)}, {}])
    times = iter([1.0, 3.0, 4.0])
    meter = InterfaceMeter(lambda: next(seen), lambda: next(times))
    assert meter.sample() == []
    (found,) = meter.sample()
    assert (found.name, found.received, found.sent, found.dropped) == ("a", 250.0, 25.0, 2.0)
    assert meter.sample() == []


def test_interfaces_of_this_machine_have_counters() -> None:
    assert "lo" in read()


@pytest.mark.timeout(120)
def test_a_daemon_reports_its_network() -> None:
    with daemon() as dorad:
        with dorad.client() as client:
            wait_until(lambda: client.status().network is not None)
            wait_until(lambda: client.top().interfaces)
        assert "network:" in dorad.dora_ok("status")
        found = json.loads(dorad.dora_ok("status", "--format", "json"))
        assert "lo" in [each["name"] for each in found["network"]["interfaces"]]
