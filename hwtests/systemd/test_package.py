"""The package on a robot: install, enable, boot, power cut, upgrade, remove and purge."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.robots import Robot, Testbed
from hwtests.robots.shell import wait_until

UNIT = "dorad.service"
INSTALL = ("apt-get", "-qq", "install", "-y")
KEEPING = Path(__file__).with_name("keeping.py")
STAND_IN = """\
[Service]
Type=notify
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/python3 /opt/keeping.py
"""
EVERYWHERE = "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /tmp -prune -o -print"
"""Files of the package on the robot's disk."""


@pytest.fixture
def plain(bed: Testbed) -> Robot:
    """A robot without the package."""
    return bed.up(1)[0]


@pytest.fixture
def stand_in(robot: Robot) -> Iterator[Robot]:
    """A robot whose dorad.service is enabled and runs the stand-in, as a user would start it."""
    robot.push(KEEPING, "/opt/keeping.py")
    robot.write(f"/etc/systemd/system/{UNIT}.d/stand-in.conf", STAND_IN)
    robot.exec("systemctl", "daemon-reload")
    robot.exec("systemctl", "enable", "--now", UNIT)
    yield robot


def pids(robot: Robot) -> list[str]:
    """Return the pids of all processes recorded in the memory."""
    return robot.exec("cat", "/run/dorad/pids").split()


def main_pid(robot: Robot) -> str:
    return robot.exec("systemctl", "show", "-P", "MainPID", UNIT).strip()


@pytest.mark.robot
def test_installing_enables_and_starts_nothing(plain: Robot, deb: Path) -> None:
    plain.push(deb, "/root/dorad.deb")
    plain.exec(*INSTALL, "/root/dorad.deb", timeout=300)

    assert plain.attempt("systemctl", "is-enabled", UNIT).stdout.strip() == "disabled"
    assert plain.attempt("systemctl", "is-active", UNIT).stdout.strip() == "inactive"
    for program in ("dora", "dorad"):
        *_, version, plane = plain.exec(program, "--version").splitlines()
        assert version.startswith("dorad ")
        assert plane == "data plane: native"
    assert "dorad-node" in plain.exec("getent", "passwd", "dorad-node")
    assert plain.exec("getent", "group", "dorad")
    assert plain.exec("stat", "-c", "%a %U", "/run/dorad").split() == ["755", "root"]
    imports = "import dora, dorad, pyarrow.parquet, pyarrow.compute, pyarrow.ipc, numpy"
    plain.exec("/usr/lib/dorad/bin/python3", "-c", imports)
    size = plain.exec("dpkg-query", "-W", "-f", "${Installed-Size}", "dorad")
    assert int(size) < 290 * 1024


@pytest.mark.robot
def test_purging_leaves_nothing(plain: Robot, deb: Path) -> None:
    plain.push(deb, "/root/dorad.deb")
    before = set(plain.sh(EVERYWHERE, timeout=120).splitlines())
    accounts = plain.exec("getent", "passwd") + plain.exec("getent", "group")
    plain.exec(*INSTALL, "/root/dorad.deb", timeout=300)
    plain.push(KEEPING, "/tmp/keeping.py")
    drop_in = STAND_IN.replace("/opt/", "/tmp/")
    plain.write(f"/run/systemd/system/{UNIT}.d/stand-in.conf", drop_in)
    plain.exec("systemctl", "daemon-reload")
    plain.exec("systemctl", "enable", "--now", UNIT)
    plain.write("/etc/dorad/dorad.toml", "")
    plain.write("/var/lib/dorad/state.db", "")
    plain.exec("systemd-run", "--slice=dorad.slice", "--unit=dorad-some-node", "sleep", "1000")
    plain.exec("dora", "--help")

    plain.exec("apt-get", "-qq", "purge", "-y", "dorad", timeout=120)

    assert plain.attempt("systemctl", "is-active", "dorad-some-node").stdout.strip() != "active"
    plain.exec("rm", "-r", f"/run/systemd/system/{UNIT}.d")
    left = set(plain.sh(EVERYWHERE, timeout=120).splitlines()) - before
    mine = [path for path in left if "dora" in path]
    assert mine == []
    others = ("/var/lib/dpkg/", "/var/log/", "/var/lib/apt/", "/var/cache/", "/etc/", "/var/lib/")
    assert [path for path in left if not path.startswith(others)] == []
    assert plain.exec("getent", "passwd") + plain.exec("getent", "group") == accounts
    assert plain.attempt("systemctl", "status", UNIT).returncode == 4


