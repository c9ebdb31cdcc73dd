"""Rollouts to robots that are busy, full, dead, or in another century; and with Python packages."""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from hwtests.fleet import wheels
from hwtests.fleet.enrolled import CLUSTER, enrolled
from hwtests.fleet.releasing import ALL, CRASH, FOLDER, RELEASES, Site
from hwtests.robots import Robot, RobotError, clock
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until

AGENT = "/var/lib/dorad-agent"
SMALL = """\
systemctl stop dorad-agent
for folder in /var/lib/dorad/releases /var/lib/dorad-agent; do
    cp -a $folder /root/kept
    mount -t tmpfs -o size=48m tmpfs $folder
    cp -a /root/kept/. $folder
    rm -r /root/kept
done
systemctl start dorad-agent
"""
"""Puts what the agent writes on disks of their own, so that only these get full."""
FILLS = times(3, 12)
LATE_CRASH = "import time; time.sleep(8); raise RuntimeError('slips')"
PACKAGES = """\
import numpy, tomli_w
        print(tomli_w.dumps({"numpy": numpy.__version__, "at": numpy.__file__}), flush=True)
        print("tomli_w at", tomli_w.__file__, flush=True)"""
SMALL_CHANGE = 100_000
"""Bytes on the cable for a release with one changed script, of which the files are 1 kB."""
BUSY_S = 5.0
"""Within which a robot switches after its last lease has ended."""


@pytest.fixture(scope="module")
def site(
    robots_possible: None, deb: Path, fleet_deb: Path, wall_clock: Path | None
) -> Iterator[Site]:
    """Three robots that have confirmed a first release. The third one has small disks."""
    with enrolled(deb, fleet_deb, 3, wall_clock) as fleet:
        fleet.robots["arm3"].sh(SMALL)
        fleet.wait_connected()
        found = Site(fleet)
        found.confirm_first()
        yield found


def fill(robot: Robot, folder: str) -> None:
    """Leave no byte of a disk free."""
    robot.sh(f"mountpoint -q {folder}")
    robot.sh(f"! dd if=/dev/zero of={folder}/fill bs=4k 2>/dev/null")


def make_room(robot: Robot) -> None:
    """Undo `fill`."""
    robot.sh(f"rm -f {RELEASES}/fill {AGENT}/fill")


def wait_for_lines(robot: Robot) -> str:
    """Return what the node has printed, once it has."""
    logs = ("dora", "logs", "arm", "--node", "grip", "--tail", "20")
    try:
        wait_until(lambda: robot.attempt(*logs).stdout, "it prints")
    except RobotError:
        print(robot.attempt(*logs), robot.attempt("dora", "node", "list").stdout)
        raise
    return robot.exec(*logs)


def test_python_packages_of_a_release_need_no_pip_and_no_network_on_robots(
    site: Site, tmp_path: Path
) -> None:
    wheels.prepare(site.fleet.server, tmp_path)
    options = ("--python-lock", wheels.LOCK, "--wheels", wheels.FOLDER, "--for", CLUSTER)
    new = site.build(PACKAGES, *options)
    # The third robot is too small for numpy; see the tests of full disks.
    planned = site.fleet.dorafleet("plan", new).splitlines()
    (full,) = [line for line in planned if "too full for the new content" in line]
    assert full.startswith("arm3 ")
    done = site.start(new, *ALL, "--robots", "arm1,arm2")
    assert done.returncode == 0
    for machine in ("arm1", "arm2"):
        robot = site.fleet.robots[machine]
        assert robot.attempt("sh", "-c", "command -v pip pip3").returncode != 0
        printed = wait_for_lines(robot)
        place = f"{RELEASES}/{new}/env/lib/python"
        assert f'numpy = "{wheels.NUMPY}"' in printed
        assert f'at = "{place}' in printed
        assert f"tomli_w at {place}" in printed
    # Of the next release only the script travels, although every robot needs all packages.
    network = site.fleet.bed.network
    before = network.traffic(site.fleet.arm1.number)
    again = site.build(PACKAGES + "  # again", *options)
    pushed = site.fleet.dorafleet("release", "push", again, CLUSTER, "--only", "arm1")
    sent = network.traffic(site.fleet.arm1.number) - before
    print(pushed, f"{sent} bytes on the cable")
    assert sent < SMALL_CHANGE
    # Back to releases without packages, for the other tests.
    assert site.start(site.build("without = event"), *ALL).returncode == 0


