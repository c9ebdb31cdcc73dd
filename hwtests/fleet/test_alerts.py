"""Alerts of robots that run a release: a slow output is one, a boot is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hwtests.fleet.releasing import Site, confirmed
from hwtests.robots.shell import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEARN_S = 80
"""Seconds after which a robot knows the usual rate of an output, with time to spare."""


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Two robots that have confirmed a first release."""
    with confirmed(deb, fleet_deb, 2) as found:
        yield found


def alerts(site: Site, *options: str) -> list[dict[str, Any]]:
    """Return the alerts of the fleet."""
    words = ("alerts", "--json", "--coordinator-addr", "127.0.0.1", *options)
    found: list[dict[str, Any]] = json.loads(site.fleet.dorafleet(*words))
    return found


def usual(site: Site, machine: str) -> bool:
    """Return whether a robot knows the usual rate of `count`."""
    state = site.fleet.robots[machine].sh(
        'python3 -c "import sqlite3; print(*sqlite3.connect('
        "'file:/var/lib/dorad/state.db?mode=ro', uri=True)"
        ".execute('SELECT snapshot FROM dataflow'))\""
    )
    return '"usual":50' in state or '"usual":49' in state


@pytest.mark.timeout(400)
def test_an_output_that_stops_is_one_alert_that_ends_when_it_goes_on(site: Site) -> None:
    assert alerts(site) == []
    wait_until(lambda: usual(site, "arm1"), "the rate is known", timeout=LEARN_S)
    pid = site.pids("arm1")["count"]
    site.fleet.arm1.exec("kill", "-STOP", str(pid))
    wait_until(lambda: alerts(site), "the alert is there", timeout=40)
    (alert,) = alerts(site)
    assert (alert["robots"], alert["node"], alert["cause"]) == (["arm1"], "count", "output-slow")
    assert alert["text"].startswith("count/number 0.0/s, was ")
    site.fleet.arm1.exec("kill", "-CONT", str(pid))
    wait_until(lambda: not alerts(site), "the alert is over", timeout=40)


@pytest.mark.timeout(400)
def test_a_robot_that_boots_after_a_power_cut_raises_no_alert_about_its_dataflow(
    site: Site,
) -> None:
    before = {each["id"] for each in alerts(site, "--past")}
    site.fleet.arm1.power_cut()
    site.fleet.arm1.start()
    site.fleet.wait_connected()
    wait_until(lambda: site.pids("arm1").keys() >= {"count", "grip"}, "it runs", timeout=60)
    wait_until(lambda: not alerts(site), "all is well", timeout=60)
    new = [each for each in alerts(site, "--past") if each["id"] not in before]
    assert [each for each in new if each["cause"] not in ("unreachable", "daemon-away")] == []
