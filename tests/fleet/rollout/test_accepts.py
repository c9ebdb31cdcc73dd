"""What robots take, by their own files: known before anything is started or ordered there."""

import pytest

from dorad.control.errors import ControlError
from dorad.control.messages.agent import Accepts
from dorafleet.coordinator.messages import Explain
from tests.fleet.control.serving import TALK, leading

from .site import site
from .test_cells import CELLS, cells, orders


async def takes(one, robot, **bounds):
    """Let a robot report what it takes, and wait until the leader knows."""
    agent = one.agents[robot]
    agent.accepts = Accepts(**bounds)
    agent.changed.ring()
    known = one.control.robots.get(robot)
    fleet = getattr(one, "fleet", one)
    await fleet.until(lambda: known.accepts == agent.accepts)


FREE = {"nodes": [{"id": "cam", "path": "c.py"}, {"id": "log", "path": "l.py"}]}


async def verdicts(fleet, **asked):
    explained = await fleet.call("dataflow.explain", Explain(**asked))
    return {
        each.node: {verdict.machine: (verdict.rule, verdict.reason) for verdict in each.verdicts}
        for each in explained.nodes
    }


async def test_nodes_go_only_where_the_file_of_the_machine_allows_them(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        await fleet.agent("arm2")
        await takes(fleet, "arm1", nodes=["demo/log", "other/*"])
        found = await verdicts(fleet, descriptor=FREE, name="demo")
        assert found["cam"]["arm1"] == (
            "accept",
            "`nodes` in [agent] of its dorad.toml does not have `demo/cam`",
        )
        assert found["cam"]["arm2"][0] is None
        assert found["log"]["arm1"][0] is None
        await fleet.start(FREE, name="demo")
        assert fleet.control.fleet.get("demo").placement == {"cam": "arm2", "log": "arm1"}
        # Only what is not bounded is placed there: nothing was sent to be refused.
        await fleet.wait("running", "demo")
        assert [each.dataflow for each in fleet.agents["arm1"].sets] == ["demo"]


async def test_a_start_is_refused_beforehand_if_no_machine_takes_what_is_not_signed(tmp_path):
    async with leading(tmp_path) as fleet:
        for robot in ("arm1", "arm2", "arm3"):
            await fleet.agent(robot)
            await takes(fleet, robot, inline=False)
        with pytest.raises(ControlError, match="no machine takes any") as caught:
            await fleet.start(FREE, name="demo")
        assert "runs only signed releases: `inline = false` in [agent]" in caught.value.problems[0]
        await takes(fleet, "arm2", problem="dorad.toml:3: nonsense")
        found = await verdicts(fleet, descriptor=FREE)
        assert found["cam"]["arm2"] == (
            "accept",
            "it does not say what it takes: dorad.toml:3: nonsense",
        )
        assert fleet.control.fleet.records == []
        # Its file is corrected while it is connected.
        await takes(fleet, "arm2")
        await fleet.start(FREE, name="demo")
        assert set(fleet.control.fleet.get("demo").placement.values()) == {"arm2"}


async def test_machines_are_not_linked_if_the_file_of_one_forbids_it(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        await fleet.agent("arm2")
        for bounds, reason in (
            ({"peers": ["arm3"]}, "`peers` .* does not have `arm1`"),
            ({"networks": ["192.168.0.0/16"]}, "`networks` .* does not have `tls/10.0.0.1:5456`"),
        ):
            await takes(fleet, "arm2", **bounds)
            with pytest.raises(ControlError, match=f"robot `arm2` refuses: {reason}") as caught:
                await fleet.start(TALK)
            assert caught.value.code == "refused"
        assert fleet.agents["arm1"].sets == fleet.agents["arm2"].sets == []
        await takes(fleet, "arm2", peers=["arm1"], networks=["10.0.0.0/24"])
        await fleet.run(TALK)


@pytest.mark.parametrize(
    ("bounds", "keys", "reason"),
    [
        ({"nodes": ["pick/camera"]}, {}, "`nodes` .* does not have `pick/grip`"),
        ({"params": []}, {"params": {"grip/force": 1}}, "`params` .* have `pick/grip`"),
        ({"max_param": 3}, {"params": {"grip/force": 1000}}, "`pick/grip/force` has 4 bytes"),
        ({"problem": "dorad.toml:1: no"}, {}, "does not say what it takes: dorad.toml:1"),
    ],
)
async def test_a_plan_refuses_what_a_robot_would_refuse_and_names_it(
    tmp_path, bounds, keys, reason
):
    async with site(tmp_path, 2) as one:
        await takes(one, "r2", **bounds)
        with pytest.raises(ControlError, match=f"robot `r2` refuses: .*{reason}") as caught:
            await one.plan(**keys)
        assert caught.value.code == "refused"
        assert "leave it out" in caught.value.hint
        # Without it, and with a robot that takes releases alone, all is well.
        await takes(one, "r1", inline=False)
        number = await one.start(robots=["r1"], **keys)
        await one.until(number, "succeeded", over=True)


async def test_nodes_of_a_cell_go_where_they_are_taken_and_its_machines_take_each_other(tmp_path):
    async with cells(tmp_path) as one:
        await takes(one, "r2", peers=["r3"])
        with pytest.raises(ControlError, match=r"robot `r2` refuses: `peers` .* have `r1`"):
            await one.plan(scope=CELLS)
        await takes(one, "r2", nodes=["*/grip"])
        with pytest.raises(
            ControlError, match=r"no machine of `a` takes the node `camera`: .*`nodes`"
        ):
            await one.plan(scope=CELLS)
        await takes(one, "r2", nodes=["pick/camera"], peers=["r*"])
        number = await one.start(scope=CELLS)
        await one.until(number, "succeeded", over=True)
        assert orders(one, "r2")[-1].group.share.placement == {"camera": "r2", "grip": "r1"}
