"""A leader that dies in the middle of a start, a stop or a placement; the next one completes it."""

import asyncio
from contextlib import suppress

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.messages import RobotLabel

from .serving import leading


async def follow(fleet, *agents):
    """Connect agents to another leader; all orders reach them now."""
    for agent in agents:
        await agent.stop()
        agent.deaf = False
        agent.port = fleet.port
        fleet.agents[agent.robot] = agent
        await fleet.connect(agent)


async def cancelled(fleet, call, holds):
    """Begin a call that cannot end, and cancel it once a condition holds."""
    calling = asyncio.create_task(call)
    await fleet.until(holds)
    calling.cancel()
    with suppress(asyncio.CancelledError, ControlError):
        await calling


async def test_a_start_that_one_robot_has_received_runs_on_all(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        arm2.deaf = True
        await cancelled(fleet, fleet.start(), lambda: "talk" in arm1.shares)
        assert arm2.sets == []
    async with leading(tmp_path) as fleet:
        await follow(fleet, arm1, arm2)
        assert (await fleet.wait("running")).uuid == arm1.sets[0].content.uuid
        await fleet.until(
            lambda: {each.shares["talk"].status for each in (arm1, arm2)} == {"running"}
        )
        assert (len(arm1.sets), len(arm2.sets)) == (1, 1)


async def test_a_stop_that_one_robot_has_received_ends_on_all(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
        arm2.deaf = True
        stop = fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        await cancelled(fleet, stop, lambda: arm1.shares["talk"].status == "stopped")
        assert arm2.shares["talk"].status == "running"
    async with leading(tmp_path) as fleet:
        await follow(fleet, arm1, arm2)
        assert (await fleet.wait("ended")).status == "finished"
        assert arm2.shares["talk"].status == "stopped"


async def test_a_node_that_waits_for_a_label_is_placed_by_the_next_leader_and_none_moves(tmp_path):
    there = {"labels": {"zone": "hall"}, "avoid": {"machines": ["arm1"]}}
    nodes = [
        {"id": "here", "path": "one.py", "deploy": {"machine": "arm1"}},
        {"id": "later", "path": "two.py", "deploy": there},
    ]
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run({"nodes": nodes})
        arm2.deaf = True
        label = RobotLabel(robot="arm2", labels={"zone": "hall"})
        await cancelled(fleet, fleet.call("robot.label", label), lambda: arm2.lost)
    async with leading(tmp_path) as fleet:
        await follow(fleet, arm1, arm2)
        await fleet.until(lambda: "talk" in arm2.shares)
        assert arm2.sets[-1].content.share.placement == {"here": "arm1", "later": "arm2"}
        assert {each.content.share.placement["here"] for each in arm1.sets} == {"arm1"}
