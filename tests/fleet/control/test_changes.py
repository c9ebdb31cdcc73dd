"""Changes of a dataflow that runs over several machines: nodes, edges, labels, lost machines."""

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.audit import read_rows
from dorafleet.coordinator.messages import RobotLabel

from .serving import TALK, leading

SPARE = {"id": "spare", "path": "spare.py", "inputs": {"in": "talker/out"}}


async def running(fleet, descriptor=None):
    agents = [await fleet.agent(robot) for robot in ("arm1", "arm2", "arm3")]
    await (fleet.start() if descriptor is None else fleet.start(descriptor))
    await fleet.wait("running")
    return agents


async def test_a_new_node_goes_to_a_machine_that_takes_part_then(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2, arm3 = await running(fleet)
        changed = await fleet.call("node.add", m.NodeAdd(definition=SPARE, dataflow="talk"))
        assert changed.changes == ["added node spare"]
        added = arm3.sets[-1]
        assert added.content.share.placement["spare"] == "arm3"
        assert added.hold is None
        assert len(added.content.share.connect) == 2
        for agent in (arm1, arm2):
            assert agent.sets[-1].generation == added.generation
            assert agent.sets[-1].content.uuid == added.content.uuid
        assert (await fleet.wait("running")).status == "running"


async def test_what_stays_keeps_its_machine_and_its_port(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2, _ = await running(fleet)
        first = arm2.sets[0].content.share
        await fleet.call("node.add", m.NodeAdd(definition=SPARE, dataflow="talk"))
        await fleet.call("node.remove", m.NodeStop(node="spare", dataflow="talk"))
        edge = m.EdgeRef(source="talker/out", target="listener/in", dataflow="talk")
        await fleet.call("node.disconnect", edge)
        last = arm2.sets[-1].content
        assert last.share.placement == first.placement
        assert last.share.listen == first.listen
        assert last.descriptor["nodes"][1]["inputs"] == {}
        back = m.EdgeNew(source="talker/out", target="listener/in", dataflow="talk")
        assert (await fleet.call("node.connect", back)).changes == []
        generations = [each.generation for each in arm1.sets]
        assert generations == sorted(set(generations))


async def test_a_node_is_replaced_even_if_only_its_program_has_changed(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, _, _ = await running(fleet)
        orders = []

        async def replaced(_call, params):
            orders.append(params)
            return m.Changed(uuid=params.dataflow, changes=[])

        arm1.handlers["node.replace"] = replaced
        await arm1.stop()
        await fleet.connect(arm1)
        talker = dict(TALK["nodes"][0])
        same = m.NodeReplace(node="talker", definition=talker, dataflow="talk", grace=7)
        assert (await fleet.call("node.replace", same)).changes == []
        assert [(each.node, each.definition, each.grace) for each in orders] == [("talker", {}, 7)]
        assert len(arm1.sets) == 1
        # A new definition is a new share, which the robot compares with its own.
        new = m.NodeReplace(node="talker", definition={**talker, "path": "new.py"}, dataflow="talk")
        assert (await fleet.call("node.replace", new)).changes == ["replaced node talker"]
        assert len(orders) == 1
        records = [row.record.decode() async for row in read_rows(fleet.store)]
    assert sum('"action":"node.replace"' in each for each in records) == 2


async def test_a_change_that_cannot_be_is_refused_and_nothing_is_sent(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, _, _ = await running(fleet)
        with pytest.raises(ControlError, match="talker") as caught:
            await fleet.call("node.stop", m.NodeStop(node="nobody", dataflow="talk"))
        assert caught.value.code == "not-found"
        definition = {**SPARE, "deploy": {"machine": "arm9"}}
        with pytest.raises(Exception, match="there is no machine `arm9`"):
            await fleet.call("node.add", m.NodeAdd(definition=definition, dataflow="talk"))
        with pytest.raises(Exception, match="there is a node `talker` already"):
            definition = {"id": "talker", "path": "x.py"}
            await fleet.call("node.add", m.NodeAdd(definition=definition, dataflow="talk"))
        assert len(arm1.sets) == 1


async def test_a_change_that_a_machine_refuses_is_undone(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2, arm3 = await running(fleet)
        arm3.refusal = ControlError("refused", "there is no spare.py")
        with pytest.raises(ControlError, match="`arm3` refuses the change: there is no spare"):
            await fleet.call("node.add", m.NodeAdd(definition=SPARE, dataflow="talk"))
        detail = await fleet.call("dataflow.info", m.Ref(dataflow="talk"))
        assert [node["id"] for node in detail.descriptor["nodes"]] == ["talker", "listener"]
        await fleet.until(lambda: len(arm1.sets) == 3)
        assert "spare" not in arm1.sets[-1].content.share.placement
        assert (await fleet.wait("running")).status == "running"
        assert arm2.connected


async def test_a_pending_node_runs_once_a_label_fits(tmp_path):
    nodes = [
        {"id": "one", "path": "one.py", "deploy": {"machine": "arm1"}},
        {
            "id": "two",
            "path": "two.py",
            "deploy": {"machine": "arm1", "avoid": {"nodes": ["one"]}},
        },
    ]
    async with leading(tmp_path) as fleet:
        arm1, _, _ = await running(fleet, {"nodes": nodes})
        listed = await fleet.call("node.list", m.Ref(dataflow="talk"))
        (pending,) = [node for node in listed.nodes if node.status == "pending"]
        assert pending.node == "two"
        assert "`one` is here" in pending.reason
        assert set(listed.missing) == {"arm1"}
        with pytest.raises(ControlError, match="runs nowhere yet"):
            await fleet.call("node.info", m.NodeRef(node="two", dataflow="talk"))
        await fleet.call("node.remove", m.NodeStop(node="one", dataflow="talk"))
        await fleet.until(lambda: arm1.sets[-1].content.share.placement == {"two": "arm1"})


async def test_labels_can_change_and_nodes_stay(tmp_path):
    node = {"id": "one", "path": "one.py", "deploy": {"labels": {"zone": "hall"}}}
    async with leading(tmp_path) as fleet:
        arm1, arm2, _ = await running(fleet, {"nodes": [node]})
        assert arm1.sets
        labels = RobotLabel(robot="arm1", labels={"zone": None})
        assert (await fleet.call("robot.label", labels)).labels == {}
        labels = RobotLabel(robot="arm2", labels={"zone": "hall"})
        assert (await fleet.call("robot.label", labels)).labels == {"zone": "hall"}
        await fleet.start({"nodes": [node]}, name="second")
        await fleet.wait("running", "second")
        assert [each.dataflow for each in arm2.sets] == ["second"]
        assert len(arm1.sets) == 1
        with pytest.raises(ControlError, match="not allowed in a label"):
            bad = RobotLabel(robot="arm2", labels={"a b": "c"})
            await fleet.call("robot.label", bad)
    async with leading(tmp_path) as fleet:
        found = {each.id: each.labels for each in (await fleet.call("robot.list")).robots}
        assert found == {"arm1": {}, "arm2": {"zone": "hall"}, "arm3": {}}


MOVING = {
    "nodes": [
        {"id": "talker", "path": "talker.py", "outputs": ["out"], "deploy": {"machine": "arm1"}},
        {
            "id": "moving",
            "path": "m.py",
            "inputs": {"in": "talker/out"},
            "deploy": {"avoid": {"machines": ["arm1"]}, "failover": True},
        },
    ]
}
"""A dataflow with a node that leaves a lost machine."""


async def take_params(fleet, agent):
    """Let an agent take every parameter; one that is not a number becomes 0."""

    async def set_(_call, params):
        value = params.value if isinstance(params.value, int) else 0
        return m.Param(key=params.key, value=value)

    async def delete(_call, _params):
        return m.Nothing()

    await fleet.disconnect(agent)
    agent.handlers |= {"param.set": set_, "param.delete": delete}
    await fleet.connect(agent)


async def test_a_machine_that_takes_over_a_node_gets_the_parameters_that_were_set(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("dorafleet.coordinator.runs.FAILOVER_S", 0.2)
    monkeypatch.setattr("dorafleet.coordinator.runs.EVERY_S", 0.2)
    monkeypatch.setattr("dorafleet.coordinator.runs.REPLAN_S", 0.1)

    async def change(fleet, method, kind=m.ParamSet, **fields):
        await fleet.call(method, kind(dataflow="talk", node="moving", **fields))

    async with leading(tmp_path) as fleet:
        _, arm2, _ = await running(fleet, MOVING)
        await take_params(fleet, arm2)
        for key, value in (("rate", 20), ("gain", "loud"), ("gone", 1), ("rate", 30)):
            await change(fleet, "param.set", key=key, value=value)
        await change(fleet, "param.delete", m.ParamRef, key="gone")
        assert len(arm2.sets) == 1, "nothing else has changed"
        await fleet.stop_agents()
    # Another coordinator knows them from the store.
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        arm3 = await fleet.agent("arm3")
        await fleet.until(lambda: arm3.sets)
        content = arm3.sets[-1].content
        assert content.share.placement["moving"] == "arm3"
        assert content.params == {"moving": {"rate": 30, "gain": 0}}


async def test_the_parameters_of_a_removed_node_are_forgotten(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2, _ = await running(fleet)
        await take_params(fleet, arm2)
        rate = m.ParamSet(dataflow="talk", node="listener", key="rate", value=3)
        await fleet.call("param.set", rate)
        await fleet.call("node.remove", m.NodeStop(node="listener", dataflow="talk"))
        listener = {"id": "listener", "path": "l.py", "inputs": {"in": "talker/out"}}
        await fleet.call("node.add", m.NodeAdd(definition=listener, dataflow="talk"))
        for agent in (arm1, arm2):
            assert agent.sets[-1].content.params == {}


@pytest.mark.parametrize("failover", [True, False])
async def test_a_node_leaves_a_lost_machine_only_if_asked_to(tmp_path, monkeypatch, failover):
    monkeypatch.setattr("dorafleet.coordinator.runs.FAILOVER_S", 0.2)
    monkeypatch.setattr("dorafleet.coordinator.runs.EVERY_S", 0.2)
    monkeypatch.setattr("dorafleet.coordinator.runs.REPLAN_S", 0.1)
    deploy = {"avoid": {"machines": ["arm1"]}, "failover": failover}
    nodes = [
        {"id": "talker", "path": "talker.py", "outputs": ["out"], "deploy": {"machine": "arm1"}},
        {"id": "moving", "path": "m.py", "inputs": {"in": "talker/out"}, "deploy": deploy},
    ]
    async with leading(tmp_path) as fleet:
        arm1, arm2, arm3 = await running(fleet, {"nodes": nodes})
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
        await arm2.stop()
        await fleet.until(lambda: fleet.control.robots.away(0.5) == {"arm2"} or None)
        if failover:
            await fleet.until(lambda: arm3.sets)
            assert arm3.sets[-1].content.share.placement["moving"] == "arm3"
            await fleet.connect(arm2)
            await fleet.until(lambda: len(arm2.sets) == 2)
            assert arm2.sets[-1].content.share.placement["moving"] == "arm3"
        else:
            assert not arm3.sets
            assert len(arm1.sets) == 1