def test_an_enabled_daemon_runs_after_a_reboot_and_after_a_power_cut(stand_in: Robot) -> None:
    assert pids(stand_in) == [main_pid(stand_in)]
    stand_in.reboot()
    assert stand_in.exec("systemctl", "is-active", UNIT).strip() == "active"
    stand_in.power_cut()
    stand_in.start()
    assert stand_in.exec("systemctl", "is-active", UNIT).strip() == "active"
    assert pids(stand_in) == [main_pid(stand_in)]
    assert stand_in.exec("systemctl", "show", "-P", "Slice", UNIT).strip() == "dorad.slice"


def test_descriptors_outlive_kill_restart_stop_and_reload(stand_in: Robot) -> None:
    expected = [main_pid(stand_in)]

    def expect_restart() -> None:
        wait_until(
            lambda: (
                main_pid(stand_in) not in ("0", *expected) and len(pids(stand_in)) > len(expected)
            ),
            "the daemon runs again",
        )
        expected.append(main_pid(stand_in))
        assert pids(stand_in) == expected

    stand_in.exec("kill", "-KILL", expected[-1])
    expect_restart()
    stand_in.exec("systemctl", "restart", UNIT)
    expect_restart()
    stand_in.exec("systemctl", "stop", UNIT)
    stand_in.exec("systemctl", "daemon-reload")
    stand_in.exec("systemctl", "start", UNIT)
    expect_restart()
    stand_in.exec("systemctl", "daemon-reexec")
    stand_in.exec("systemctl", "restart", UNIT)
    expect_restart()


def test_an_upgrade_restarts_the_daemon_and_keeps_descriptors_and_nodes(
    stand_in: Robot, newer_deb: Path
) -> None:
    before = pids(stand_in)
    node = ["systemd-run", "--slice=dorad.slice", "--unit=dorad-some-node", "sleep", "1000"]
    stand_in.exec(*node)
    node_pid = stand_in.exec("systemctl", "show", "-P", "MainPID", "dorad-some-node")
    stand_in.push(newer_deb, "/root/newer.deb")

    stand_in.exec(*INSTALL, "/root/newer.deb", timeout=300)

    assert stand_in.exec("dpkg-query", "-W", "-f", "${Version}", "dorad") == "99.0.0"
    assert pids(stand_in) == [*before, main_pid(stand_in)]
    assert stand_in.exec("systemctl", "show", "-P", "MainPID", "dorad-some-node") == node_pid
    assert stand_in.exec("systemctl", "is-enabled", UNIT).strip() == "enabled"
    journal = stand_in.exec("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")
    assert "Failed" not in journal


def test_an_upgrade_does_not_start_a_stopped_daemon(robot: Robot, newer_deb: Path) -> None:
    robot.push(newer_deb, "/root/newer.deb")
    robot.exec(*INSTALL, "/root/newer.deb", timeout=300)
    assert robot.attempt("systemctl", "is-active", UNIT).stdout.strip() == "inactive"
    assert robot.attempt("systemctl", "is-enabled", UNIT).stdout.strip() == "disabled"


def test_the_unit_is_sandboxed(robot: Robot) -> None:
    threshold = ["--threshold=20", "--no-pager"]
    robot.exec("systemd-analyze", "security", *threshold, UNIT)
    robot.exec("systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{UNIT}")


def test_completions_and_manual_pages_are_installed(deb: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-c", deb], capture_output=True, text=True, check=True)
    for path in (
        "bash-completion/completions/dora",
        "zsh/vendor-completions/_dora",
        "fish/vendor_completions.d/dora.fish",
        "man/man1/dora.1.gz",
        "man/man8/dorad.8.gz",
        "doc/dorad/copyright",
    ):
        assert f"./usr/share/{path}\n" in listed.stdout


@pytest.mark.robot
def test_the_daemon_itself_is_ready_in_its_sandbox_and_open_to_its_group(robot: Robot) -> None:
    robot.exec("systemctl", "enable", "--now", UNIT)
    assert robot.exec("systemctl", "is-active", UNIT).strip() == "active"
    robot.exec("useradd", "--groups", "dorad", "robin")
    robot.exec("runuser", "-u", "robin", "--", "dora", "list")
    stranger = robot.attempt("runuser", "-u", "nobody", "--", "dora", "list")
    assert stranger.returncode == 1
    capabilities = robot.sh(f"grep CapBnd /proc/{main_pid(robot)}/status").split()[1]
    assert int(capabilities, 16) == 1 << 14 | 1 << 23, "CAP_IPC_LOCK and CAP_SYS_NICE"
    journal = robot.exec("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")
    assert "not permitted" not in journal
    assert "ERROR" not in journal
