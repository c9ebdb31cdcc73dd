"""The daemon is restarted, killed, stopped and upgraded under a dataflow that shows any loss."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hwtests.robots import Robot, rootfs
from hwtests.robots.effort import only_long, times
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

BEFORE_S = float(times(5, 10))
AFTER_S = float(times(3, 4))
ROUNDS = times(2, 10)


def ready(robot: Robot) -> bool:
    return robot.attempt("systemctl", "is-active", "dorad").stdout.strip() == "active"


def restart(robot: Robot) -> None:
    robot.exec("systemctl", "restart", "dorad")


def kill(robot: Robot) -> None:
    robot.exec("systemctl", "kill", "--signal=KILL", "dorad")


def stop(robot: Robot) -> None:
    robot.sh("systemctl stop dorad; sleep 5; systemctl start dorad")


@pytest.fixture
def loaded(robot: Robot) -> Robot:
    """A robot whose dataflow has run for a while."""
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot)
    load.start(robot)
    return robot


def check_no_loss(robot: Robot, title: str, disturb: Callable[[], object], rounds: int = 1) -> None:
    """Disturb the daemon, and check that no node was restarted and nothing lost."""
    pids = robot.sh(load.PIDS)
    assert pids.count("ExecMainPID") == 5
    time.sleep(BEFORE_S)
    begun = time.time()
    for _ in range(rounds):
        disturb()
        wait_until(lambda: ready(robot), "dorad is there again")
        time.sleep(AFTER_S)
    ended = time.time()
    assert robot.sh(load.PIDS) == pids
    for sink in ("counter", "viewer"):
        before = load.passed(robot, sink, begun - BEFORE_S, begun)
        during = load.passed(robot, sink, begun, ended)
        print(load.explain(f"{title}: {sink}", before, during))
        assert (during.missing, during.broken) == (0, 0)
        assert before.pids == during.pids
    robot.exec("dora", "stop", load.NAME)
    numbers = load.lines(robot)
    print(f"  {len(numbers)} lines")
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("disturb", [restart, kill, pytest.param(stop, marks=only_long)])
def test_nothing_is_lost_while_the_daemon_is_away(
    loaded: Robot, disturb: Callable[[Robot], None]
) -> None:
    rounds = 1 if disturb is stop else ROUNDS
    check_no_loss(loaded, f"{rounds} x {disturb.__name__}", lambda: disturb(loaded), rounds)


@pytest.mark.robot
def test_nothing_is_lost_by_an_upgrade(loaded: Robot, newer_deb: Path) -> None:
    loaded.push(newer_deb, "/root/newer.deb")
    check_no_loss(
        loaded,
        "upgrade",
        lambda: loaded.exec("apt-get", "-qq", "install", "-y", "/root/newer.deb", timeout=300),
    )


def test_a_new_format_of_shared_memory_restarts_nodes_with_a_notice(
    loaded: Robot, deb: Path, tmp_path: Path
) -> None:
    lines = "VERSION = PROTOCOL_VERSION\nOLDEST = OLDEST_PROTOCOL\n"
    other = {"node/protocol.py": (lines, "VERSION = OLDEST = 1002\n")}
    loaded.push(rootfs.newer(deb, "100.0.0", tmp_path, other), "/root/other.deb")
    before = set(loaded.sh(load.PIDS).splitlines())
    loaded.exec("apt-get", "-qq", "install", "-y", "/root/other.deb", timeout=300)
    wait_until(lambda: "Running" in loaded.attempt("dora", "list").stdout, "it runs again")
    assert "another format of shared memory" in loaded.exec("dora", "status")
    wait_until(lambda: loaded.sh(load.PIDS).count("ExecMainPID") == 5, "five nodes are there")
    after = loaded.sh(load.PIDS).splitlines()
    assert not {line for line in after if line.startswith("ExecMainPID")} & before
    known = len(load.rows(loaded, "counter"))
    wait_until(lambda: len(load.rows(loaded, "counter")) > known, "messages arrive")
    assert load.rows(loaded, "counter")[-1]["broken"] == 0


def reload(robot: Robot) -> None:
    robot.exec("systemctl", "daemon-reload")


def reexec(robot: Robot) -> None:
    robot.exec("systemctl", "daemon-reexec")


def kill_dbus(robot: Robot) -> None:
    robot.exec("systemctl", "kill", "--signal=KILL", "dbus")


@pytest.mark.parametrize(
    "disturb",
    [reexec, pytest.param(reload, marks=only_long), pytest.param(kill_dbus, marks=only_long)],
)
def test_nothing_is_lost_when_dbus_or_systemd_restart(
    loaded: Robot, disturb: Callable[[Robot], None]
) -> None:
    check_no_loss(loaded, disturb.__name__, lambda: disturb(loaded))