def test_a_dataflow_whose_check_says_no_is_not_switched_before_it_says_yes(site: Site) -> None:
    site.fleet.server.write(f"{FOLDER}/is_idle.sh", "#!/bin/sh\ntest ! -e /tmp/holds-a-cup\n")
    site.fleet.server.exec("chmod", "+x", f"{FOLDER}/is_idle.sh")
    head = "safe_to_update: ./is_idle.sh\n"
    assert site.start(site.build("checked = event", head=head), *ALL).returncode == 0
    old = site.running("arm2")
    site.fleet.arm2.write("/tmp/holds-a-cup", "")
    new = site.build("after = 'the cup'", head=head)
    site.start_in_background(new, *ALL)
    site.wait_until_runs("arm1", new)
    site.wait_until_runs("arm3", new)
    state = site.state("arm2")
    assert (state["phase"], state["waiting"], state["running"]) == ("staged", "busy", old)
    assert "safe_to_update exited with code 1" in state["reason"]
    assert "safe_to_update" in site.fleet.attempt("rollout", "status").stdout
    site.fleet.arm2.exec("rm", "/tmp/holds-a-cup")
    site.wait_for_phase("arm2", new, "switching", "probation", "confirmed", timeout=BUSY_S)
    site.wait_until_followed()
    assert site.running("arm2") == new


def test_a_lease_in_the_middle_of_a_rollout_holds_up_only_its_robot(site: Site) -> None:
    arm2 = site.fleet.arm2
    old, new = site.running("arm2"), site.build("busy = 'in the middle'")
    site.start_in_background(
        new, "--canary", "1", "--max-parallel", "2", "--min-healthy-time", "6s"
    )
    site.wait_for_phase("arm1", new, "probation")
    lease = ("dora", "busy", "drives", "--", "sleep", "600")
    arm2.exec("systemd-run", "--quiet", "--collect", "--unit=drive", *lease)
    wait_until(lambda: "drives" in arm2.exec("dora", "busy", "list"), "it is busy")
    site.wait_until_runs("arm1", new)
    site.wait_until_runs("arm3", new)
    site.wait_for_states(arm1="confirmed", arm2="busy", arm3="confirmed")
    assert site.state("arm2")["running"] == old
    # Its holder cannot say that it has ended.
    arm2.exec("systemctl", "kill", "--signal=KILL", "drive")
    site.wait_for_phase("arm2", new, "switching", "probation", "confirmed", timeout=BUSY_S)
    site.wait_until_followed()
    assert site.running("arm2") == new


def test_a_lease_keeps_no_robot_from_going_back(site: Site) -> None:
    arm1, old = site.fleet.arm1, site.running("arm1")
    bad = site.build(LATE_CRASH)
    site.start_in_background(bad, "--robots", "arm1", "--min-healthy-time", "30s")
    site.wait_for_phase("arm1", bad, "probation")
    arm1.exec("dora", "busy", "--ttl", "10m", "stands on one leg")
    site.wait_until_followed()
    assert site.robot_states() == {"arm1": "reverted"}
    assert site.wait_for_confirmed("arm1") == old
    for line in arm1.exec("dora", "busy", "list", "-f", "json").splitlines():
        arm1.exec("dora", "busy", "end", line.split('"id":"')[1].split('"')[0])


def test_a_robot_that_dies_in_its_switch_holds_up_no_other_and_is_judged_when_it_is_back(
    site: Site,
) -> None:
    arm2, old = site.fleet.arm2, site.running("arm2")
    new = site.build("dead = 'in the middle'")
    quick = ("--confirm-deadline", "15s", "--min-healthy-time", "4s")
    site.start_in_background(new, "--canary", "1", "--max-parallel", "1", *quick)
    site.wait_for_phase("arm2", new, "switching", "probation", timeout=90)
    arm2.power_cut()
    site.wait_until_runs("arm3", new, timeout=120)
    site.wait_until_followed()
    found = site.rollout()
    assert site.robot_states() == {"arm1": "confirmed", "arm2": "lost", "arm3": "confirmed"}
    assert found["summary"]["phase"] == "succeeded_partially"
    arm2.start()
    # It has as long as others to reach the coordinator; a slow machine may take longer to boot.
    runs = site.wait_for_confirmed("arm2")
    verdict = {new: "confirmed", old: "reverted"}[runs]
    wait_until(lambda: site.robot_states()["arm2"] == verdict, "its own verdict counts")


def test_a_robot_with_a_full_disk_takes_nothing_and_the_others_continue(site: Site) -> None:
    arm3, old = site.fleet.robots["arm3"], site.wait_for_confirmed("arm3")
    fill(arm3, RELEASES)
    new = site.build("full = 'disk'")
    try:
        failed = site.start(new, *ALL)
        assert failed.returncode == 1
        assert f"{RELEASES} is too full" in failed.stdout + failed.stderr
        site.wait_until_runs("arm1", new)
        site.wait_until_runs("arm2", new)
        assert site.state("arm3")["running"] == site.files("arm3")["grip"] == old
    finally:
        make_room(arm3)
    assert site.start(new, "--robots", "arm3").returncode == 0
    assert site.one_confirmed("arm3") == new


