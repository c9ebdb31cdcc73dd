"""Releases over several machines, with the real protocol: a cell changes as one."""

from contextlib import asynccontextmanager

import msgspec
import pytest

from dorad.control.errors import ControlError
from dorad.control.messages import Ref
from dorad.release.manifest import Place, encode, id_of
from dorafleet.coordinator.deployments import Deployment
from dorafleet.coordinator.onerobot import plain
from dorafleet.rollout.strategy import Budget
from tests.fleet.coordinator.test_verdicts import record as any_record

from .site import RULES, manifest, site, strategy

pytestmark = pytest.mark.long

LABELS = {
    "r1": {"cell": "a", "role": "arm"},
    "r2": {"cell": "a", "role": "cam"},
    "r3": {"cell": "b", "role": "arm"},
    "r4": {"cell": "b", "role": "cam"},
}
PLACES = {"camera": Place(labels={"role": "cam"}), "grip": Place(labels={"role": "arm"})}


def cell_release(sequence, **places):
    """Return a release whose camera and gripper run on different machines."""
    found = manifest(sequence)
    wanted = {**PLACES, **places}
    nodes = {
        name: msgspec.structs.replace(node, place=wanted.get(name), inputs={})
        for name, node in found.nodes.items()
    }
    return msgspec.structs.replace(found, format=2, nodes=nodes)


ONE, TWO = cell_release(1), cell_release(2)
ID1, ID2 = (id_of(encode(each)) for each in (ONE, TWO))
CELLS = "each:cell"


@asynccontextmanager
async def cells(folder, robots=4, **keys):
    async with site(folder, robots, LABELS, register=False, **keys) as one:
        await one.register(ONE, TWO)
        yield one


async def run_first(one):
    number = await one.start(scope=CELLS, strategy=strategy(max_parallel=2))
    await one.until(number, "succeeded", over=True)


@asynccontextmanager
async def running_cells(folder, robots=4, **keys):
    async with cells(folder, robots, **keys) as one:
        await run_first(one)
        yield one


def orders(one, robot):
    return one.agents[robot].releases.orders


async def test_a_machine_that_loses_its_last_node_leaves_the_cell(tmp_path):
    moved = cell_release(3, camera=Place(labels={"role": "arm"}))
    later = cell_release(4, camera=Place(labels={"role": "arm"}))
    async with cells(tmp_path) as one:
        await one.register(moved, later)
        await run_first(one)
        plan = await one.plan("pick@3")
        rows = {row.robot: row for row in plan.robots}
        assert "no node is left on it: it leaves `a`" in rows["r2"].note
        assert (rows["r2"].instance, rows["r2"].nodes) == ("a", [])
        with pytest.raises(ControlError, match="`r2` cannot be given up: it can be reached"):
            await one.plan("pick@3", lost=["r2"])
        number = await one.start("pick@3")
        detail = await one.until(number, "succeeded", over=True)
        reasons = {row.robot: row.reason for row in detail.robots if row.reason}
        assert reasons == dict.fromkeys(
            ("r2", "r4"), "it has left its instance: no node is placed on it"
        )
        # It ran on while the others got ready, stopped with their switch, forgot it at the commit.
        last = [(each.release, each.enabled) for each in orders(one, "r2")[-3:]]
        assert last == [(ID1, True), (ID1, False), (None, False)]
        assert orders(one, "r2")[-2].resume_after == RULES.confirm_deadline
        await one.fleet.until(lambda: not one.agents["r2"].releases.states["pick"].running)
        # The next rollout is for the others alone.
        plan = await one.plan("pick@4", robots=["r1"])
        assert [row.robot for row in plan.robots if row.batch is not None] == ["r1"]


async def test_a_machine_that_is_away_is_given_up_and_told_when_it_is_back(tmp_path):
    moved = cell_release(3, camera=Place(labels={"role": "arm"}))
    async with cells(tmp_path, 2) as one:
        await one.register(moved)
        await run_first(one)
        await one.fleet.disconnect(one.agents["r2"])
        number = await one.start("pick@3", lost=["r2"])
        detail = await one.until(number, "succeeded", over=True)
        row = next(row for row in detail.robots if row.robot == "r2")
        assert (row.state, row.reason) == (
            "removed", "it was given up, and leaves its instance when it is back",
        )  # fmt: skip
        await one.fleet.connect(one.agents["r2"])
        await one.fleet.until(lambda: not one.agents["r2"].releases.states["pick"].running)
        assert orders(one, "r2")[-1].release is None


