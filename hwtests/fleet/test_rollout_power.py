"""Robots that lose power at random moments of rollouts run exactly one confirmed release.

TEST_SEED repeats the moments of an earlier run, HWTEST_CHAOS_MINUTES sets how long rollouts and
faults go on.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from dorafleet.rollout.model import FINAL, Phase
from hwtests.fleet.releasing import Site, confirmed
from hwtests.fleet.rolloutchaos import RolloutChaos, settle
from hwtests.robots.effort import times

CUTS = times(4, 20)
ROBOTS = times(4, 10)
MINUTES = float(os.environ.get("HWTEST_CHAOS_MINUTES", times(3, 30)))
CONFIRM_S = 15.0
SETTLED = {*FINAL, "settled", "revert_incomplete"}
"""Phases in which a rollout gives no robot an order that it could carry out now."""


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Robots that have confirmed a first release."""
    with confirmed(deb, fleet_deb, ROBOTS) as found:
        yield found


@pytest.mark.timeout(300 + 90 * CUTS)
def test_after_power_cuts_at_random_moments_of_a_switch_one_confirmed_release_runs(
    site: Site, chance: Random
) -> None:
    rules = ("--robots", "arm1", "--confirm-deadline", f"{CONFIRM_S:g}s")
    undisturbed = site.build("undisturbed = event")
    began = time.monotonic()
    site.start_in_background(undisturbed, *rules)
    # Not the end of the command, which is later: cuts after the switch are no trials.
    site.wait_until_runs("arm1", undisturbed)
    usual = time.monotonic() - began
    site.wait_until_followed()
    arm1, network = site.fleet.arm1, site.fleet.bed.network
    ends: dict[str, int] = {}
    for number in range(CUTS):
        old = site.wait_for_confirmed("arm1")
        new = site.build(f"cut = {number}")
        offline = chance.random() < 0.5
        site.start_in_background(new, *rules)
        moment = chance.uniform(0, usual)
        time.sleep(moment)
        phase = site.state("arm1").get("phase", "none")
        arm1.power_cut()
        if offline:
            network.cut(arm1.number)
        arm1.start()
        # Without a network, too: the robot decides by itself.
        runs = site.wait_for_confirmed("arm1", timeout=CONFIRM_S + 60)
        network.repair(arm1.number)
        assert runs in (old, new)
        site.wait_until_followed(timeout=180)
        assert site.wait_for_confirmed("arm1") in (old, new)
        ended = site.rollout()["summary"]["phase"]
        assert ended in SETTLED
        line = f"cut after {moment:.1f} s in {phase}, {'offline' if offline else 'online'}: "
        print(line + f"{'new' if runs == new else 'old'}, then {ended}")
        ends[ended] = ends.get(ended, 0) + 1
    print(ends)


@pytest.mark.timeout(MINUTES * 60 + 1200)
def test_rollouts_under_loss_and_cuts_end_and_leave_one_confirmed_release_on_each_robot(
    site: Site, chance: Random
) -> None:
    chaos = RolloutChaos(site, chance)
    chaos.run(MINUTES * 60)
    print(chaos.counts)
    site.fleet.wait_connected(timeout=120)
    rollouts = settle(site, timeout=300)
    assert all(each["phase"] in get_args(Phase) for each in rollouts)
    assert all(each["phase"] in SETTLED for each in rollouts), rollouts
    runs = {machine: site.wait_for_confirmed(machine) for machine in site.fleet.robots}
    print(runs)
    for flow in site.flows.values():
        site.fleet.flows_on(flow, within=60)
    assert site.fleet.dorafleet("audit", "verify").startswith("ok")
