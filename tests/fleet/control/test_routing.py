"""Methods of dorad, asked of a coordinator: sent to the machine of a node, or to all and merged."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REQUEST

from .agents import FakeAgent
from .serving import DEADLINE_S, leading


def daemon(robot, nodes, seen):
    """Return the handlers of a daemon that runs these nodes."""

    def row(node):
        return m.NodeInfo(
            dataflow=seen["uuid"],
            dataflow_name=None,
            node=node,
            status="running",
            pid=7,
            restarts=0,
            metrics=m.NodeMetrics(cpu=50.0),
        )

    def info():
        return m.DataflowInfo(
            uuid=seen["uuid"],
            name="talk",
            status="running",
            nodes=len(nodes),
            cpu=50.0,
            memory=10,
            started_at=1.0,
        )

    async def list_nodes(_call, _params):
        return m.NodeList(nodes=[row(node) for node in nodes])

    async def list_dataflows(_call, _params):
        return m.DataflowList(dataflows=[info()])

    async def top(_call, _params):
        rates = m.InterfaceRates(name="eth0", received=1, sent=1, dropped=0)
        return m.Top(at=1, window=2, nodes=[row(n) for n in nodes], edges=[], interfaces=[rates])

    async def history(_call, params):
        assert params.dataflow == seen["uuid"]
        curves = m.NodeCurves(seen["uuid"], nodes[0], [1.0, 2.0], [3.0, None])
        return m.History(at=1, step=5, nodes=[curves], left_out=1)

    async def restart(_call, params):
        seen[robot] = params
        return m.Nothing()

    async def get_param(_call, params):
        return m.Param(key=params.key, value=robot)

    async def read_logs(_call, params):
        seen[f"{robot} logs"] = params
        for at in seen["times"][robot]:
            yield m.LogLines(
                dataflow=seen["uuid"],
                lines=[m.LogRecord(timestamp=at, level="info", node=nodes[0], message=robot)],
            )
        if params.follow:
            await asyncio.Event().wait()

    async def subscribe(call, params):
        seen[f"{robot} topics"] = params.topics
        for number in (1, 2):
            yield (
                m.TopicHeader(
                    stream=call.id,
                    topic=params.topics[0],
                    sequence=number,
                    dropped=0,
                    metadata={},
                ),
                b"data",
            )

    async def watch(_call, _params):
        for what in ("dataflow-running", "node-started"):
            yield m.Event(at=1.0, dataflow=seen["uuid"], what=what, node=nodes[0])
        await asyncio.Event().wait()

    return {
        "node.list": list_nodes,
        "dataflow.list": list_dataflows,
        "top": top,
        "top.history": history,
        "node.restart": restart,
        "param.get": get_param,
        "logs.read": read_logs,
        "topic.subscribe": subscribe,
        "watch": watch,
    }


@asynccontextmanager
async def talking(folder):
    """Yield a fleet whose two robots run `talk`, and what their daemons have seen."""
    seen = {"times": {"arm1": [1.0, 4.0], "arm2": [2.0, 3.0]}}
    async with leading(folder) as fleet:
        for robot, nodes in (("arm1", ["talker"]), ("arm2", ["listener"])):
            agent = await fleet.agent(robot)
            await fleet.disconnect(agent)
            agent.handlers = daemon(robot, nodes, seen)
            await fleet.connect(agent)
        seen["uuid"] = (await fleet.run()).uuid
        # The dataflow runs once its barrier is open; the order to open it may still be on its way.
        for known in map(fleet.control.robots.get, ("arm1", "arm2")):
            await fleet.until(lambda known=known: known.shares["talk"].status == "running")
        yield fleet, seen


async def test_lists_name_the_machine_and_who_did_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.robotcalls.ANSWER_S", 0.3)
    async with talking(tmp_path) as (fleet, _):
        nodes = (await fleet.call("node.list", m.Ref())).nodes
        assert [(each.node, each.machine, each.dataflow_name) for each in nodes] == [
            ("talker", "arm1", "talk"),
            ("listener", "arm2", "talk"),
        ]
        (row,) = (await fleet.call("dataflow.list")).dataflows
        assert (row.nodes, row.cpu, row.memory, row.enabled) == (2, 100.0, 20, True)
        assert row.machines == ["arm1", "arm2"]
        top = await fleet.call("top")
        assert [each.machine for each in top.interfaces] == ["arm1", "arm2"]
        past = await fleet.call("top.history", m.TopHistory(dataflow="talk"))
        assert [(each.node, each.machine) for each in past.nodes] == [
            ("talker", "arm1"),
            ("listener", "arm2"),
        ]
        assert (past.step, past.left_out, past.missing) == (5, 2, {})

        async def never(_call, _params):
            await asyncio.Event().wait()

        arm2 = fleet.agents["arm2"]
        await fleet.disconnect(arm2)
        arm2.handlers = {"node.list": never}
        await fleet.connect(arm2)
        listed = await fleet.call("node.list", m.Ref(dataflow="talk"))
        assert [each.node for each in listed.nodes] == ["talker"]
        assert "did not answer within" in listed.missing["arm2"]


async def test_a_method_about_a_node_goes_to_its_machine(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        await fleet.call("node.restart", m.NodeStop(node="listener", grace=1))
        assert seen["arm2"].dataflow == seen["uuid"]
        assert seen["arm2"].grace == 1
        assert "arm1" not in seen
        found = await fleet.call("param.get", m.ParamRef(node="talker", key="k", dataflow="talk"))
        assert found.value == "arm1"
        with pytest.raises(ControlError, match="has no node 'talkre'"):
            await fleet.call("param.get", m.ParamRef(node="talkre", key="k"))


async def test_what_a_robot_says_of_its_own_processes_names_the_robot(tmp_path):
    """Without it an operator would end a process with this number here."""

    async def silent(_call, _params):
        raise ControlError("deadline", "dorad (process 7) does not answer", "end it with `kill 7`")

    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        arm2 = fleet.agents["arm2"] = FakeAgent("arm2", fleet.port)
        arm2.handlers = {"node.stop": silent}
        await fleet.connect(arm2)
        await fleet.run()
        with pytest.raises(ControlError) as caught:
            await fleet.call("node.stop", m.NodeStop(node="listener"))
        assert caught.value.message == "robot `arm2`: dorad (process 7) does not answer"
        assert caught.value.hint == "on `arm2`: end it with `kill 7`"


async def test_a_call_about_a_node_of_a_machine_that_is_done_says_how_to_start_it(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        fleet.agents["arm2"].report("talk", "finished")
        await fleet.until(
            lambda: fleet.control.robots.get("arm2").shares["talk"].status == "finished"
        )
        done = r"all nodes of `talk` on `arm2` have ended \(finished\)"
        with pytest.raises(ControlError, match=done) as caught:
            await fleet.call("node.restart", m.NodeStop(node="listener"))
        assert "dora restart talk" in caught.value.hint
        assert "arm2" not in seen
        await fleet.call("node.restart", m.NodeStop(node="talker"))


async def test_a_call_about_a_run_that_has_just_been_ordered_waits_for_its_machine(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        arm1 = fleet.agents["arm1"]
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        arm1.begins.clear()
        seen["uuid"] = (await fleet.start()).uuid
        asking = asyncio.create_task(
            fleet.call("param.get", m.ParamRef(node="talker", key="k", dataflow="talk"))
        )
        params = m.TopicSubscribe(dataflow="talk", topics=["talker/out"])
        listening = asyncio.create_task(anext(aiter(fleet.stream("topic.subscribe", params))))
        await fleet.until(lambda: fleet.agents["arm2"].shares["talk"].uuid == seen["uuid"])
        assert not asking.done()
        assert "arm1 topics" not in seen
        arm1.begins.set()
        assert (await asking).value == "arm1"
        assert await listening


async def test_lines_of_all_machines_come_in_the_order_of_their_times(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        frames = [each async for each in fleet.stream("logs.read", m.LogRead(dataflow="talk"))]
        lines = [line for frame in frames for line in frame.lines]
        assert [(line.timestamp, line.machine) for line in lines] == [
            (1.0, "arm1"),
            (2.0, "arm2"),
            (3.0, "arm2"),
            (4.0, "arm1"),
        ]
        params = m.LogRead(dataflow="talk", tail=2)
        frames = [each async for each in fleet.stream("logs.read", params)]
        assert [line.timestamp for frame in frames for line in frame.lines] == [3.0, 4.0]
        params = m.LogRead(dataflow="talk", nodes=["listener"])
        frames = [each async for each in fleet.stream("logs.read", params)]
        assert {line.machine for frame in frames for line in frame.lines} == {"arm2"}
        assert seen["arm2 logs"].nodes == ["listener"]


async def lines_of(fleet, **wanted):
    params = m.LogRead(dataflow="talk", **wanted)
    frames = [each async for each in fleet.stream("logs.read", params)]
    return [(line.timestamp, line.machine) for frame in frames for line in frame.lines]


async def test_lines_of_one_machine(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        assert await lines_of(fleet, machine="arm2") == [(2.0, "arm2"), (3.0, "arm2")]
        assert "arm1 logs" not in seen
        assert seen["arm2 logs"].machine is None
        assert await lines_of(fleet, machine="arm1", tail=1) == [(4.0, "arm1")]
        await lines_of(fleet, machine="arm2", nodes=["listener", "dora"])
        assert seen["arm2 logs"].nodes == ["listener", "dora"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"machine": "arm9"}, "there is no robot `arm9`"),
        ({"machine": "arm1", "nodes": ["listener"]}, "runs on `arm2`, not on `arm1`"),
        ({"machine": "arm1", "nodes": ["listner"]}, "there is no node 'listner'"),
    ],
)
async def test_lines_that_a_machine_cannot_have_are_refused(tmp_path, wanted, message):
    async with talking(tmp_path) as (fleet, _):
        with pytest.raises(ControlError, match=message):
            await lines_of(fleet, **wanted)


async def test_followed_lines_of_a_machine_do_not_wait_for_a_quiet_one(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.logorder.FIRST_S", 0.2)
    async with talking(tmp_path) as (fleet, seen):
        seen["times"] = {"arm1": [1.0, 2.0], "arm2": []}
        found = []
        async with asyncio.timeout(DEADLINE_S):
            stream = fleet.stream("logs.read", m.LogRead(dataflow="talk", follow=True))
            async with aclosing(stream):
                async for frame in stream:
                    found += [line.timestamp for line in frame.lines]
                    if len(found) == 2:
                        break
        assert found == [1.0, 2.0]


async def test_a_machine_that_is_away_is_named_in_the_log(tmp_path):
    async with talking(tmp_path) as (fleet, _):
        await fleet.disconnect(fleet.agents["arm2"])
        frames = [each async for each in fleet.stream("logs.read", m.LogRead(dataflow="talk"))]
        lines = [line for frame in frames for line in frame.lines]
        assert "no lines of robot `arm2`: it is unreachable" in lines[0].message
        assert [line.timestamp for line in lines[1:]] == [1.0, 4.0]


async def test_a_machine_whose_lines_cannot_be_read_is_named_in_the_log(tmp_path):
    async def read_logs(_call, _params):
        yield m.LogLines(dataflow="talk", lines=[])
        raise ControlError("internal", "it has no more")

    async with talking(tmp_path) as (fleet, _):
        fleet.agents["arm2"].handlers["logs.read"] = read_logs
        agent = fleet.agents["arm2"]
        await fleet.disconnect(agent)
        await fleet.connect(agent)
        frames = [each async for each in fleet.stream("logs.read", m.LogRead(dataflow="talk"))]
        lines = {(line.machine, line.message) for frame in frames for line in frame.lines}
        assert lines == {("arm1", "arm1"), ("arm2", "no lines of robot `arm2`: it has no more")}


async def test_messages_come_from_the_machine_of_their_output(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        params = m.TopicSubscribe(dataflow="talk", topics=["talker/out"])
        frames = [each async for each in fleet.stream("topic.subscribe", params)]
        assert [(header.stream, header.sequence, bytes(data)) for header, data in frames] == [
            (1, 1, b"data"),
            (1, 2, b"data"),
        ]
        assert seen["arm1 topics"] == ["talker/out"]
        assert "arm2 topics" not in seen
        with pytest.raises(ControlError, match="has no output 'talker/in'"):
            params = m.TopicSubscribe(dataflow="talk", topics=["talker/in"])
            await anext(fleet.stream("topic.subscribe", params))
        listed = await fleet.call("topic.list", m.Ref(dataflow="talk"))
        assert listed.topics[0].subscribers == [m.Subscriber(node="listener", input="in")]


async def test_a_message_or_an_answer_that_is_too_large_does_not_cut_off_its_robot(tmp_path):
    """Viewers may subscribe: they must not be able to end the connections of robots."""

    async def subscribe(call, params):
        header = m.TopicHeader(
            stream=call.id, topic=params.topics[0], sequence=1, dropped=0, metadata={}
        )
        yield header, bytes(MAX_REQUEST)

    async def listed(_call, _params):
        return m.TopicList(dataflow="x" * MAX_REQUEST, topics=[])

    async with talking(tmp_path) as (fleet, _):
        agent = fleet.agents["arm1"]
        await agent.stop()
        agent.handlers |= {"topic.subscribe": subscribe, "topic.list": listed}
        await fleet.connect(agent)
        params = m.TopicSubscribe(dataflow="talk", topics=["talker/out"])
        with pytest.raises(ControlError, match="4194304 are allowed"):
            await anext(fleet.stream("topic.subscribe", params))
        await fleet.call("topic.list", m.Ref(dataflow="talk"))
        assert agent.connected
        assert fleet.control.robots.get("arm1").client is not None


async def test_events_are_those_of_machines_with_those_of_the_whole_dataflow(tmp_path):
    async with talking(tmp_path) as (fleet, _):
        found = []
        async with asyncio.timeout(DEADLINE_S):
            stream = fleet.stream("watch", m.Watch(dataflow="talk"))
            async with aclosing(stream):
                async for event in stream:
                    found.append((event.what, event.machine))
                    if len(found) == 2:
                        stopping = asyncio.create_task(
                            fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
                        )
                    if event.what == "dataflow-ended":
                        break
            await stopping
        assert set(found[:2]) == {("node-started", "arm1"), ("node-started", "arm2")}
        assert ("dataflow-running", "arm1") not in found
        assert found[-1] == ("dataflow-ended", None)


async def test_the_status_is_that_of_the_fleet(tmp_path):
    async with talking(tmp_path) as (fleet, _):
        await fleet.disconnect(fleet.agents["arm2"])
        status = await fleet.call("daemon.status")
        assert (status.dataflows, status.nodes) == (1, 2)
        assert [each for each in status.notices if "`arm2`" in each]
        with pytest.raises(ControlError, match="1 dataflow runs: talk"):
            await fleet.call("daemon.shutdown", m.Shutdown())


async def test_a_measurement_of_one_dataflow_ends_with_it(tmp_path):
    async with talking(tmp_path) as (fleet, seen):
        stream = fleet.stream("top.watch", m.TopWatch(dataflow="talk", interval=0.2))
        assert (await anext(stream)).top.nodes
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        with pytest.raises(ControlError, match=f"dataflow {seen['uuid']} has ended"):
            for _ in range(50):
                await anext(stream)
