"""Verbs in states that they are not made for: each does what it says, or is refused with words."""

import asyncio

import pytest

from dorad.control.errors import ControlError
from dorafleet.coordinator.membermessages import RobotRemove
from dorafleet.coordinator.messages import RobotLabel

from .site import ID1, ID2, site, strategy
from .test_soak import FAILED

ALL_AT_ONCE = strategy(canary=0, max_parallel=3)


async def test_an_undo_cannot_be_undone_and_the_release_can_be_started_again(tmp_path):
    async with site(tmp_path) as one:
        first = await one.start("pick@1", strategy=ALL_AT_ONCE)
        await one.until(first, "succeeded")
        second = await one.start("pick@2", strategy=ALL_AT_ONCE)
        await one.until(second, "succeeded")
        await one.act("undo", second)
        await one.until(second, "reverted")
        with pytest.raises(ControlError, match="it is reverted"):
            await one.act("undo", second)
        assert set(one.running().values()) == {ID1}
        third = await one.start("pick@2", strategy=ALL_AT_ONCE)
        await one.until(third, "succeeded")
        assert set(one.running().values()) == {ID2}


async def test_a_rollout_that_another_one_has_replaced_cannot_be_undone(tmp_path):
    async with site(tmp_path) as one:
        first = await one.start("pick@1", strategy=ALL_AT_ONCE)
        await one.until(first, "succeeded", over=True)
        second = await one.start("pick@2", strategy=ALL_AT_ONCE)
        await one.until(second, "succeeded", over=True)
        before = one.switches()
        with pytest.raises(ControlError, match="is not the newest of `pick`, which is 2"):
            await one.act("undo", first)
        assert set(one.running().values()) == {ID2}
        assert one.switches() == before


@pytest.mark.parametrize("act", ["abort", "undo"])
async def test_a_rollout_ends_by_command_although_a_robot_left_in_its_switch(tmp_path, act):
    async with site(tmp_path) as one:
        await one.runs(ID1)
        one.agents["r2"].releases.fate = "switching"
        number = await one.start("pick@2", strategy=ALL_AT_ONCE)
        await one.until_state(number, r1="confirmed", r2="switching", r3="confirmed")
        await one.fleet.call("robot.remove", RobotRemove(robot="r2", lost=True))
        await one.act(act, number)
        detail = await one.until(number, "aborted" if act == "abort" else "reverted", over=True)
        states = {row.robot: row.state for row in detail.robots}
        left = "confirmed" if act == "abort" else "back"
        assert states == {"r1": left, "r2": "removed", "r3": left}


@pytest.mark.parametrize("act", ["pause", "abort"])
async def test_after_a_failure_a_retry_is_paused_and_ended_like_any_rollout(tmp_path, act):
    async with site(tmp_path, 2) as one:
        await one.runs(ID1)
        one.agents["r1"].releases.fate = "reverted"
        number = await one.start("pick@2", strategy=strategy(canary=1))
        await one.until(number, "reverted", over=True)
        with pytest.raises(ControlError, match="--retry"):
            await one.start("pick@2", robots=["r1"])
        one.agents["r1"].releases.fate = "switching"
        number = await one.start("pick@2", strategy=strategy(canary=1), retry=True)
        await one.until_state(number, r1="switching")
        await one.act(act, number)
        one.agents["r1"].releases.finish("confirmed")
        if act == "pause":
            await one.until_state(number, r1="confirmed", r2="waiting")
            assert one.running()["r2"] == ID1
            await one.act("resume", number)
            await one.until(number, "succeeded", over=True)
            assert set(one.running().values()) == {ID2}
        else:
            await one.until(number, "aborted", over=True)
            assert one.running() == {"r1": ID2, "r2": ID1}


@pytest.mark.parametrize("acts", [("undo", "abort"), ("abort", "undo"), ("undo", "undo")])
async def test_of_two_operators_who_act_at_once_the_undo_wins_whoever_was_first(tmp_path, acts):
    async with site(tmp_path) as one:
        await one.runs(ID1)
        one.agents["r2"].releases.fate = "switching"
        number = await one.start("pick@2", strategy=strategy(canary=0, max_parallel=2))
        await one.until_state(number, r1="confirmed", r2="switching")
        done = await asyncio.gather(*(one.act(act, number) for act in acts), return_exceptions=True)
        refused = [each for each in done if isinstance(each, ControlError)]
        assert [each.code for each in refused] == ["refused"] * (acts[0] == "undo")
        one.agents["r2"].releases.fate = "confirmed"
        one.agents["r2"].releases.finish("confirmed")
        detail = await one.until(number, "reverted", over=True)
        assert {row.state for row in detail.robots} == {"back"}
        assert set(one.running().values()) == {ID1}


async def test_new_labels_in_a_soak_neither_free_a_robot_from_it_nor_bring_another_one_in(tmp_path):
    zones = {"r1": {"zone": "hall"}, "r2": {"zone": "hall"}, "r3": {"zone": "yard"}}
    async with site(tmp_path, 3, zones) as one:
        await one.runs(ID1)
        soaks = strategy(canary=0, max_parallel=2, failure_threshold=2, soak_time=600.0)
        number = await one.start("pick@2", labels={"zone": "hall"}, strategy=soaks)
        await one.until(number, "soaking")
        for robot, zone in (("r1", "yard"), ("r2", None), ("r3", "hall")):
            await one.fleet.call("robot.label", RobotLabel(robot=robot, labels={"zone": zone}))
        one.agents["r1"].releases.report("pick", "confirmed", failed=FAILED)
        await one.until_state(number, r1="failed", r2="confirmed")
        assert one.running()["r3"] == ID1
        assert one.switches()["r3"] == []
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        assert set(one.running().values()) == {ID1}
