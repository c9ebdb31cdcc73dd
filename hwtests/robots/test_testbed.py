"""The guarantees of the test bed to other tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hwtests.robots import Robot, RobotError, Testbed, host
from hwtests.robots.shell import attempt, wait_until


def test_two_robots_boot_and_keep_their_files_over_a_power_cut(bed: Testbed) -> None:
    one, two = bed.up(2)

    assert one.exec("hostname").strip() == "robot1"
    assert one.exec("cat", "/etc/machine-id") != two.exec("cat", "/etc/machine-id")
    assert one.exec("systemctl", "is-system-running").strip() == "running"
    assert two.exec("ps", "-p", "1", "-o", "comm=").strip() == "systemd"

    one.write("/srv/a/note", "kept")
    one.push(Path("/etc/hostname"), "/srv/b")
    first_boot = one.exec("cat", "/proc/sys/kernel/random/boot_id")
    one.power_cut()
    assert not one.running
    with pytest.raises(RobotError, match="robot1 is off"):
        one.exec("true")
    one.start()
    assert one.exec("cat", "/srv/a/note") == "kept"
    one.reboot()
    one.power_off()
    one.start()
    journal = one.exec("journalctl", "--list-boots", "--quiet").strip().splitlines()
    assert len(journal) == 4
    assert first_boot

    with pytest.raises(RobotError, match="exit code 3\noutput"):
        two.sh("echo output >&2; exit 3")
    assert two.attempt("false").returncode == 1
    with pytest.raises(RobotError, match=r"not done after 0\.2 s"):
        two.exec("sleep", "30", timeout=0.2)


def test_every_network_fault_has_an_effect_and_can_be_undone(bed: Testbed) -> None:
    one, two, three = bed.up(3)

    def reached(source: Robot, target: str) -> bool:
        return source.attempt("ping", "-c1", "-W1", target).returncode == 0

    assert reached(one, "robot2") and reached(one, "fleet")

    bed.network.cut(1)
    assert not reached(one, "robot2")
    assert one.sh("cat /sys/class/net/eth0/carrier").strip() == "0"
    bed.network.repair(1)
    wait_until(lambda: reached(one, "robot2"), "the cable is back")

    bed.network.silent(1)
    assert not reached(one, "robot2")
    assert one.sh("cat /sys/class/net/eth0/carrier").strip() == "1"
    bed.network.repair(1)
    wait_until(lambda: reached(one, "robot2"), "robot 1 is heard again")

    bed.network.split(1, 2)
    assert not reached(one, "robot2")
    assert reached(one, "robot3") and reached(two, "robot3")
    bed.network.repair(2)
    assert reached(one, "robot2")

    bed.network.loss(3, 100)
    assert not reached(one, "robot3")
    bed.network.repair(3)
    bed.network.loss(3, 30)
    output = three.attempt("ping", "-c60", "-i0.002", "-W1", "robot1").stdout
    lost = next(word for word in output.split() if word.endswith("%"))
    assert 20 < float(lost.rstrip("%")) < 80


def test_a_testbed_whose_test_failed_leaves_nothing(robots_possible: None) -> None:
    with pytest.raises(ZeroDivisionError):
        with Testbed() as bed:
            bed.up(1)
            raise ZeroDivisionError
    assert_no_trace(bed.name)


def test_remains_of_a_killed_run_are_removed_by_the_next(robots_possible: None) -> None:
    script = (
        "import time; from hwtests.robots import Testbed\n"
        "with Testbed() as bed:\n    bed.up(1); print('up', flush=True); time.sleep(600)"
    )
    run = subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE, cwd=_project())
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n"
    run.kill()
    run.wait()
    run.stdout.close()
    with Testbed():
        pass
    assert_no_trace(f"dorad-{run.pid}-1")


def assert_no_trace(name: str) -> None:
    """Check that nothing is left of a test bed."""
    assert not (host.FOLDER / "beds" / name).exists()
    assert f"{name}-" not in attempt(["ip", "netns", "list"]).stdout
    assert not (host.cgroup2() / name).exists()
    assert not attempt(["pgrep", "-f", f"{name}-"]).stdout


def _project() -> Path:
    return Path(__file__).parents[2]