async def test_the_canary_is_a_cell_and_its_machines_are_committed_together(tmp_path):
    async with cells(tmp_path) as one:
        number = await one.start(scope=CELLS, strategy=strategy(canary=1, max_parallel=1))
        detail = await one.until(number, "succeeded", over=True)
        steps = await one.journal(number)
        assert {row.robot: row.instance for row in detail.robots} == {
            "r1": "a", "r2": "a", "r3": "b", "r4": "b",
        }  # fmt: skip
        groups = {robot: orders(one, robot)[-1].group for robot in LABELS}
    changes = [
        each for each in steps if each.startswith(("order arm", "order switch", "order commit"))
    ]
    assert changes == [
        "order arm r1 r2", "order switch r1 r2", "order commit r1 r2",
        "order arm r3 r4", "order switch r3 r4", "order commit r3 r4",
    ]  # fmt: skip
    assert groups["r1"].share.placement == {"camera": "r2", "grip": "r1"}
    assert groups["r3"].share.placement == {"camera": "r4", "grip": "r3"}
    assert groups["r1"].uuid == groups["r2"].uuid != groups["r3"].uuid
    # Of two machines the later one connects to the earlier one.
    assert groups["r2"].share.connect == ["tls/10.0.0.1:5456"]


async def test_placement_ports_and_run_stay_from_release_to_release(tmp_path):
    async with running_cells(tmp_path) as one:
        before = {robot: orders(one, robot)[-1].group for robot in LABELS}
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(max_parallel=2))
        await one.until(number, "succeeded", over=True)
        assert {robot: orders(one, robot)[-1].group for robot in LABELS} == before
        with pytest.raises(ControlError, match="all 4 robots have it already"):
            await one.plan("pick@2", scope=CELLS)


async def test_one_machine_that_refuses_keeps_its_cell_from_switching(tmp_path):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.refusal = "no room on its disk"
        number = await one.start("pick@2", scope=CELLS)
        await one.until(number, "refused", over=True)
        assert set(one.running().values()) == {ID1}
        assert one.switches()["r1"] == [ID1]
        assert not any(order.switch and order.release == ID2 for order in orders(one, "r1"))


async def test_one_machine_that_reverts_takes_its_cell_back_and_touches_no_other(
    tmp_path,
):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.fate = "switching"
        one.agents["r2"].releases.bad = {ID2}
        number = await one.start("pick@2", scope=CELLS)
        await one.until_state(number, r1="probation", r2="switching")
        assert "order commit r1 r2" not in await one.journal(number)
        one.agents["r2"].releases.finish("reverted")
        detail = await one.until(number, "reverted", over=True)
        assert set(one.running().values()) == {ID1}
        assert {robot: len(found) for robot, found in one.switches().items()} == {
            "r1": 2, "r2": 2, "r3": 1, "r4": 1,
        }  # fmt: skip
        row = next(each for each in detail.robots if each.robot == "r1")
        assert row.state == "back"
        assert "`r2`" in detail.summary.reason


async def test_one_machine_that_fails_after_the_commit_takes_its_cell_back(tmp_path):
    async with running_cells(tmp_path) as one:
        keys = strategy(soak_time=60.0, auto_promote=False)
        number = await one.start("pick@2", scope=CELLS, strategy=keys)
        await one.until(number, "awaiting_promotion")
        releases = one.agents["r2"].releases
        releases.report("pick", "confirmed", failed={"camera": "has failed"})
        await one.until(number, "reverted", over=True)
        assert set(one.running().values()) == {ID1}
        assert one.switches()["r3"] == [ID1]


async def test_a_cell_that_fails_within_the_threshold_goes_back_whole_and_the_others_stay(tmp_path):
    async with running_cells(tmp_path) as one:
        keys = strategy(soak_time=60.0, canary=0, max_parallel=2, failure_threshold=1)
        number = await one.start("pick@2", scope=CELLS, strategy=keys)
        await one.until(number, "soaking")
        releases = one.agents["r2"].releases
        releases.report("pick", "confirmed", failed={"camera": "has failed"})
        await one.fleet.until(
            lambda: all(orders(one, robot)[-1].withdraw for robot in ("r1", "r2"))
        )
        assert not any(order.withdraw for order in orders(one, "r3"))


