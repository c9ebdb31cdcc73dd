"""Upgrades of the package on robots of a fleet, under a dataflow that runs."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import CLUSTER
from hwtests.fleet.releasing import Site, confirmed, version
from hwtests.robots import rootfs
from hwtests.robots.shell import wait_until

JUDGED = ("--min-healthy-time", "3s", "--healthy-deadline", "20s")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Two robots that have confirmed a release."""
    with confirmed(deb, fleet_deb, 2) as found:
        yield found


def test_an_upgrade_restarts_no_node_and_a_broken_package_goes_back_by_itself(
    site: Site, deb: Path, newer_deb: Path, tmp_path: Path
) -> None:
    fleet = site.fleet
    broken = rootfs.newer(
        deb, "99.1.0", tmp_path, {"daemon/main.py": ("def main(", "raise SystemExit\ndef main(")}
    )
    for path, name in ((deb, "old"), (newer_deb, "new"), (broken, "broken")):
        fleet.server.push(path, f"/root/{name}.deb")
    before = {machine: site.pids(machine) for machine in fleet.robots}

    refused = fleet.attempt("upgrade", CLUSTER, "/root/new.deb", *JUDGED, timeout=180)
    assert refused.returncode == 1
    assert "--previous" in refused.stderr
    words = ("upgrade", CLUSTER, "/root/new.deb", "--previous", "/root/old.deb", *JUDGED)
    upgraded = fleet.attempt(*words, timeout=300)
    print(upgraded.stdout)
    assert upgraded.returncode == 0, upgraded.stderr
    for machine, robot in fleet.robots.items():
        assert version(robot) == "99.0.0"
        assert site.pids(machine) == before[machine]
        site.check_untouched(machine, before[machine])

    began = time.monotonic()
    failed = fleet.attempt("upgrade", CLUSTER, "/root/broken.deb", *JUDGED, timeout=400)
    print(failed.stdout, failed.stderr, f"{time.monotonic() - began:.0f} s")
    assert failed.returncode == 1
    assert (
        "arm1  ✗ went back to 99.0.0: dorad does not answer: no dorad is running" in failed.stderr
    )
    for machine, robot in fleet.robots.items():
        assert version(robot) == "99.0.0"
        assert robot.attempt("systemctl", "is-system-running").stdout == "running\n"
        site.check_untouched(machine, before[machine])
        assert site.pids(machine) == before[machine]


def test_an_upgrade_that_a_power_cut_interrupts_ends_with_a_version_that_is_well(
    site: Site,
) -> None:
    arm1 = site.fleet.arm1
    words = ("--quiet", "--collect", "--unit=upgrade", "--setenv=HOME=/root")
    command = ("dorafleet", "upgrade", CLUSTER, "/root/broken.deb", "--only", "arm1", *JUDGED)
    site.fleet.server.exec("systemd-run", *words, *command)
    unpacks = "pgrep -x dpkg >/dev/null && test -e /var/lib/dorad-upgrade/journal.json"
    wait_until(
        lambda: arm1.attempt("sh", "-c", unpacks).returncode == 0,
        "the package is unpacked",
        timeout=90,
        every=0.05,
    )
    arm1.power_cut()
    # The robot decides in its boot, which therefore takes long.
    arm1.switch_on()
    wait_until(lambda: arm1.leader, "it boots", timeout=60)
    ended = ("test", "!", "-e", "/var/lib/dorad-upgrade/journal.json")
    wait_until(lambda: arm1.attempt(*ended).returncode == 0, "it is decided", timeout=240)
    arm1.wait_until_booted()
    result = json.loads(arm1.exec("cat", "/var/lib/dorad-upgrade/result.json"))
    assert (result["outcome"], result["version"]) == ("reverted", version(arm1))
    site.fleet.flows_on(site.flows["arm1"], within=60)
    site.fleet.wait_connected()
    assert site.fleet.attempt("drift").returncode == 0


def test_a_package_that_was_removed_and_is_installed_again_runs_its_agent_and_says_what_does_not(
    site: Site, deb: Path
) -> None:
    """Its nodes ended with the package, as by a stop, and are not started again in this boot."""
    fleet, arm1 = site.fleet, site.fleet.arm1
    fleet.server.push(deb, "/root/again.deb")
    arm1.exec("apt-get", "-qq", "remove", "-y", "dorad", timeout=120)
    assert arm1.attempt("systemctl", "is-active", "dorad-agent").stdout == "inactive\n"
    words = ("install", CLUSTER, "/root/again.deb", "--only", "arm1")
    assert "its agent started" in fleet.dorafleet(*words, timeout=300)
    fleet.wait_connected()
    fleet.wait_for_machine("arm1", lambda known: known["releases"], "it reports its release")
    drift = fleet.attempt("drift")
    assert drift.returncode == 1
    assert "--robots arm1" in drift.stdout
