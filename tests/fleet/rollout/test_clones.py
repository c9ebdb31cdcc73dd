"""A copy of a robot's disk in the middle of a rollout: only the first machine's reports count."""

import pytest

from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.test_clones import CLONE, FIRST, refused

from .site import ID1, ID2, site, strategy

ONE_BY_ONE = strategy(canary=1, max_parallel=1)


async def clone_of(one, robot):
    """Return a copy that claims to have confirmed everything that it is asked for."""
    found = FakeAgent(robot, one.fleet.port, **CLONE | {"machine_id": "f" * 32})
    found.releases.runs("pick", ID2, 2)
    await refused(found)
    return found


async def shown(one, robot):
    return {each.id: each for each in (await one.fleet.call("robot.list")).robots}[robot]


async def with_origins(one, count):
    for number in range(1, count + 1):
        await one.fleet.agent(
            f"r{number}", **FIRST | {"machine_id": str(number) * 32, "host": f"127.0.1.{number}"}
        )


@pytest.mark.parametrize("robot", ["r1", "r2"], ids=["canary", "later"])
@pytest.mark.parametrize("fate", ["confirmed", "reverted"])
async def test_a_copy_that_comes_in_the_middle_of_a_switch_decides_nothing(tmp_path, robot, fate):
    async with site(tmp_path, 3, connect=False) as one:
        await with_origins(one, 3)
        await one.runs(ID1)
        first = one.agents[robot]
        first.releases.fate = "switching"
        number = await one.start("pick@2", strategy=ONE_BY_ONE)
        await one.until_state(number, **{robot: "switching"})
        clone = await clone_of(one, robot)
        for _ in range(3):
            await refused(clone)
            (row,) = [each for each in (await one.status(number)).robots if each.robot == robot]
            assert row.state == "switching", "the copy has confirmed for the robot"
        assert first.connected
        assert clone.releases.orders == []
        assert "two machines" in (text := (await shown(one, robot)).clone) or "came first" in text
        first.releases.finish(fate)
        ends = {"confirmed": ("succeeded",), "reverted": ("reverted", "succeeded_partially")}
        detail = await one.until(number, *ends[fate], "failed")
        states = {each.robot: each.state for each in detail.robots}
        assert states[robot] == fate
        assert clone.releases.orders == []


@pytest.mark.parametrize("robot", ["r1", "r2"], ids=["canary", "later"])
async def test_a_copy_does_not_confirm_for_a_robot_that_is_cut_off(tmp_path, robot):
    """The robot is lost in time, or comes back and tells its own end."""
    async with site(tmp_path, 3, connect=False) as one:
        await with_origins(one, 3)
        await one.runs(ID1)
        first = one.agents[robot]
        first.releases.fate = "switching"
        number = await one.start("pick@2", strategy=ONE_BY_ONE)
        await one.until_state(number, **{robot: "switching"})
        await one.fleet.disconnect(first)
        clone = await clone_of(one, robot)
        await refused(clone)
        detail = await one.status(number)
        (row,) = [each for each in detail.robots if each.robot == robot]
        assert row.state not in ("confirmed", "reverted", "back")
        assert detail.summary.phase in ("canary", "rolling")
        assert (await shown(one, robot)).state == "unreachable"
        assert "127.0.0.2" in (await shown(one, robot)).clone
        first.releases.finish("confirmed")
        await one.fleet.connect(first)
        detail = await one.until(number, "succeeded")
        assert {each.state for each in detail.robots} == {"confirmed"}
        assert clone.releases.orders == []
        assert set(one.running().values()) == {ID2}