async def test_nothing_is_switched_while_a_machine_of_the_cell_is_off(tmp_path):
    async with cells(tmp_path, connect=False) as one:
        await one.connect("r1", "r3", "r4")
        number = await one.start(scope=CELLS, robots=["r1", "r2"])
        detail = await one.until_waiting(number, r1="machines", r2="unreachable")
        assert detail.summary.state == "canary, waiting (machines)"
        await one.connect("r2")
        await one.until(number, "succeeded", over=True)
        assert one.running() == {"r1": ID1, "r2": ID1, "r3": "", "r4": ""}


async def test_a_busy_machine_keeps_the_whole_cell(tmp_path):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.lease()
        number = await one.start("pick@2", scope=CELLS, robots=["r1", "r2"])
        await one.until_waiting(number, r1="busy", r2="busy")
        assert one.running()["r1"] == ID1
        one.agents["r2"].releases.lease(reason=None)
        await one.until(number, "succeeded", over=True)
        assert {one.running()[robot] for robot in ("r1", "r2")} == {ID2}


async def test_an_undo_of_two_cells_brings_all_machines_back(tmp_path):
    async with running_cells(tmp_path) as one:
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(max_parallel=2))
        await one.until(number, "succeeded", over=True)
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        assert set(one.running().values()) == {ID1}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"scope": "each:zone"}, "no robot has a label `zone`"),
        (
            {"scope": CELLS, "robots": ["r1", "r3", "r4"]},
            "no machine of `a` takes the node `camera`",
        ),
        (
            {
                "scope": CELLS,
                "strategy": strategy(disruption_budget=Budget(group_by="cell", max_unavailable=1)),
            },
            "max_unavailable 1 is less than the 2 machines of `",
        ),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(tmp_path, keys, words):
    async with cells(tmp_path) as one:
        with pytest.raises(ControlError) as caught:
            await one.plan(**keys)
        assert words in caught.value.message
        assert set(one.running().values()) == {""}


async def test_a_machine_that_runs_it_with_others_is_not_torn_from_them(tmp_path):
    async with running_cells(tmp_path) as one:
        with pytest.raises(ControlError, match="`r1` runs it together with `r2`"):
            await one.plan("pick@2", robots=["r1"])


async def test_software_that_knows_no_groups_is_named_with_the_way_out(tmp_path):
    async with cells(tmp_path, connect=False) as one:
        agent = await one.fleet.agent("r1")
        await agent.stop()
        agent.groups = False
        await agent.start()
        robot = one.control.robots.get("r1")
        await one.fleet.until(lambda: robot.attached is not None and not robot.attached.groups)
        with pytest.raises(
            ControlError, match="the software of `r1` cannot switch together"
        ) as error:
            await one.plan(scope=CELLS)
        assert error.value.hint == "`dorafleet upgrade r1`"


async def test_a_plan_shows_instances_and_where_each_node_goes(tmp_path):
    async with cells(tmp_path) as one:
        plan = await one.plan(scope="one", strategy=strategy(rules=RULES))
        found = {row.robot: (row.instance, row.nodes) for row in plan.robots}
    # One instance over all machines; its two nodes need two of them.
    assert found["r1"] == ("pick", ["grip"])
    assert found["r2"] == ("pick", ["camera"])
    assert [row.note for row in plan.robots if row.batch is None] == ["no node is placed on it"] * 2


async def test_a_manifest_that_does_not_say_where_nodes_run_is_refused(tmp_path):
    async with site(tmp_path, 4, LABELS) as one:
        with pytest.raises(ControlError, match="was built for dorad before") as caught:
            await one.plan(scope=CELLS)
        assert caught.value.hint == "build it again, without --min-dorad"


async def test_a_machine_that_was_away_at_the_commit_is_shown_as_split(tmp_path):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.fate = "switching"
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(canary=0, max_parallel=2))
        await one.until_state(number, r1="probation", r2="switching")
        releases = one.agents["r2"].releases
        releases.finish("confirmed")  # it is healthy, and says so
        releases.trouble = ControlError("unavailable", "its disk is full")
        row = await one.until_reason(number, "r2", "split")
        assert row.reason.startswith("split: r1 confirmed it, this machine follows")
        releases.trouble = None
        await one.until(number, "succeeded", over=True)


