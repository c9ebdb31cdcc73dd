"""A dataflow that only one robot knows is named `ROBOT/NAME`, and that robot answers."""

import asyncio
from functools import partial

import msgspec
import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleaseState
from dorafleet.cli.robots import as_row, summary_lines
from dorafleet.coordinator.audit import read_rows
from dorafleet.coordinator.nodeaudit import MAX_VALUE

from .test_routing import daemon, talking

RELEASE = ReleaseState(
    dataflow="pick",
    epoch=1,
    generation=1,
    phase="confirmed",
    since=1.0,
    release="a" * 64,
    running="a" * 64,
)


async def with_release(fleet, seen, *robots):
    """Let robots run `pick` from a release."""
    for name in robots:

        async def top_watch(_call, params, name=name):
            seen[f"{name} top"] = params
            node = m.NodeInfo(
                dataflow="u",
                dataflow_name="pick",
                node="gripper",
                status="running",
                pid=1,
                restarts=0,
                metrics=m.NodeMetrics(),
            )
            top = m.Top(at=1.0, window=1.0, nodes=[node], edges=[])
            yield m.TopPart(top=top, nodes=1, edges=0)
            await asyncio.Event().wait()

        await again(fleet, name, {"top.watch": top_watch})
        fleet.control.robots.get(name).releases = {"pick": RELEASE}


async def again(fleet, name, handlers):
    """Let a robot connect again, with more handlers."""
    agent = fleet.agents[name]
    await fleet.disconnect(agent)
    agent.handlers |= handlers
    await fleet.connect(agent)


async def first(stream):
    try:
        return await anext(stream)
    finally:
        await stream.aclose()


