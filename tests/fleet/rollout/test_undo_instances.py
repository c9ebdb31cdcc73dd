"""An undo of one instance: it goes back, the others keep the release, and it is not given again."""

import pytest

from dorad.control.errors import ControlError
from dorafleet.coordinator.deploymentmessages import DeploymentRef
from dorafleet.rollout import messages as r

from .site import ID1 as OLD
from .site import ID2 as NEW
from .site import site, strategy
from .test_cells import CELLS, ID1, ID2, orders, running_cells
from .test_commands import FAST, command_site


async def undo(one, number, *instances, **keys):
    params = r.RolloutAct(rollout=number, instances=list(instances), **keys)
    return await one.fleet.call("rollout.undo", params)


async def second(one, *phases, **keys):
    number = await one.start("pick@2", scope=CELLS, strategy=strategy(max_parallel=2, **keys))
    await one.until(number, *phases)
    return number


async def test_a_cell_goes_back_whole_and_the_other_keeps_the_release(tmp_path):
    async with running_cells(tmp_path) as one:
        number = await second(one, "succeeded")
        await one.until(number, "succeeded", over=True)
        await undo(one, number, "a", reason="grip slips")
        detail = await one.until_state(number, r1="back", r2="back")
        await one.until(number, "succeeded", over=True)
        assert one.running() == {"r1": ID1, "r2": ID1, "r3": ID2, "r4": ID2}
        reasons = {row.robot: row.reason for row in detail.robots}
        assert (reasons["r1"], reasons["r3"]) == ("undone by ann", "")
        # The robots know that an operator has rejected it: they never go back to it by themselves.
        for robot in ("r1", "r2"):
            assert [each.release for each in orders(one, robot)[-1].rejects] == [ID2]
        steps = await one.journal(number)
        assert [each for each in steps if "back" in each or "undo" in each] == [
            "undo r1 r2", "order back r1 r2", "verdict back r1 r2",
        ]  # fmt: skip
        assert not (await one.fleet.call("drift.list")).rows
        (listed,) = (await one.fleet.call("deployment.list")).deployments
        assert {each.instance: each.release for each in listed.instances} == {
            "a": "pick@1", "b": "pick@2",
        }  # fmt: skip

        async def what(name):
            found = await one.fleet.call("deployment.history", DeploymentRef(name=name))
            return [(each.what, each.instances) for each in found.revisions[2:]]

        assert await what("pick") == await what("a/pick") == [("rollout.undo", ["a"])]
        assert await what("b/pick") == []


async def test_a_cell_in_its_probation_goes_back_at_once_and_the_rollout_goes_on(tmp_path):
    async with running_cells(tmp_path) as one:
        for robot in ("r3", "r4"):
            one.agents[robot].releases.fate = "switching"
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(max_parallel=1))
        await one.until_state(number, r1="confirmed", r3="switching", r4="switching")
        await undo(one, number, "b")
        for robot in ("r3", "r4"):
            one.agents[robot].releases.fate = "confirmed"
            one.agents[robot].releases.report("pick", "probation")
        await one.until(number, "succeeded", over=True)
        assert one.running() == {"r1": ID2, "r2": ID2, "r3": ID1, "r4": ID1}


async def test_a_busy_cell_goes_back_when_its_lease_ends(tmp_path):
    async with running_cells(tmp_path) as one:
        number = await second(one, "succeeded")
        one.agents["r2"].releases.lease()
        robot = one.control.robots.get("r2")
        await one.fleet.until(lambda: bool(robot.releases["pick"].leases))
        await undo(one, number, "a")
        assert one.running()["r1"] == ID2
        assert not one.control.rollouts.heads[number].over
        one.agents["r2"].releases.lease(reason=None)
        await one.until_state(number, r1="back", r2="back")


