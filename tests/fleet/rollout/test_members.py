"""Robots leave the fleet, and change their labels, in the middle of a rollout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorafleet.coordinator.membermessages import RobotAdd, RobotRemove
from dorafleet.coordinator.members import sent_of
from dorafleet.coordinator.messages import RobotLabel
from dorafleet.rollout.model import Member, Seen
from dorafleet.rollout.strategy import Strategy
from dorafleet.rollout.verdicts import judge

from .site import ID1, machines, site, strategy
from .test_cells import CELLS, ID2, orders, running_cells


def remove(one, robot):
    return one.fleet.call("robot.remove", RobotRemove(robot=robot, lost=True))


def states(detail):
    return {row.robot: row.state for row in detail.robots}


@pytest.mark.parametrize("moment", ["waiting", "staged", "switching", "confirmed"])
async def test_a_rollout_goes_on_without_a_robot_that_is_removed(tmp_path, moment):
    async with site(tmp_path, 3) as one:
        two = one.agents["r2"].releases
        if moment == "staged":
            two.has_files = False
        if moment == "switching":
            two.fate = "switching"
        limits = strategy(canary=1, max_parallel=1, auto_promote=moment != "waiting")
        number = await one.start(strategy=limits)
        if moment == "waiting":
            await one.until(number, "awaiting_promotion")
        elif moment == "staged":
            await one.until_waiting(number, r2="files")
        else:
            await one.until_state(number, r2=moment)
        await remove(one, "r2")
        if moment == "waiting":
            await one.act("promote", number)
        detail = await one.until(number, "succeeded", over=True)
        assert states(detail) == {
            "r1": "confirmed",
            "r2": "confirmed" if moment == "confirmed" else "removed",
            "r3": "confirmed",
        }
        # It comes back, blank: an undo asks nothing of it.
        await one.fleet.call("robot.add", RobotAdd(machine=sent_of(machines(3)[1])))
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        assert one.running()["r1"] == one.running()["r3"] == ""


@pytest.mark.long
async def test_a_removed_robot_does_not_hold_up_an_undo(tmp_path):
    async with site(tmp_path, 3) as one:
        number = await one.start(strategy=strategy(max_parallel=3))
        await one.until(number, "succeeded", over=True)
        await one.agents["r2"].stop()
        await one.act("undo", number)
        await one.until(number, "revert_incomplete")
        await remove(one, "r2")
        detail = await one.until(number, "reverted", over=True)
        assert (states(detail)["r1"], states(detail)["r2"]) == ("back", "confirmed")


async def test_a_rollout_whose_canary_or_whose_every_robot_is_removed_ends(tmp_path):
    async with site(tmp_path, 3) as one:
        for agent in one.agents.values():
            agent.releases.has_files = False
        number = await one.start(strategy=strategy(canary=1))
        await one.until_waiting(number, r1="files")
        await remove(one, "r1")
        detail = await one.until(number, "refused", over=True)
        assert "its canaries were removed from the fleet" in detail.summary.reason
        number = await one.start(strategy=strategy(canary=0, max_parallel=2))
        await one.until_waiting(number, r2="files")
        await remove(one, "r2")
        await remove(one, "r3")
        detail = await one.until(number, "refused", over=True)
        assert "all its robots were removed from the fleet" in detail.summary.reason


async def test_a_robot_with_a_finding_is_passed_over_between_its_removal_and_its_last_row(tmp_path):
    async with site(tmp_path, 2) as one:
        overview = one.control.overview
        await one.agents["r2"].stop()
        await one.fleet.until(lambda: "r2" in overview.rows and overview.rows["r2"].findings)
        # Its row stays until its connection is closed, and others look at all rows meanwhile.
        one.control.robots.remove("r2")
        overview.look()
        assert overview.rows.keys() == {"r1", "r2"}
        await overview.forget("r2")
        overview.look()
        assert overview.rows.keys() == {"r1"}


async def test_a_cell_that_loses_a_machine_before_its_commit_goes_back_as_a_whole(tmp_path):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.fate = "switching"
        one.agents["r2"].releases.bad = {ID2}
        number = await one.start("pick@2", scope=CELLS)
        await one.until_state(number, r1="probation", r2="switching")
        await remove(one, "r2")
        detail = await one.until(number, "reverted", over=True)
        assert (states(detail)["r1"], states(detail)["r2"]) == ("back", "lost")
        assert "order commit r1 r2" not in await one.journal(number)
        assert not any(order.release == ID2 for order in orders(one, "r3"))


async def test_a_label_that_changes_during_a_rollout_changes_no_instance_of_it(tmp_path):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.has_files = False
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(max_parallel=2))
        await one.until_waiting(number, r2="files")
        await one.fleet.call("robot.label", RobotLabel(robot="r2", labels={"cell": "b"}))
        one.agents["r2"].releases.get_files("pick")
        detail = await one.until(number, "succeeded", over=True)
        assert {row.robot: row.instance for row in detail.robots}["r2"] == "a"
        assert orders(one, "r2")[-1].group.instance == "a"


async def test_what_a_release_did_on_a_removed_robot_says_nothing_of_the_next_of_its_name(tmp_path):
    async with site(tmp_path, 2) as one:
        one.agents["r2"].releases.fate = "reverted"
        number = await one.start(strategy=strategy(canary=0, max_parallel=1, failure_threshold=2))
        await one.until_state(number, r2="reverted")
        await one.fleet.until(lambda: one.control.rollouts.failed_before("pick", "r2", ID1))
        await remove(one, "r2")
        await one.fleet.call("robot.add", RobotAdd(machine=sent_of(machines(2)[1])))
        assert not one.control.rollouts.failed_before("pick", "r2", ID1)
        assert not (await one.fleet.store.get("rollout-failed/")).entries


@given(
    st.sampled_from(["", "stage", "switch", "recall", "back"]),
    st.sampled_from(["", "confirmed", "reverted", "lost", "failed", "back"]),
    st.sampled_from(["", "cell"]),
    st.booleans(),
)
def test_a_removed_robot_gets_one_verdict_and_fails_only_an_open_instance(
    order, verdict, instance, committed
):
    member = Member("r1", 0, order=order, verdict=verdict, instance=instance, committed=committed)
    judged = judge(member, Seen(owned=False, removed=True), "x", Strategy())
    if verdict:
        assert judged is None
    else:
        fails = instance and not committed and order != "back"
        assert judged.verdict == ("lost" if fails else "removed")
        assert judged.reason == "it was removed from the fleet"
