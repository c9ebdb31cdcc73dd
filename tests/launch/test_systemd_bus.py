"""systemd on a real D-Bus, with hostile connections of other users on it."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, MessageFlag, new_method_call

from dorad.launch.model import Command, Exit
from dorad.launch.systemd import names
from dorad.launch.systemd.bus import (
    MANAGER,
    MANAGER_PATH,
    MAX_CALLS,
    PROPERTIES,
    SERVICE,
    SystemBus,
)
from dorad.launch.systemd.envfile import EnvironmentFiles
from dorad.launch.systemd.host import SystemdHost
from dorad.launch.systemd.messages import BusError
from tests.harness.process import open_descriptors
from tests.harness.waiting import until
from tests.launch.systembus import PrivateBus, SystemdOnBus, addressed, changed
from tests.launch.test_systemd_host import FLOW, Notifier, Store

pytestmark = pytest.mark.skipif(
    shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (apt-get install dbus-daemon)"
)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateBus]:
    made = PrivateBus(tmp_path)
    made.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", made.address)
    yield made
    made.kill()


@pytest.fixture
def systemd(private: PrivateBus) -> Iterator[SystemdOnBus]:
    made = SystemdOnBus(private)
    yield made
    made.close()


@pytest.fixture
async def bus(systemd: SystemdOnBus) -> AsyncIterator[SystemBus]:
    made = await SystemBus.connect()
    yield made
    await made.close()


@pytest.fixture
async def host(systemd: SystemdOnBus, bus: SystemBus) -> AsyncIterator[SystemdHost]:
    made = await SystemdHost.attach(bus, Notifier(), Store(), environments(systemd))
    yield made
    await made.detach()


def environments(systemd: SystemdOnBus) -> EnvironmentFiles:
    return EnvironmentFiles(systemd.folder)


async def spawn(host: SystemdHost, node: str = "camera") -> Any:
    command = Command(("/bin/node",), Path("/"), dataflow_name="nav")
    read, write = os.pipe()
    try:
        return await host.spawn(command, write, write, tag=f"{FLOW}/{node}/0")
    finally:
        os.close(read)
        os.close(write)


async def send(private: PrivateBus, message: Any) -> None:
    """Send as another user; return when the bus has passed it on."""

    def work() -> None:
        with private.stranger() as stranger:
            stranger.send(message)
            stranger.send_and_get_reply(
                new_method_call(DBusAddress("/", "org.freedesktop.DBus"), "GetId")
            )

    await asyncio.to_thread(work)


EXITED = {"ExecMainCode": 1, "ExecMainStatus": 0}


async def test_a_signal_of_a_stranger_ends_no_node(
    private: PrivateBus, systemd: SystemdOnBus, host: SystemdHost
) -> None:
    process = await spawn(host)
    (name,) = systemd.units
    path = names.object_path(name)
    asked = len(systemd.calls)
    for forged in (
        changed(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [SERVICE, EXITED, []]),
        changed(MANAGER_PATH, MANAGER, "UnitRemoved", "so", [name, path]),
        changed(MANAGER_PATH, MANAGER, "JobRemoved", "uoss", [1, "/", name, "failed"]),
        changed(MANAGER_PATH, MANAGER, "Reloading", "b", [False]),
        changed(
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "NameOwnerChanged",
            "sss",
            ["org.freedesktop.systemd1", systemd.name, ":1.99"],
        ),
    ):
        await send(private, addressed(forged, systemd.clients[0]))
    # The host has handled a later signal of systemd, so it has read all earlier ones.
    other = await spawn(host, "other")
    about = {body[-1] for member, body in systemd.calls[asked:] if member == "Get"}
    assert [member for member, _ in systemd.calls[asked:] if member != "Get"] == [
        "StartTransientUnit"
    ]
    assert "Result" in about  # of the other start; an exit does not request it
    assert len(systemd.calls[asked:]) == 1 + len(about)
    assert process.exit is None
    assert other.exit is None
    systemd.do(lambda: systemd.end(name, 1, 5))
    assert await process.wait() == Exit(code=5)


async def test_an_exit_counts_only_if_systemds_property_confirms_it(
    systemd: SystemdOnBus, host: SystemdHost
) -> None:
    process = await spawn(host)
    (name,) = systemd.units
    # Even from systemd: a signal about a unit that still runs.
    systemd.do(
        lambda: systemd.on_signal(
            names.object_path(name), "PropertiesChanged", [SERVICE, EXITED, []]
        )
    )
    asked = ["Get", [SERVICE, "ExecMainStatus"]]
    await until(lambda: [list(each) for each in systemd.calls].count(asked) == 2)
    await spawn(host, "other")
    assert process.exit is None


@pytest.mark.timeout(180)
async def test_no_exit_is_missed_when_hundreds_of_nodes_end_at_once(
    systemd: SystemdOnBus, host: SystemdHost
) -> None:
    processes = await asyncio.gather(*(spawn(host, f"n{number}") for number in range(300)))
    ends = {name: number % 7 for number, name in enumerate(systemd.units)}
    by_name = {process.unit: process for process in processes}

    def end_all() -> None:
        for name, code in ends.items():
            systemd.end(name, 1, code)

    systemd.do(end_all)
    async with asyncio.timeout(120):
        for name, code in ends.items():
            assert await by_name[name].wait() == Exit(code=code)


async def test_descriptors_that_strangers_send_are_never_ours(
    private: PrivateBus, systemd: SystemdOnBus, bus: SystemBus
) -> None:
    before = open_descriptors()
    us = systemd.clients[0]
    read, write = os.pipe()
    try:

        def work() -> None:
            with private.stranger() as stranger:
                for number in range(300):
                    body = ([write] * 16, "x" * (number * 100))
                    message = new_method_call(DBusAddress("/a", us, "a.b"), "Call", "ahs", body)
                    message.header.flags = MessageFlag.no_reply_expected
                    stranger.send(message)
                stranger.send(addressed(changed("/a", "a.b", "Signal", "ah", [[write] * 16]), us))
                stranger.send_and_get_reply(
                    new_method_call(DBusAddress("/", "org.freedesktop.DBus"), "GetId")
                )

        await asyncio.to_thread(work)
        await bus.call(MANAGER_PATH, MANAGER, "ListUnitsByPatterns", "asas", [[], []])
    finally:
        os.close(read)
        os.close(write)
    assert open_descriptors() == before


@pytest.mark.timeout(120)
async def test_a_flood_of_messages_does_not_block_the_loop(
    private: PrivateBus, systemd: SystemdOnBus, bus: SystemBus
) -> None:
    us = systemd.clients[0]
    flood = changed("/a", PROPERTIES, "PropertiesChanged", "sa{sv}as", [SERVICE, EXITED, []])
    flood = addressed(flood, us)
    large = addressed(changed("/a", "a.b", "Large", "as", [[""] * 100_000]), us)
    # Created in advance: the sender's processor time would count as the host's.
    raw = b"".join(flood.serialise(serial) for serial in range(1000, 1500))
    huge = large.serialise(2000)
    ended = False

    def work() -> None:
        with private.stranger() as stranger:
            for _ in range(20):
                stranger.sock.sendall(raw)
            for _ in range(10):
                stranger.sock.sendall(huge)
            stranger.send_and_get_reply(
                new_method_call(DBusAddress("/", "org.freedesktop.DBus"), "GetId")
            )

    flooding = asyncio.ensure_future(asyncio.to_thread(work))
    calls, longest_turn, longest_call = 0, 0.0, 0.0

    async def beat() -> None:
        nonlocal longest_turn
        while not ended:
            begun = time.monotonic()
            await asyncio.sleep(0.001)
            longest_turn = max(longest_turn, time.monotonic() - begun)

    beating = asyncio.ensure_future(beat())
    while not flooding.done():
        begun = time.monotonic()
        await bus.call(MANAGER_PATH, MANAGER, "ListUnitsByPatterns", "asas", [[], []])
        longest_call = max(longest_call, time.monotonic() - begun)
        calls += 1
    ended = True
    await flooding
    await beating
    print(f"{calls} calls, longest {longest_call:.3f} s; longest turn {longest_turn:.3f} s")
    assert calls
    assert longest_call < 20
    # A watchdog that is fed in time waits 5 s.
    assert longest_turn < 4.0


async def test_the_number_of_pending_calls_is_limited(
    systemd: SystemdOnBus, bus: SystemBus
) -> None:
    systemd.unanswered.add("GetUnit")
    calls = [
        asyncio.ensure_future(bus.call(MANAGER_PATH, MANAGER, "GetUnit", "s", ["x"]))
        for _ in range(100)
    ]
    await until(lambda: systemd.waiting == MAX_CALLS)
    for call in calls[:MAX_CALLS]:
        call.cancel()
    await until(lambda: systemd.waiting == 2 * MAX_CALLS)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert systemd.most_waiting == 2 * MAX_CALLS


async def test_a_full_socket_does_not_count_as_a_lost_bus(
    private: PrivateBus, systemd: SystemdOnBus, bus: SystemBus
) -> None:
    lost: list[bool] = []
    bus.on_reconnect = lambda: lost.append(True)
    # More than a socket holds, sixteen times, while the bus does not read.
    body = ["x" * 300_000]
    assert private.pid is not None
    os.kill(private.pid, signal.SIGSTOP)
    calls = [
        asyncio.ensure_future(bus.call(MANAGER_PATH, MANAGER, "GetUnit", "s", body))
        for _ in range(MAX_CALLS)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    os.kill(private.pid, signal.SIGCONT)
    for each in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(each, BusError)
        assert each.name == "org.freedesktop.systemd1.NoSuchUnit"
    assert not lost


async def test_temporary_errors_are_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = PrivateBus(tmp_path, replies=4)  # fewer than the host requests at once
    tight.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", tight.address)
    systemd = SystemdOnBus(tight)
    bus = await SystemBus.connect()
    try:
        host = await SystemdHost.attach(bus, Notifier(), Store(), environments(systemd))
        await asyncio.gather(*(spawn(host, f"n{number}") for number in range(40)))
        assert len(systemd.units) == 40
        await host.detach()
    finally:
        await bus.close()
        systemd.close()
        tight.kill()


async def test_nodes_outlive_a_bus_that_is_killed_and_started_again(
    private: PrivateBus, systemd: SystemdOnBus, host: SystemdHost
) -> None:
    ended, living = await spawn(host, "ended"), await spawn(host, "living")
    before = open_descriptors()
    systemd.close()
    private.kill()
    systemd.units[ended.unit] |= {"ExecMainCode": 2, "ExecMainStatus": 11}
    late = asyncio.ensure_future(spawn(host, "late"))
    await asyncio.sleep(0.3)  # nothing may happen
    assert not late.done()
    private.start()
    systemd.reexec()
    assert await ended.wait() == Exit(signal=11)
    assert (await late).exit is None
    assert living.exit is None
    systemd.do(lambda: systemd.end(living.unit, 1, 3))
    assert await living.wait() == Exit(code=3)
    assert open_descriptors() <= before


async def test_systemd_is_trusted_under_its_new_name_after_a_reexec(
    systemd: SystemdOnBus, host: SystemdHost
) -> None:
    process = await spawn(host)
    before = systemd.name
    systemd.reexec()
    assert systemd.name != before
    await until(lambda: len(systemd.clients) == 2)
    other = await spawn(host, "other")
    systemd.do(lambda: systemd.end(process.unit, 1, 2))
    assert await process.wait() == Exit(code=2)
    assert other.exit is None


async def test_a_unit_whose_start_was_not_answered_is_started_once(
    systemd: SystemdOnBus, host: SystemdHost
) -> None:
    systemd.unanswered.add("StartTransientUnit")
    starting = asyncio.ensure_future(spawn(host))
    await until(lambda: systemd.waiting == 1)
    systemd.unanswered.clear()
    systemd.reexec()  # the bus answers for it: no reply
    process = await starting
    assert list(systemd.units) == [process.unit]


async def test_without_systemd_on_the_bus_there_is_no_connection(private: PrivateBus) -> None:
    before = open_descriptors()
    with pytest.raises(BusError):
        await SystemBus.connect()
    assert open_descriptors() == before
