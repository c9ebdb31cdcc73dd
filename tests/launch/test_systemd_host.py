"""The daemon's processes as units of a fake systemd."""

import os
import signal
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dorad.launch.host import HostListener
from dorad.launch.model import Command, Exit, LaunchError
from dorad.launch.systemd import names
from dorad.launch.systemd.bus import MANAGER_PATH
from dorad.launch.systemd.envfile import EnvironmentFiles
from dorad.launch.systemd.host import SystemdHost
from dorad.launch.systemd.messages import BusError
from dorad.launch.systemd.units import CAPABILITIES, SCHEDULER
from dorad.realtime.schedule import Schedule
from tests.harness.waiting import until
from tests.launch.fakesystemd import Systemd
from tests.launch.holders import Recorder

FLOW = "0b5e1d4e-0000-0000-0000-000000000000"


class Store:
    """Keeps nothing."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, ...]] = {}
        self.count = 1
        self.dropped = False

    def store(self, name: str, fds: Sequence[int]) -> None:
        self.count += len(fds)

    def drop(self, name: str) -> None:
        return

    def drop_all(self) -> None:
        self.dropped = True

    def close(self) -> None:
        return


class Notifier:
    """A systemd that has always processed everything."""

    async def flushed(self) -> None:
        return

    async def barrier(self) -> None:
        return

    def close(self) -> None:
        return


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path / "environments")


async def attach(
    systemd: Systemd, store: Store | None = None, listener: HostListener | None = None
) -> SystemdHost:
    kept = store or Store()
    environments = EnvironmentFiles(systemd.folder)
    return await SystemdHost.attach(systemd, Notifier(), kept, environments, listener)


def command(**fields: Any) -> Command:
    return Command(("/bin/node",), Path("/"), dataflow_name="nav", **fields)


async def spawn(host: SystemdHost, node: str = "camera", **fields: Any) -> Any:
    return await host.spawn(command(**fields), 1, 2, tag=f"{FLOW}/{node}/0")


async def test_each_node_is_a_unit(systemd: Systemd) -> None:
    host = await attach(systemd)
    first, second = await spawn(host), await spawn(host)
    assert list(systemd.units) == ["dorad-nav-camera-1.service", "dorad-nav-camera-2.service"]
    assert first.pid != second.pid
    assert first.control_group == "/dorad.slice/dorad-nav-camera-1.service"
    assert first.uid == os.getuid()
    assert systemd.units["dorad-nav-camera-1.service"]["properties"]["Before"] == ["dorad.service"]
    await host.detach()


async def test_variables_reach_a_unit_in_a_file_of_root_s_that_is_gone_afterwards(
    systemd: Systemd,
) -> None:
    systemd.folder.mkdir(mode=0o755)
    (systemd.folder / "left").write_text("OLD_SECRET=1\n")
    host = await attach(systemd)
    assert stat.S_IMODE(systemd.folder.stat().st_mode) == 0o700
    assert not list(systemd.folder.iterdir())
    await spawn(host, env={"TOKEN": "hunter2"})
    (unit,) = systemd.units.values()
    assert unit["environment"] == 'TOKEN="hunter2"\n'
    assert unit["environment_mode"] == 0o600
    assert "hunter2" not in repr(unit["properties"])
    assert not list(systemd.folder.iterdir())
    await host.detach()


async def test_no_environment_is_left_of_a_unit_that_does_not_start(systemd: Systemd) -> None:
    host = await attach(systemd)
    systemd.refusal = BusError("org.freedesktop.systemd1.Refused", "no")
    with pytest.raises(LaunchError):
        await spawn(host, env={"TOKEN": "hunter2"})
    assert not list(systemd.folder.iterdir())
    await host.detach()


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [(1, 0, Exit(code=0)), (1, 3, Exit(code=3)), (2, 9, Exit(signal=9))],
)
async def test_the_end_of_a_node_ends_all_its_processes(
    systemd: Systemd, code: int, status: int, expected: Exit
) -> None:
    host = await attach(systemd)
    process = await spawn(host)
    (name,) = systemd.units
    systemd.end(name, code, status)
    assert await process.wait() == expected
    assert systemd.killed(name) == [signal.SIGKILL]
    # It stays readable until it is recorded.
    assert name in systemd.units
    host.forget(process.pid)
    if expected.ok:
        await until(lambda: not systemd.units)
    await host.detach()


async def test_a_failed_unit_exists_until_its_node_is_restarted(systemd: Systemd) -> None:
    first = await attach(systemd)
    process = await spawn(first)
    systemd.end("dorad-nav-camera-1.service", 1, 3)
    await process.wait()
    first.forget(process.pid)
    await until(lambda: "description" in systemd.units["dorad-nav-camera-1.service"])
    await first.detach()

    second = await attach(systemd)
    assert second.kept == []
    assert "dorad-nav-camera-1.service" in systemd.units
    await spawn(second)
    await until(lambda: list(systemd.units) == ["dorad-nav-camera-2.service"])
    await second.detach()


async def test_a_signal_goes_to_every_process_of_a_node(systemd: Systemd) -> None:
    host = await attach(systemd)
    process = await spawn(host)
    process.signal(signal.SIGTERM)
    (name,) = systemd.units
    await until(lambda: systemd.killed(name) == [signal.SIGTERM])
    await host.detach()


async def test_a_unit_that_systemd_refuses_is_an_error_with_the_reason(systemd: Systemd) -> None:
    host = await attach(systemd)
    systemd.refusal = BusError("x", "Invalid environment assignments")
    with pytest.raises(LaunchError, match=r"dorad-nav-camera-1\.service: Invalid environment"):
        await spawn(host)
    await host.detach()


async def test_a_program_that_cannot_be_executed_is_an_error(systemd: Systemd) -> None:
    host = await attach(systemd)
    systemd.first_fails_with = 203
    with pytest.raises(LaunchError, match="/bin/node: it cannot be executed"):
        await spawn(host)
    await until(lambda: not systemd.units)
    await host.detach()


async def test_a_policy_that_is_refused_is_left_out(systemd: Systemd) -> None:
    host = await attach(systemd)
    systemd.first_fails_with = SCHEDULER
    process = await spawn(host, schedule=Schedule(1, 50))
    assert process.refused
    (unit,) = systemd.units.values()
    assert "CPUSchedulingPolicy" not in unit["properties"]
    await host.detach()


async def test_a_capability_that_systemd_lacks_is_left_out(systemd: Systemd) -> None:
    host = await attach(systemd)
    systemd.first_fails_with = CAPABILITIES
    process = await spawn(host, schedule=Schedule(1, 50, lock_memory=1))
    assert not process.refused
    (unit,) = systemd.units.values()
    assert "AmbientCapabilities" not in unit["properties"]
    assert unit["properties"]["CPUSchedulingPriority"] == 50
    await host.detach()


async def test_the_next_daemon_finds_running_and_ended_nodes(systemd: Systemd) -> None:
    first = await attach(systemd)
    for node in ("runs", "done", "crashed"):
        await spawn(first, node)
    await first.detach()
    systemd.end_silently("dorad-nav-done-2.service", 1, 0)
    systemd.end_silently("dorad-nav-crashed-3.service", 3, 11)
    systemd.units["dorad-admins-own.service"] = {"LogExtraFields": [], "ExecMainPID": 1}

    second = await attach(systemd)
    found = {kept.tag: kept.exit for kept in second.kept}
    assert found == {
        f"{FLOW}/runs/0": None,
        f"{FLOW}/done/0": Exit(code=0),
        f"{FLOW}/crashed/0": Exit(signal=11),
    }
    # Their remaining processes are ended.
    assert systemd.killed("dorad-nav-done-2.service") == [signal.SIGKILL]
    for kept in second.kept:
        if kept.exit is not None:
            second.forget(kept.pid)
    await until(lambda: "dorad-nav-done-2.service" not in systemd.units)
    # Numbering continues.
    await spawn(second)
    assert "dorad-nav-camera-4.service" in systemd.units
    await second.detach()


async def test_the_exit_of_an_adopted_node_is_reported(systemd: Systemd) -> None:
    first = await attach(systemd)
    await spawn(first)
    await first.detach()
    second = await attach(systemd)
    systemd.end("dorad-nav-camera-1.service", 1, 5)
    assert await second.kept[0].process.wait() == Exit(code=5)
    await second.detach()


async def test_a_unit_that_an_administrator_removes_has_ended(systemd: Systemd) -> None:
    host = await attach(systemd)
    process = await spawn(host)
    systemd.vanish("dorad-nav-camera-1.service")
    assert await process.wait() == Exit(signal=signal.SIGKILL)
    await host.detach()


async def test_an_empty_unit_that_any_user_could_create_is_not_the_node(systemd: Systemd) -> None:
    host = await attach(systemd)
    process = await spawn(host)
    (name,) = systemd.units
    del systemd.units[name]
    systemd.units[name] = {"ExecMainPID": 0, "ExecMainCode": 0, "LogExtraFields": []}
    systemd.on_signal(MANAGER_PATH, "UnitRemoved", [name, names.object_path(name)])
    assert await process.wait() == Exit(signal=signal.SIGKILL)
    await host.detach()


async def test_nodes_survive_a_reload_of_systemd(systemd: Systemd) -> None:
    host = await attach(systemd)
    living, ended = await spawn(host, "living"), await spawn(host, "ended")
    systemd.end_silently("dorad-nav-ended-2.service", 1, 4)
    systemd.daemon_reload()
    assert await ended.wait() == Exit(code=4)
    assert living.exit is None
    assert systemd.killed("dorad-nav-living-1.service") == []
    systemd.end("dorad-nav-living-1.service", 1, 0)
    assert await living.wait() == Exit(code=0)
    await host.detach()


async def test_exits_while_dbus_was_down_are_found(systemd: Systemd) -> None:
    host = await attach(systemd)
    ended, gone, living = [await spawn(host, node) for node in ("ended", "gone", "living")]
    systemd.end_silently("dorad-nav-ended-1.service", 1, 4)
    del systemd.units["dorad-nav-gone-2.service"]
    systemd.on_reconnect()
    assert await ended.wait() == Exit(code=4)
    assert await gone.wait() == Exit(signal=signal.SIGKILL)
    assert living.exit is None
    await host.detach()


async def test_descriptors_that_systemd_did_not_accept_are_a_problem(systemd: Systemd) -> None:
    recorder = Recorder()
    host = await attach(systemd, listener=recorder)
    host.store("a", (0, 1, 2))
    await until(lambda: recorder.problems)
    problems = recorder.problems
    assert problems[0].startswith("systemd keeps 1 of 4 descriptors")
    assert "FileDescriptorStoreMax=7 of dorad.service" in problems[0]
    await host.detach()


async def test_nodes_keep_running_unless_the_machine_stops(
    systemd: Systemd,
) -> None:
    host = await attach(systemd)
    assert await host.stays()
    systemd.state = "stopping"
    assert not await host.stays()
    await host.detach()


async def test_an_end_leaves_neither_units_nor_descriptors(systemd: Systemd) -> None:
    store = Store()
    host = await attach(systemd, store)
    await spawn(host)
    await host.end()
    assert not systemd.units
    assert store.dropped


async def test_at_shutdown_the_daemon_does_not_wait_for_units_that_systemd_stops_later(
    systemd: Systemd,
) -> None:
    host = await attach(systemd)
    await spawn(host)
    systemd.state = "stopping"
    await host.end()
    assert not [member for member, _ in systemd.calls if member == "StopUnit"]