def test_a_disk_that_gets_full_keeps_a_robot_from_switching_but_not_from_going_back(
    site: Site,
) -> None:
    arm3, old = site.fleet.robots["arm3"], site.wait_for_confirmed("arm3")
    bad = site.build(LATE_CRASH + "  # on a full disk")
    site.start_in_background(bad, "--robots", "arm3", "--min-healthy-time", "30s")
    try:
        site.wait_for_phase("arm3", bad, "probation")
        fill(arm3, AGENT)
        fill(arm3, RELEASES)
        site.wait_until_followed()
        assert site.robot_states() == {"arm3": "reverted"}
        assert site.wait_for_confirmed("arm3") == old
        # What cannot be stored is not begun.
        make_room(arm3)
        new = site.build("after = 'the full disk'")
        site.fleet.dorafleet("release", "push", new, CLUSTER, "--only", "arm3")
        fill(arm3, AGENT)
        site.start_in_background(new, "--robots", "arm3")
        wait_until(lambda: site.robot_states() == {"arm3": "pending"}, "it has been ordered")
        assert site.state("arm3")["release"] != new
        assert site.one_confirmed("arm3") == old
    finally:
        make_room(arm3)
    site.wait_until_followed()
    assert site.running("arm3") == new


@pytest.mark.timeout(300 + 120 * FILLS)
def test_a_disk_that_fills_at_any_moment_of_a_rollout_leaves_one_confirmed_release(
    site: Site, chance: Random
) -> None:
    arm3 = site.fleet.robots["arm3"]
    rules = ("--robots", "arm3", "--healthy-deadline", "20s")
    began = time.monotonic()
    assert site.start(site.build("room = 'enough'"), *rules).returncode == 0
    usual = time.monotonic() - began
    for number in range(FILLS):
        old, new = site.wait_for_confirmed("arm3"), site.build(f"filled = {number}")
        site.start_in_background(new, *rules)
        moment = chance.uniform(0, usual)
        time.sleep(moment)
        phase = site.state("arm3").get("phase", "none")
        try:
            fill(arm3, chance.choice((RELEASES, AGENT)))
            runs = site.wait_for_confirmed("arm3")
            assert runs in (old, new)
        finally:
            make_room(arm3)
        site.wait_until_followed()
        ended = site.rollout()["summary"]["phase"]
        print(f"full after {moment:.1f} s in {phase}: {'new' if runs == new else 'old'}, {ended}")
        if ended == "refused":
            assert site.start(new, *rules).returncode == 0
        site.wait_until_runs("arm3", new)
        assert site.one_confirmed("arm3") == new


def test_robots_in_1970_and_in_2100_are_judged_by_a_clock_that_never_steps(site: Site) -> None:
    fleet = site.fleet
    if not fleet.clocks:
        pytest.skip("to set clocks wrong needs a compiler: apt-get install gcc libc6-dev")
    try:
        for machine, year in (("arm1", 1970), ("arm2", 2100)):
            clock.shift_to(fleet.robots[machine], year)
            fleet.robots[machine].exec("systemctl", "restart", "dorad", "dorad-agent")
        fleet.wait_connected()
        new = site.build("any = 'century'")
        assert site.start(new, *ALL).returncode == 0
        # A clock that steps while a release is on probation neither confirms nor reverts it.
        later = site.build("time = 'steps'")
        site.start_in_background(later, "--robots", "arm1", "--min-healthy-time", "6s")
        site.wait_for_phase("arm1", later, "probation")
        clock.shift(fleet.arm1, 1e9)
        assert site.state("arm1")["phase"] == "probation"
        site.wait_until_followed()
        assert site.robot_states() == {"arm1": "confirmed"}
        # A robot in 2100 refuses a key that ended long ago by its clock; the others do not.
        fleet.server.exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/brief")
        trust = ("release", "trust", CLUSTER, "--key", "/root/brief.pub", "--until", "2090-12-31")
        fleet.dorafleet(*trust)
        old, signed = site.running("arm2"), site.build("brief = 'key'", key="/root/brief")
        site.start_in_background(signed, *ALL)
        site.wait_until_runs("arm1", signed)
        site.wait_until_runs("arm3", signed)
        wait_until(lambda: "has expired at 2091-01-01" in site.describe(), "arm2 says why")
        assert site.one_confirmed("arm2") == old
    finally:
        for machine in ("arm1", "arm2"):
            clock.shift(fleet.robots[machine], 0)
            fleet.robots[machine].exec("systemctl", "restart", "dorad", "dorad-agent")


def test_a_crash_on_one_of_three_leaves_one_confirmed_release_on_each(site: Site) -> None:
    before = {machine: site.wait_for_confirmed(machine) for machine in site.fleet.robots}
    failed = site.start(site.build(CRASH), "--canary", "1", "--healthy-deadline", "20s")
    assert failed.returncode == 1
    after = {machine: site.wait_for_confirmed(machine) for machine in site.fleet.robots}
    assert after == before