async def test_an_instance_is_found_by_its_name_and_the_release_by_its_own_if_it_is_the_only_one(
    tmp_path,
):
    async with running_cells(tmp_path) as one:
        fleet = one.control.fleet
        first, second = fleet.find("a/pick"), fleet.find("b/pick")
        assert (first.robots, second.robots) == (("r1", "r2"), ("r3", "r4"))
        assert first.placement == {"grip": "r1", "camera": "r2"}
        assert fleet.find(first.uuid) == first
        with pytest.raises(ControlError, match="no dataflow is named 'pick'; there are: a/pick"):
            fleet.find("pick")
        with pytest.raises(ControlError, match="2 instances of `pick` run: a/pick, b/pick"):
            await one.fleet.call("dataflow.info", Ref(dataflow="pick"))


async def test_a_robot_that_claims_to_be_of_another_cell_changes_nothing_there(tmp_path):
    async with running_cells(tmp_path) as one:
        state = one.agents["r3"].releases.states["pick"]
        other = one.agents["r1"].releases.states["pick"].group
        share = msgspec.structs.replace(
            other.share, machine="r3", placement=dict.fromkeys(other.share.placement, "r3")
        )
        forged = msgspec.structs.replace(other, share=share)
        one.agents["r3"].releases.report("pick", state.phase, group=forged, generation=1 << 40)
        robot = one.control.robots.get("r3")
        await one.fleet.until(lambda: robot.releases["pick"].group == forged)
        assert one.control.fleet.find("a/pick").placement == {"grip": "r1", "camera": "r2"}
        assert (await one.plan("pick@2", scope=CELLS, robots=["r1", "r2"])).robots


async def test_a_machine_that_has_it_already_does_not_keep_its_cell_from_the_commit(tmp_path):
    async with running_cells(tmp_path) as one:
        group = orders(one, "r1")[-1].group
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(max_parallel=2))
        await one.until(number, "succeeded", over=True)
        # r1 runs it, and r2 has lost a node of it: the same release again, for its sake.
        one.agents["r2"].releases.report("pick", "confirmed", ended={"camera": "was stopped"})
        robot = one.control.robots.get("r2")
        await one.fleet.until(lambda: bool(robot.releases["pick"].ended))
        one.agents["r2"].releases.states["pick"].running = ID1  # it starts again
        number = await one.start("pick@2", scope=CELLS, retry=True)
        await one.until(number, "succeeded", over=True)
        assert orders(one, "r1")[-1].group == group


async def test_drift_names_the_command_for_the_whole_cell(tmp_path):
    async with running_cells(tmp_path) as one:
        one.agents["r2"].releases.report("pick", "confirmed", ended={"camera": "was stopped"})
        robot = one.control.robots.get("r2")
        await one.fleet.until(lambda: bool(robot.releases["pick"].ended))
        rows = (await one.fleet.call("drift.list")).rows
    (row,) = [each for each in rows if each.what == "node"]
    assert (row.robot, row.instance) == ("r2", "a/pick")
    again = "dorafleet rollout start pick@1 --robots r1,r2 --scope each:cell"
    assert row.way_back.startswith(f"{again} starts them again")


async def test_a_later_rollout_has_the_scope_with_which_robots_run_it_unless_it_names_one(tmp_path):
    async with running_cells(tmp_path) as one:
        found = {row.robot: row.instance for row in (await one.plan("pick@2")).robots}
        assert found == {"r1": "a", "r2": "a", "r3": "b", "r4": "b"}
        alone = await one.plan("pick@2", scope="each")
        assert {row.instance for row in alone.robots} == {""}
        number = await one.start("pick@2", scope="one", robots=["r1", "r2"])
        await one.until(number, "succeeded", over=True)
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        assert one.control.fleet.owner("r1", "pick").scope == CELLS
        number = await one.start("pick@2", scope="one", robots=["r1", "r2"], retry=True)
        await one.until(number, "succeeded", over=True)
        with pytest.raises(ControlError, match="with different scopes: each:cell, one"):
            await one.plan("pick@1", allow_lower=True)


async def test_a_started_dataflow_comes_before_the_instance_of_a_release_with_its_name(tmp_path):
    async with cells(tmp_path) as one:
        number = await one.start(scope=CELLS, robots=["r1", "r2"])
        await one.until(number, "succeeded", over=True)
        fleet = one.control.fleet
        assert fleet.find("pick").name == "a/pick"
        started = any_record(name="pick")
        fleet.deployments["pick"] = Deployment("pick", "inline", started)
        assert fleet.instance("pick") is None
        assert fleet.find("pick") == started
        assert (await plain(Ref(dataflow="pick"), fleet, one.control._instances)).dataflow == "pick"
        assert fleet.find("a/pick").name == "a/pick"
