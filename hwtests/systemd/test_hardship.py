"""Robots with a full or read-only disk, without D-Bus, and without systemd."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hwtests.robots import Robot
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

FLOW = """\
nodes:
  - id: talker
    path: talker.py
    inputs: {tick: dora/timer/millis/100}
"""
DISK = "/var/lib/dorad"
SMALL = f"""\
mountpoint -q {DISK} && exit 1
mkdir /root/state && cp -a {DISK}/. /root/state
mount -t tmpfs -o size=4m,mode=755 tmpfs {DISK}
cp -a /root/state/. {DISK}
"""
"""Puts the state on a disk of its own, so that only this one gets full."""
FULL = f"mountpoint -q {DISK} && ! dd if=/dev/zero of={DISK}/fill bs=4k 2>/dev/null"


@pytest.fixture
def enabled(robot: Robot) -> Robot:
    """A robot with an enabled dataflow, whose daemon has been stopped."""
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW)
    robot.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach", "--enable")
    robot.exec("dora", "stop", "load")
    robot.exec("systemctl", "stop", "dorad")
    robot.sh(SMALL)
    # As after a boot.
    robot.sh("rm -f /run/dorad/booted")
    return robot


def pid(robot: Robot) -> str:
    return robot.exec("systemctl", "show", "-P", "ExecMainPID", "dorad-load-talker-*").strip()


def running(robot: Robot) -> bool:
    return "Running" in robot.attempt("dora", "list").stdout


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_dataflows_run_although_the_disk_cannot_be_written(enabled: Robot, how: str) -> None:
    enabled.sh(f"rm -f {DISK}/state.db-shm")
    enabled.sh(FULL if how == "full" else f"mount -o remount,ro {DISK}")
    enabled.exec("systemctl", "start", "dorad")
    wait_until(lambda: running(enabled), "what was enabled runs")
    before = pid(enabled)
    output = enabled.exec("dora", "status")
    assert f"{DISK}/state.db cannot be" in output or "cannot be written" in output
    enabled.exec("systemctl", "restart", "dorad")
    enabled.exec("systemctl", "kill", "--signal=KILL", "dorad")
    wait_until(lambda: running(enabled), "it is taken over")
    assert pid(enabled) == before
    assert enabled.exec("find", DISK, "-name", "*unusable*") == ""

    enabled.sh(f"rm {DISK}/fill" if how == "full" else f"mount -o remount,rw {DISK}")
    enabled.exec("systemctl", "restart", "dorad")
    assert running(enabled)
    assert pid(enabled) == before
    assert "cannot be" not in enabled.exec("dora", "status")
    enabled.exec("test", "!", "-e", "/run/dorad/state.db")


def restart(robot: Robot) -> None:
    robot.exec("systemctl", "restart", "dorad")


def kill(robot: Robot) -> None:
    robot.exec("systemctl", "kill", "--signal=KILL", "dorad")


def upgrade(robot: Robot) -> None:
    robot.exec("apt-get", "-qq", "install", "-y", "/root/newer.deb", timeout=300)


def pids(robot: Robot) -> list[str]:
    """Return the processes of all nodes."""
    shown = robot.sh("systemctl show --property=ExecMainPID 'dorad-*-talker-*' | sort")
    return shown.split()


@pytest.mark.parametrize("disturb", [restart, kill, upgrade])
def test_nodes_outlive_a_restart_whatever_happened_since_the_disk_got_full(
    enabled: Robot, disturb: Callable[[Robot], None], newer_deb: Path
) -> None:
    """Also those that were started or restarted on the full disk."""
    enabled.push(newer_deb, "/root/newer.deb")
    enabled.exec("systemctl", "start", "dorad")
    wait_until(lambda: running(enabled), "what was enabled runs")
    enabled.sh(FULL)
    enabled.exec("dora", "node", "restart", "-d", "load", "talker")
    enabled.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", "other", "--detach")
    wait_until(lambda: "line 3" in enabled.exec("dora", "logs", "other"), "the other one runs")
    before = pids(enabled)
    assert len(set(before)) == 2
    disturb(enabled)
    wait_until(lambda: enabled.attempt("dora", "list").stdout.count("Running") == 2, "both run")
    assert pids(enabled) == before
    # And a stop is obeyed at once.
    enabled.exec("dora", "stop", "load")
    # Nodes that are killed have failed.
    forced = enabled.attempt("dora", "stop", "other", "--force")
    assert forced.returncode == 1
    assert "was killed because the dataflow was stopped by force" in forced.stderr
    assert not running(enabled)
    disturb(enabled)
    wait_until(lambda: enabled.attempt("dora", "list").returncode == 0, "dorad is there")
    assert not running(enabled)
    enabled.sh(f"rm {DISK}/fill")
    spare = ("test", "!", "-e", "/run/dorad/state.db")
    wait_until(lambda: enabled.attempt(*spare).returncode == 0, "the state is on the disk again")
    assert f"state: {DISK}/state.db" in enabled.exec("dora", "status")


def test_a_disk_is_reported_before_it_is_full(enabled: Robot) -> None:
    enabled.exec("systemctl", "start", "dorad")
    wait_until(lambda: running(enabled), "what was enabled runs")
    assert f"PASS  disk: {DISK} has room" in enabled.attempt("dora", "doctor").stdout
    enabled.sh(f"df --output=avail -k {DISK} | tail -1 >/root/free")
    fill = f"dd if=/dev/zero of={DISK}/fill bs=1k count=$(($(cat /root/free) - %d)) 2>/dev/null"
    enabled.sh(fill % 300)
    low = enabled.attempt("dora", "doctor")
    assert f"WARN  disk: the disk of {DISK} has " in low.stdout
    enabled.sh(fill % 20)
    full = enabled.attempt("dora", "doctor")
    assert full.returncode == 1
    assert f"FAIL  disk: the disk of {DISK} has " in full.stdout


def test_without_dbus_no_node_runs_and_all_continue_once_it_is_back(
    enabled: Robot,
) -> None:
    buses = ("dbus.service", "dbus.socket")
    enabled.exec("systemctl", "mask", "--now", "--runtime", *buses)
    enabled.exec("systemctl", "start", "dorad")
    refused = enabled.attempt("dora", "start", f"{load.FOLDER}/load.yml", "--detach")
    assert refused.returncode == 1
    assert "D-Bus is not available" in refused.stderr
    assert "nodes would run as root" in refused.stderr
    assert "D-Bus is not available" in enabled.exec("dora", "status")
    assert "nodes cannot be started" in enabled.attempt("dora", "doctor").stdout
    assert "D-Bus is not available" in enabled.exec(
        "systemctl", "show", "-P", "StatusText", "dorad"
    )
    assert enabled.attempt("pgrep", "-f", "talker.py").returncode == 1
    enabled.exec("systemctl", "unmask", "--runtime", *buses)
    enabled.exec("systemctl", "start", "dbus.socket")
    wait_until(lambda: running(enabled), "what was enabled runs")
    assert "dorad-node" in enabled.exec("ps", "-o", "user:20=", "-p", pid(enabled))


def test_without_dbus_nodes_run_as_root_if_the_configuration_allows_it(enabled: Robot) -> None:
    enabled.write("/etc/dorad/dorad.toml", '[nodes]\nuser = "root"\n')
    enabled.exec("systemctl", "mask", "--now", "--runtime", "dbus.service", "dbus.socket")
    enabled.exec("systemctl", "start", "dorad")
    wait_until(lambda: running(enabled), "the dataflow runs")
    status = enabled.exec("systemctl", "show", "-P", "StatusText", "dorad")
    assert "not units of systemd" in status
    assert "talker.py" in enabled.exec("systemd-cgls", "--no-pager", "/dorad.slice/dorad.service")


def test_without_systemd_nodes_are_plain_processes_with_a_notice(enabled: Robot) -> None:
    places = ("--runtime-dir", "/run/plain", "--state-dir", "/root/plain")
    enabled.sh(f"setsid dorad --system {' '.join(places)} >/root/output 2>&1 &")
    dora = ("env", "DORA_SOCKET=/run/plain/control.sock", "dora")
    wait_until(lambda: enabled.attempt(*dora, "list").returncode == 0, "the daemon is there")
    enabled.exec(*dora, "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach")
    wait_until(lambda: "Running" in enabled.attempt(*dora, "list").stdout, "the dataflow runs")
    assert "systemd does not run this dorad" in enabled.exec(*dora, "status")
    assert "systemd does not run this dorad" in enabled.exec("cat", "/root/output")
    enabled.exec(*dora, "down", "--force")
    assert enabled.attempt("pgrep", "-f", "talker.py").returncode == 1
