"""A release reaches a robot whose network lets no SSH in."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import CLUSTER, enrolled
from hwtests.fleet.releasing import ALL, Site
from hwtests.robots.effort import only_long
from hwtests.robots.shell import wait_until

SSH = 22
MODEL = "head -c 60000000 /dev/urandom > /root/arm/model.bin"
OWN_WAY = "a connection that the robot opens"

pytestmark = [only_long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Two robots that have confirmed a first release."""
    with enrolled(deb, fleet_deb, 2) as fleet:
        found = Site(fleet)
        found.confirm_first()
        yield found


def fetches(site: Site) -> bool:
    """Return whether the coordinator says that a robot gets its files over its own connection."""
    return f"sends its files over {OWN_WAY}" in str(site.rollout())


def test_a_release_reaches_a_robot_behind_a_wall_over_its_own_connection(site: Site) -> None:
    fleet, arm1 = site.fleet, site.fleet.arm1
    network = fleet.bed.network
    fleet.server.sh(MODEL)
    new = site.build("walled = event")
    site.give_releases()
    network.wall(arm1.number, SSH)
    assert fleet.attempt("exec", CLUSTER, "--only", "arm1", "--", "true").returncode == 1
    site.start_in_background(new, "--robots", "arm1", *ALL)
    try:
        wait_until(
            lambda: "opens" in str(site.rollout()), "the robot fetches", timeout=120, every=0.2
        )
        network.cut(arm1.number)
        time.sleep(2)
        network.repair(arm1.number)
        network.wall(arm1.number, SSH)
        site.wait_until_followed(timeout=240)
        assert site.robot_states() == {"arm1": "confirmed"}, site.describe()
        assert site.one_confirmed("arm1") == new
        assert fleet.attempt("exec", CLUSTER, "--only", "arm1", "--", "true").returncode == 1
        other = site.build("another = event")
        shown = fleet.dorafleet("plan", other, "--robots", "arm1")
        assert f"files over {OWN_WAY}: arm1" in shown
    finally:
        network.repair(arm1.number)