async def test_the_robot_answers_about_a_dataflow_that_a_release_has_brought(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        await with_release(fleet, seen, "arm1", "arm2")
        part = await first(
            fleet.stream("top.watch", m.TopWatch(dataflow="arm2/pick", machine="arm2"))
        )
        assert [(each.node, each.machine) for each in part.top.nodes] == [("gripper", "arm2")]
        assert (seen["arm2 top"].dataflow, seen["arm2 top"].machine) == ("pick", None)
        await fleet.call("node.restart", m.NodeStop(node="gripper", dataflow="arm1/pick"))
        assert (seen["arm1"].dataflow, seen["arm1"].node) == ("pick", "gripper")
        assert "arm2" not in seen
        frames = [each async for each in fleet.stream("logs.read", m.LogRead(dataflow="arm2/pick"))]
        lines = [line for frame in frames for line in frame.lines]
        assert [(line.timestamp, line.machine) for line in lines] == [(2.0, "arm2"), (3.0, "arm2")]


async def test_the_lines_of_a_release_come_from_all_its_robots(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        await with_release(fleet, seen, "arm1", "arm2")
        frames = [each async for each in fleet.stream("logs.read", m.LogRead(dataflow="pick"))]
        lines = [line for frame in frames for line in frame.lines]
        assert [line.timestamp for line in lines] == [1.0, 2.0, 3.0, 4.0]
        with pytest.raises(ControlError, match="does not run on `arm9`"):
            await first(fleet.stream("logs.read", m.LogRead(dataflow="pick", machine="arm9")))


async def test_incidents_are_those_of_all_robots_and_of_dataflows_by_their_own_names(tmp_path):
    async with talking(tmp_path) as (fleet, seen):

        async def listed(_call, params):
            found = [m.BlackBox(dataflow=seen["uuid"], name="talk", folder="/a", incidents=[])]
            found.append(m.BlackBox(dataflow="u", name="pick", folder="/b", incidents=[]))
            return m.IncidentList(boxes=found if params.dataflow is None else found[1:])

        for name in ("arm1", "arm2"):
            await again(fleet, name, {"incident.list": listed})
            fleet.control.robots.get(name).releases = {"pick": RELEASE}
        everything = await fleet.call("incident.list", m.Ref())
        assert [(box.machine, box.dataflow) for box in everything.boxes] == [
            (robot, name) for robot in ("arm1", "arm2") for name in (seen["uuid"], f"{robot}/pick")
        ]
        found = await fleet.call("incident.list", m.Ref(dataflow="pick"))
        assert [box.dataflow for box in found.boxes] == ["arm1/pick", "arm2/pick"]
        found = await fleet.call("incident.list", m.Ref(dataflow="arm2/pick"))
        assert [box.dataflow for box in found.boxes] == ["arm2/pick"]
        await fleet.disconnect(fleet.agents["arm2"])
        found = await fleet.call("incident.list", m.Ref(dataflow="pick"))
        assert [box.dataflow for box in found.boxes] == ["arm1/pick"]
        assert list(found.missing) == ["arm2"]


async def test_an_incident_is_made_on_each_robot_that_records_and_is_in_the_audit(tmp_path):
    async with talking(tmp_path) as (fleet, _):
        orders = {}
        says = {}

        async def mark(_call, params, name):
            orders[name] = params
            if isinstance(says[name], ControlError):
                raise says[name]
            return m.IncidentMarked(made={"": says[name]})

        for name in ("arm1", "arm2"):
            await again(fleet, name, {"incident.mark": partial(mark, name=name)})
            fleet.control.robots.get(name).releases = {"pick": RELEASE}
        order = m.IncidentMark(dataflow="pick", note="missed", source="somebody else")
        says |= {"arm1": "incident 1", "arm2": ControlError("not-found", "no black box")}
        marked = await fleet.call("incident.mark", order)
        assert (marked.made, marked.failed) == ({"arm1": "incident 1"}, {})
        assert orders["arm1"].dataflow == "pick" and orders["arm1"].note == "missed"
        assert orders["arm1"].source == "ann", "the client's name, and not what it says"
        says["arm2"] = ControlError("deadline", "the recorder hangs")
        marked = await fleet.call("incident.mark", order)
        assert marked.made == {"arm1": "incident 1"} and "hangs" in marked.failed["arm2"]
        orders.clear()
        marked = await fleet.call("incident.mark", m.IncidentMark(dataflow="arm1/pick"))
        assert [*orders] == ["arm1"] and marked.failed == {}
        says["arm1"] = ControlError("refused", "the disk is full")
        with pytest.raises(ControlError, match=r"arm1: the disk is full; arm2: .*hangs"):
            await fleet.call("incident.mark", order)
        says |= dict.fromkeys(says, ControlError("not-found", "no black box"))
        with pytest.raises(ControlError, match="no black box"):
            await fleet.call("incident.mark", order)
        with pytest.raises(ControlError, match="name the dataflow"):
            await fleet.call("incident.mark", m.IncidentMark())
        rows = [msgspec.json.decode(row.record) async for row in read_rows(fleet.store)]
        made = [each for each in rows if each.get("action") == "incident.mark"]
        assert [each.get("note") for each in made] == ["missed", "missed", None, "missed", "missed"]
        assert {each["peer"] for each in made} == {"ann"}


async def test_the_curves_of_a_robot_are_asked_for_once_however_many_consoles_show_them(tmp_path):
    async with talking(tmp_path) as (fleet, _):
        asked = []

        async def history(_call, params, name):
            asked.append(name)
            points = [1.0] * 1000
            return m.RobotHistory(
                robots={"its-host": m.RobotCurves(points, points, points, points)}
            )

        for name in ("arm1", "arm2"):
            await again(fleet, name, {"robot.history": partial(history, name=name)})
        query = m.RobotHistoryQuery(robots=["arm1", "arm1", "arm3", "nobody"])
        first_answer = await fleet.call("robot.history", query)
        assert [*first_answer.robots] == ["arm1"], "arm3 has older software, nobody is no robot"
        assert len(first_answer.robots["arm1"].cpu) == m.ROBOT_POINTS
        query.robots = ["arm2", "arm1"]
        assert [*(await fleet.call("robot.history", query)).robots] == ["arm2", "arm1"]
        assert asked == ["arm1", "arm2"]


async def test_what_needs_one_robot_names_those_that_run_the_release(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        await with_release(fleet, seen, "arm1", "arm2")
        with pytest.raises(
            ControlError, match="2 instances of `pick` run: arm1/pick, arm2/pick"
        ) as error:
            await fleet.call("node.list", m.Ref(dataflow="pick"))
        assert error.value.hint == "name one: `arm1/pick`"
        fleet.control.robots.get("arm2").releases = {}
        found = await fleet.call("node.list", m.Ref(dataflow="pick"))
        assert {each.machine for each in found.nodes} == {"arm1"}


@pytest.mark.parametrize("name", ["talk", "arm1/talk"])
async def test_a_dataflow_that_the_coordinator_has_placed_stays_its_own(tmp_path, name):
    async with talking(tmp_path) as (fleet, _):
        found = await fleet.call("node.list", m.Ref(dataflow=name))
        assert [each.machine for each in found.nodes] == ["arm1", "arm2"]


async def test_what_was_started_on_a_robot_is_found_by_its_name_and_named_in_errors(tmp_path):
    async def rows(_call, _params):
        row = m.FleetRow(robot="x", dataflow="survey, talk")
        yield m.FleetRows(at=1.0, rows=[row], whole=True)
        await asyncio.Event().wait()

    async with talking(tmp_path) as (fleet, _):
        await again(fleet, "arm2", {"fleet.watch": rows})
        await fleet.until(lambda: fleet.control.robots.get("arm2").dataflows)
        frames = [each async for each in fleet.stream("logs.read", m.LogRead(dataflow="survey"))]
        assert {line.machine for frame in frames for line in frame.lines} == {"arm2"}
        unknown = "no dataflow is named 'nowhere'; there are: talk, arm2/survey "
        with pytest.raises(ControlError, match=unknown):
            await fleet.call("node.list", m.Ref(dataflow="nowhere"))
        with pytest.raises(
            ControlError, match="on `arm2` was not started by the coordinator"
        ) as error:
            await fleet.call("dataflow.stop", m.Stop(dataflow="survey"))
        assert error.value.hint == "somebody has started it there; on `arm2`: `dora stop survey`"
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        with pytest.raises(ControlError, match="of the fleet runs; robots run: arm2/survey"):
            await fleet.call("node.info", m.NodeRef(node="camera"))


async def test_the_lines_of_a_placed_dataflow_on_one_robot(tmp_path):
    async with talking(tmp_path) as (fleet, _):
        frames = [each async for each in fleet.stream("logs.read", m.LogRead(dataflow="arm2/talk"))]
        assert {line.machine for frame in frames for line in frame.lines} == {"arm2"}


@pytest.mark.parametrize("method", ["dataflow.stop", "dataflow.restart"])
async def test_a_release_is_not_stopped_behind_the_back_of_rollouts(tmp_path, method):
    async with talking(tmp_path) as (fleet, seen):
        await with_release(fleet, seen, "arm1")
        with pytest.raises(ControlError, match="was not started by the coordinator") as error:
            await fleet.call(method, m.Stop(dataflow="arm1/pick"))
        assert "dorafleet rollout" in (error.value.hint or "")


async def test_a_robot_that_is_unknown_or_away_is_named(tmp_path):
    async with talking(tmp_path) as (fleet, _):
        with pytest.raises(ControlError, match="there is no robot `arm7`"):
            await fleet.call("node.list", m.Ref(dataflow="arm7/pick"))
        with pytest.raises(ControlError, match="robot `arm3` cannot be reached"):
            await fleet.call("node.list", m.Ref(dataflow="arm3/pick"))


async def test_top_of_a_machine_shows_all_that_runs_there(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        handlers = daemon("arm1", ["gripper"], {**seen, "uuid": "another"})
        await again(fleet, "arm1", {"top": handlers["top"]})
        part = await first(fleet.stream("top.watch", m.TopWatch(machine="arm1")))
        assert [(each.node, each.machine) for each in part.top.nodes] == [("gripper", "arm1")]


@pytest.mark.parametrize("dataflow", ["arm1/pick", "talk"])
async def test_who_restarts_a_node_is_in_the_audit(tmp_path, dataflow):
    async with talking(tmp_path) as (fleet, seen):
        await with_release(fleet, seen, "arm1")
        await fleet.call("node.restart", m.NodeStop(node="talker", dataflow=dataflow))
        records = [row.record async for row in read_rows(fleet.store)]
        (found,) = [record for record in records if b"node.restart" in record]
        assert b'"peer":"ann"' in found and f'"dataflow":"{dataflow}"'.encode() in found


@pytest.mark.parametrize("dataflow", ["arm1/pick", "talk"])
async def test_who_sets_or_deletes_a_parameter_is_in_the_audit_once(tmp_path, dataflow):
    async def set_(_call, params):
        return m.Param(key=params.key, value=params.value)

    async def get(_call, params):
        assert params.key == "speed"
        return m.Param(key="speed", value="x" * 1000, declared=True, default=0.5)

    async def delete(_call, _params):
        return m.Nothing()

    async with talking(tmp_path) as (fleet, seen):
        await with_release(fleet, seen, "arm1")
        await again(fleet, "arm1", {"param.set": set_, "param.delete": delete, "param.get": get})
        fleet.control.robots.get("arm1").releases = {"pick": RELEASE}
        ref = {"node": "talker", "dataflow": dataflow, "key": "speed"}
        await fleet.call("param.set", m.ParamSet(value=2.0, **ref))
        await fleet.call("param.delete", m.ParamRef(**ref))
        records = [msgspec.json.decode(row.record) async for row in read_rows(fleet.store)]
        found = [each for each in records if each["action"].startswith("param.")]
        assert [each["action"] for each in found] == ["param.set", "param.delete"]
        for each in found:
            assert each["peer"] == "ann"
            assert {name: each[name] for name in ref} == ref
            assert each["old"].startswith('"xxx') and len(each["old"]) == MAX_VALUE
        assert [each["new"] for each in found] == ["2.0", "0.5"]


async def test_what_a_robot_runs_of_its_own_is_listed_as_local(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        await with_release(fleet, seen, "arm1")
        robot = fleet.control.robots.get("arm1")
        robot.dataflows = ("own", "pick", *(share.dataflow for share in robot.known_shares))
        assert len(robot.dataflows) > 2
        found = {each.id: each for each in (await fleet.call("robot.list")).robots}["arm1"]
        assert found.local == ["own"]
        assert "own (local)" in as_row(found)[6]
        assert "own (local): 1 machines" in summary_lines([found])
        deployments = (await fleet.call("deployment.list")).deployments
        local = [(each.name, each.state) for each in deployments if each.source == "local"]
        assert local == [("arm1/own", "running")]
