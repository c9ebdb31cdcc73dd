"""The black box of a dataflow that releases bring to robots with the package."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import enrolled
from hwtests.fleet.releasing import ALL, CRASH, Site
from hwtests.robots.shell import wait_until

BOX = "record: {keep: 60s}\n"
FOLDER = "/var/lib/dorad/recordings/arm"


@pytest.fixture
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Two robots that trust the operator."""
    with enrolled(deb, fleet_deb, 2) as fleet:
        found = Site(fleet)
        found.trust()
        yield found


def notes(site: Site, *words: str) -> dict[str, list[str]]:
    """Return the notes of the incidents that the coordinator knows, by robot."""
    found: dict[str, list[str]] = {}
    listed = site.fleet.dora("record", "incidents", "--format", "json", *words)
    for line in listed.splitlines():
        each = json.loads(line)
        found.setdefault(each["machine"], []).append(each["note"])
    return found


def test_it_records_goes_on_over_releases_and_its_incidents_are_listed_and_copied(
    site: Site,
) -> None:
    first = site.build("first = event", head=BOX)
    started = site.start(first, *ALL)
    assert started.returncode == 0, started.stderr
    arm1 = site.fleet.arm1
    wait_until(lambda: arm1.sh(f"ls {FOLDER}/ring 2>/dev/null || true") != "", "it records")
    recorder = site.pids("arm1")
    site.fleet.dora("record", "mark", "-d", "arm", "--note", "by hand", "--after", "0s")
    wait_until(
        lambda: notes(site) == {"arm1": ["by hand"], "arm2": ["by hand"]},
        "both robots have the incident",
    )
    # A release whose node fails: the box of before goes on, and has kept the failure.
    failed = site.start(site.build(CRASH, head=BOX), "--healthy-deadline", "20s")
    assert failed.returncode == 1
    site.wait_until_runs("arm1", first)
    site.check_untouched("arm1", recorder)
    wait_until(lambda: len(notes(site)["arm1"]) > 1, "the failure is an incident")
    known = notes(site)
    assert "grip" in known["arm1"][1]
    assert known["arm2"] == ["by hand"]
    (incident,) = (
        json.loads(line)["id"]
        for line in site.fleet.dora(
            "record", "incidents", "-d", "arm1/arm", "--format", "json"
        ).splitlines()
        if json.loads(line)["note"] == "by hand"
    )
    server = site.fleet.server
    # scp has to know a robot by its name in the fleet.
    server.write("/root/.ssh/config", "Host arm1\n  HostName 198.18.0.11\n")
    wanted = ("-d", "arm1/arm", "--export", incident, "-o", "/root/hand.mcap")
    site.fleet.dora("record", "incidents", *wanted)
    copied = server.exec("dora", "record", "info", "/root/hand.mcap", "--format", "json")
    assert json.loads(copied)["topics"]["count/number"]["messages"] > 0
    # A power cut costs no incident, and the box goes on after the boot.
    arm1.power_cut()
    arm1.start()
    site.fleet.wait_connected()
    wait_until(lambda: notes(site) == known, "the incidents are still there")
