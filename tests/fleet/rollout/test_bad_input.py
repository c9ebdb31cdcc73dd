"""What fleets are given by mistake is refused or shown, with what, where, and the next step."""

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.membermessages import RobotRemove
from dorafleet.coordinator.messages import Explain, RobotLabel
from tests.fleet.control.serving import leading

from .site import Site, strategy
from .test_cells import CELLS, ID1, ID2, LABELS, cells, orders, run_first, running_cells
from .test_devices import VIDEO, release, two_robots

STARTED = {"nodes": [{"id": "a", "path": "a.py", "deploy": {"machine": "r1"}}]}


async def label(one, robot, **labels):
    await one.fleet.call("robot.label", RobotLabel(robot=robot, labels=labels))


async def refused(one, *args, **keys):
    with pytest.raises(ControlError) as caught:
        await one.plan(*args, **keys)
    assert caught.value.hint, caught.value
    return caught.value


@pytest.mark.parametrize(("value", "there"), [("A", "is `A`"), (None, None)])
async def test_machines_of_a_cell_that_disagree_about_its_label(tmp_path, value, there):
    async with cells(tmp_path) as one:
        await label(one, "r2", cell=value)
        await label(one, "r4", role="spare")
        error = await refused(one, scope=CELLS)
        assert error.message.startswith(
            "no machine of `a` takes the node `camera`: `r1`: its label"
        )
        there = f"its label `cell` {there}" if there else "it has no label `cell`"
        assert error.hint == (
            f"`r2` would, but {there}: `dorafleet labels r2 cell=a` if it belongs there"
        )


async def test_a_label_that_disappears_during_a_rollout_moves_nothing_and_is_explained(tmp_path):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.fate = "switching"
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(canary=1))
        await one.until_state(number, r2="switching")
        await label(one, "r2", cell=None)
        rows = (await one.fleet.call("dataflow.explain", Explain(dataflow="pick"))).robots
        assert (rows[1].robot, rows[1].instance) == ("r2", "a")
        assert rows[1].reason.endswith(
            "its label `cell` was `a` and is gone: the next rollout places anew"
        )
        one.agents["r2"].releases.finish("confirmed")
        await one.until(number, "succeeded", over=True)
        assert set(one.running().values()) == {ID2}
        error = await refused(one, "pick@1", scope=CELLS, allow_lower=True)
        assert "no machine of `a` takes the node `camera`" in error.message
        assert "`dorafleet labels r2 cell=a`" in error.hint


async def test_an_instance_all_of_whose_machines_are_given_up(tmp_path):
    async with running_cells(tmp_path, 2) as one:
        for robot in ("r1", "r2"):
            await one.fleet.disconnect(one.agents[robot])
        error = await refused(one, "pick@2", scope=CELLS, lost=["r1", "r2"])
        assert error.message == "instance `a` has no machine: all of `r1`, `r2` are given up"


async def test_an_instance_whose_machines_left_the_fleet_is_listed_no_more(tmp_path):
    async with running_cells(tmp_path) as one:
        for robot in ("r1", "r2"):
            await one.agents[robot].stop()
            await one.fleet.call("robot.remove", RobotRemove(robot=robot, lost=True))
        (listed,) = (await one.fleet.call("deployment.list")).deployments
        assert [each.instance for each in listed.instances] == ["b"]
        with pytest.raises(ControlError, match="no instance `a/pick`; there are: b/pick") as caught:
            await one.fleet.call("node.list", m.Ref(dataflow="a/pick"))
        assert caught.value.hint


async def test_a_release_without_a_target_for_one_machine_of_the_cell(tmp_path):
    async with cells(tmp_path, connect=False) as one:
        for robot in LABELS:
            agent = await one.fleet.agent(robot)
            if robot == "r2":
                await agent.stop()
                agent.arch = "aarch64"
                await one.fleet.connect(agent)
        attached = one.control.robots.get("r2")
        await one.fleet.until(lambda: attached.attached and attached.attached.arch == "aarch64")
        error = await refused(one, scope=CELLS)
        assert error.message.startswith("robot `r2` of `a`: it is for ")
        assert error.hint == "add it: dorafleet release build --target"
        assert set(one.running().values()) == {""}


async def test_two_deployments_that_want_one_device_in_a_cell(tmp_path):
    async with two_robots(tmp_path) as one:
        await one.register(release("look", "eye", VIDEO), release("pick", "camera", VIDEO))
        number = await one.start("look@1")
        await one.until(number, "succeeded", over=True)
        error = await refused(one, "pick@1", scope="one")
        assert f"`r1`: `look:eye` uses its `{VIDEO}`" in error.message
        assert error.hint == "stop there what uses it, or give the node another machine"


async def test_two_deployments_that_want_one_name(tmp_path):
    async with cells(tmp_path) as one:
        await one.fleet.start(STARTED, name="pick")
        error = await refused(one, scope=CELLS)
        assert error.message.startswith("`pick` was started by hand on r1")
        assert error.hint == "`dora stop pick` first"
        await one.fleet.call("dataflow.stop", m.Stop(dataflow="pick"))
        await run_first(one)
        with pytest.raises(ControlError, match="`pick` on `r1` belongs to the release") as caught:
            await one.fleet.start(STARTED, name="pick")
        assert caught.value.hint == "choose another name with --name"


async def test_a_generation_that_nobody_gave_is_named_and_a_new_term_brings_the_robot_back(
    tmp_path,
):
    async with running_cells(tmp_path) as one:
        forged = {"generation": 1 << 40, "epoch": one.control.fleet.writer.epoch}
        one.agents["r3"].releases.report("pick", "confirmed", **forged)
        robot = one.control.robots.get("r3")
        await one.fleet.until(lambda: robot.strange)
        words = (
            f"generation {1 << 40}; the last that was given is {orders(one, 'r3')[-1].generation}"
        )
        (row,) = (await one.fleet.call("drift.list")).rows
        assert (row.robot, row.instance, row.what) == ("r3", "b/pick", "order")
        assert words in row.found
        assert "restart the coordinator" in row.way_back
        listed = {each.id: each for each in (await one.fleet.call("robot.list")).robots}
        (finding,) = listed["r3"].findings
        assert (finding.cause, finding.severity) == ("order-unknown", "fail")
        assert words in finding.text and "dorafleet robot remove r3 --lost" in finding.hint
        # The other cell gets its release; the row of the robot says why its own waits.
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(max_parallel=2))
        await one.until_state(number, r1="confirmed", r2="confirmed")
        await one.until_reason(number, "r3", "that nobody gave")
        assert one.running() == {"r1": ID2, "r2": ID2, "r3": ID1, "r4": ID1}
        machines = list(one.control.robots.machines.values())
        agents = one.agents
    async with leading(tmp_path, machines) as fleet:
        again = Site(fleet)
        again.agents = fleet.agents = agents
        for agent in agents.values():
            agent.port = fleet.port
            await fleet.connect(agent)
        await again.until_reason(number, "r3", "that nobody gave")
        number = await again.start("pick@2", scope=CELLS, retry=True, supersede=True)
        await again.until(number, "succeeded", over=True)
        assert set(again.running().values()) == {ID2}
        assert not (await fleet.call("drift.list")).rows