async def test_each_instance_undone_is_a_rollout_undone(tmp_path):
    async with running_cells(tmp_path) as one:
        number = await second(one, "soaking", soak_time=300.0)
        await undo(one, number, "a", "b")
        await one.until(number, "reverted", over=True)
        assert set(one.running().values()) == {ID1}


@pytest.mark.parametrize(
    ("keys", "words", "hint"),
    [
        ({"instances": ["c"]}, "rollout 2 has no instance `c`", None),
        ({"instances": ["r1"]}, "rollout 2 has no instance `r1`", "`r1` is a machine of `a`"),
        ({"instances": ["a"], "all_at_once": True}, "at the pace of their rollout", None),
    ],
)
async def test_what_is_no_instance_of_the_rollout_is_named(tmp_path, keys, words, hint):
    async with running_cells(tmp_path) as one:
        number = await second(one, "succeeded")
        with pytest.raises(ControlError, match=words) as caught:
            await one.fleet.call("rollout.undo", r.RolloutAct(rollout=number, **keys))
        assert hint in (None, caught.value.hint)
        await undo(one, number, "a")
        with pytest.raises(ControlError, match="`a` was undone by ann already"):
            await undo(one, number, "a")


async def test_a_canary_is_not_undone_alone_while_all_depends_on_it(tmp_path):
    async with site(tmp_path, 2) as one:
        one.agents["r1"].releases.fate = "switching"
        number = await one.start("pick@1", strategy=strategy(canary=1))
        await one.until_state(number, r1="switching")
        with pytest.raises(ControlError, match="`r1` is a canary: undo all of it"):
            await undo(one, number, "r1")
        with pytest.raises(ControlError, match="it has not given the release to `r2`"):
            await undo(one, number, "r2")


async def test_the_commands_take_names_of_deployments_and_of_instances(tmp_path, capsys):
    async with command_site(tmp_path, capsys, robots=2) as one:
        for release in ("pick@1", "pick@2"):
            code, _, err = await one.release("rollout", "start", release, *FAST)
            assert code == 0, err
        code, out, err = await one.run("rollout", "undo", "r2/pick", "--reason", "slips")
        assert (code, err) == (0, "")
        row = out.splitlines()[-1].split()
        assert (row[0], row[2], row[5:]) == ("r2", "back", ["undone", "by", "ann"])
        assert one.running() == {"r1": NEW, "r2": OLD}
        code, out, _ = await one.run("rollout", "status", "pick")
        assert (code, "r1" in out, "r2" in out) == (0, True, True)
        code, out, _ = await one.run("rollout", "status", "r2/pick")
        rows = out.splitlines()[-1].split()
        assert (code, rows[0], rows[2]) == (0, "r2", "back")
        code, out, _ = await one.run("history", "r2/pick")
        assert "rollout.undo 2 of r2" in out and "r1" not in out.split("Revision")[0]
        code, out, _ = await one.run("drift", "r2/pick")
        assert (code, out) == (0, "`r2/pick` is in the desired state\n")
        code, out, _ = await one.run("explain", "r2/pick")
        assert (code, "grip    r2" in out) == (0, True)
        code, out, _ = await one.run("explain", "pick")
        assert code == 0 and "rollout 2 is for all robots" in out
        for words, expected, said in (
            (("rollout", "status", "r9/pick"), 1, "rollout 2 has no instance `r9`"),
            (("rollout", "pause", "r2/pick"), 2, "`undo` takes an instance"),
            (("rollout", "status", "a/b/c"), 2, "nor NAME or INSTANCE/NAME"),
            (("rollout", "status", "pock"), 1, "there is no rollout of `pock` yet"),
            (("drift", "pock"), 1, "did you mean `pick`"),
            (("history", "r9/pick"), 1, "there is no deployment `r9/pick`"),
            (("explain", "pick", "grip"), 2, "name one, such as `r1/pick`"),
        ):
            code, _, err = await one.run(*words)
            assert (code, said in err) == (expected, True), (words, err)
