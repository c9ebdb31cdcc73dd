"""A dataflow over two robots: one start barrier, one stop, failures by name."""

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.messages import Explain, RobotLabel

from .serving import TALK, leading


async def test_it_runs_once_all_robots_are_ready(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        arm2.becomes = "starting"
        started = await fleet.start()
        await fleet.until(lambda: "talk" in arm1.shares and arm1.shares["talk"].status == "ready")
        assert (await fleet.call("dataflow.list")).dataflows[0].status == "starting"
        arm2.report("talk", "ready")
        state = await fleet.wait("running")
        assert state.status == "running"
        assert state.uuid == started.uuid
        await fleet.until(lambda: {arm1.shares["talk"].status} == {"running"})
        first = arm1.sets[0]
        assert first.content.uuid == started.uuid
        assert first.content.share.placement == {"talker": "arm1", "listener": "arm2"}
        assert first.content.share.listen == ["tls/0.0.0.0:5456"]
        assert arm2.sets[0].content.share.connect == ["tls/10.0.0.1:5456"]
        assert first.hold is not None
        assert len(arm1.sets) == 1


async def test_a_stop_ends_it_on_all_robots(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
        state = await fleet.call("dataflow.stop", m.Stop(dataflow="talk", grace=3))
        assert state.status == "finished"
        assert {result.node for result in state.results} == {"talker", "listener"}
        for agent in (arm1, arm2):
            assert [each.enabled for each in agent.sets] == [True, False]
            assert agent.sets[-1].grace == 3
        with pytest.raises(ControlError, match="has ended"):
            await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        cleaned = await fleet.call("dataflow.clean")
        assert [each.name for each in cleaned.dataflows] == ["talk"]
        await fleet.until(lambda: not arm1.shares and not arm2.shares)
        assert (await fleet.call("dataflow.list")).dataflows == []


async def test_a_client_that_waits_for_a_start_learns_which_robot_is_not_ready(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        arm2 = await fleet.agent("arm2")
        arm2.becomes = "starting"
        await fleet.start()
        await fleet.until(lambda: {each.status for each in arm2.shares.values()} == {"starting"})
        problems: list[str] = []
        while "`arm2`: it is starting" not in problems:  # once the coordinator has heard of it
            with pytest.raises(ControlError, match="not running") as late:
                await fleet.call(
                    "dataflow.wait", m.Wait(dataflow="talk", until="running", timeout=0.1)
                )
            problems = late.value.problems


async def test_a_robot_that_is_not_ready_fails_the_start_by_name(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        arm2.becomes = "starting"
        await fleet.start(hold=0.5)
        state = await fleet.wait("ended")
        assert state.status == "failed"
        assert "`arm2` is not ready after 0.5 s" in state.failures[0].headline
        assert arm1.shares["talk"].status == "stopped"
        assert arm2.shares["talk"].status == "stopped"


async def test_a_robot_that_refuses_fails_the_start_at_once(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        arm2.refusal = ControlError("refused", "there is no python3.99")
        await fleet.start()
        state = await fleet.wait("ended")
        assert state.status == "failed"
        assert "`arm2` refuses its share: there is no python3.99" in state.failures[0].headline
        assert arm1.shares["talk"].status == "stopped"


async def test_a_robot_that_cannot_store_its_share_is_shown_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.delivery.RETRY_S", 0.05)
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        arm2 = await fleet.agent("arm2")
        robot = fleet.control.robots.get("arm2")
        arm2.refusal = ControlError("unavailable", "shares.db cannot be written: disk full")
        await fleet.start(hold=0.5)
        await fleet.until(
            lambda: any("disk full" in each for each in robot.answered("failed").values())
        )
        state = await fleet.wait("ended")
        assert "`arm2` is not ready after 0.5 s: shares.db" in state.failures[0].headline
        await fleet.call("dataflow.clean")
        await fleet.until(lambda: not robot.answered("failed"))
        # The same order is sent again, until it can be stored.
        await fleet.start()
        await fleet.until(lambda: robot.answered("failed"))
        arm2.refusal = None
        assert (await fleet.wait("running")).status == "running"
        assert robot.answered("failed") == {}


async def test_a_share_that_fails_before_the_barrier_fails_the_start(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        arm2.becomes = "starting"
        await fleet.start()
        await fleet.until(lambda: "talk" in arm2.shares)
        arm2.report("talk", "failed", reason="listener: exited with 1")
        state = await fleet.wait("spawned")  # a client that waits for the start gets the failure
        assert state.status == "failed"
        assert not state.ready
        assert "`arm2`: listener: exited with 1" in state.failures[0].headline
        assert arm1.shares["talk"].status == "stopped"


async def test_it_ends_when_it_has_ended_everywhere(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
        await fleet.until(
            lambda: {each.shares["talk"].status for each in (arm1, arm2)} == {"running"}
        )
        arm1.report("talk", "finished")
        with pytest.raises(ControlError, match="not ended"):
            params = m.Wait(dataflow="talk", until="ended", timeout=0.2)
            await fleet.call("dataflow.wait", params)
        arm2.report("talk", "failed", reason="it crashed")
        state = await fleet.wait("ended")
        assert state.status == "failed"
        assert [each.headline for each in state.failures] == ["arm2: it crashed"]


async def test_a_name_is_given_once(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1"), await fleet.agent("arm2")
        first = await fleet.start()
        with pytest.raises(ControlError, match="'talk' runs already") as caught:
            await fleet.start()
        assert caught.value.code == "exists"
        await fleet.wait("running")
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        second = await fleet.start()
        assert second.uuid != first.uuid
        assert (await fleet.wait("running")).uuid == second.uuid


async def test_a_robot_that_was_never_seen_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.starter.COMING_S", 0.1)
    async with leading(tmp_path) as fleet:
        arm1 = await fleet.agent("arm1")
        with pytest.raises(ControlError, match="`arm2`: it has never connected") as caught:
            await fleet.start()
        assert caught.value.code == "unavailable"
        assert not arm1.sets


async def test_a_dataflow_without_nodes_ends_at_once(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.start({"nodes": []})
        assert (await fleet.wait("ended")).status == "finished"


async def test_unknown_machines_and_labels_are_refused(tmp_path):
    async with leading(tmp_path) as fleet:
        node = {**TALK["nodes"][0], "deploy": {"machine": "arm9"}}
        with pytest.raises(Exception, match="there is no machine `arm9`"):
            await fleet.start({"nodes": [node]})
        node = {**TALK["nodes"][0], "deploy": {"labels": {"zone": "roof"}}}
        with pytest.raises(Exception, match="no machine has the label `zone` with `roof`"):
            await fleet.start({"nodes": [node]})
        assert (await fleet.call("dataflow.list")).dataflows == []


async def test_a_restart_keeps_the_parameters_that_were_set(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
        arm1.params = {"talker": {"rate": 20}, "listener": {"gain": "not its node"}, "gone": {}}
        arm2.params = {"listener": {"gain": [2.5]}}
        await fleet.call("dataflow.restart", m.Stop(dataflow="talk"))
        await fleet.wait("running")
        assert arm1.sets[-1].content.params == {"talker": {"rate": 20}}
        assert arm2.sets[-1].content.params == {"listener": {"gain": [2.5]}}
        arm1.params = arm2.params = {}
        await fleet.call("dataflow.restart", m.Stop(dataflow="talk"))
        await fleet.wait("running")
        assert arm1.sets[-1].content.params == arm2.sets[-1].content.params == {}


async def test_a_restart_that_would_lose_parameters_is_refused_before_anything_stops(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1 = await fleet.agent("arm1")
        arm2 = await fleet.agent("arm2")
        await fleet.run()
        await fleet.disconnect(arm2)
        with pytest.raises(ControlError, match="parameters of nodes on `arm2` cannot be read"):
            await fleet.call("dataflow.restart", m.Stop(dataflow="talk"))
        assert arm1.shares["talk"].status == "running"
        assert (await fleet.call("dataflow.list")).dataflows[0].status == "running"


async def explained(fleet, node, **wanted):
    found = await fleet.call("dataflow.explain", Explain(**wanted))
    (decision,) = [each for each in found.nodes if each.node == node]
    return decision.machine, {each.machine: each.rule or "chosen" for each in decision.verdicts}


async def test_an_explanation_is_that_of_the_fleet_now(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        await fleet.agent("arm2")
        free = {"nodes": [{"id": "free", "path": "f.py"}]}
        machine, verdicts = await explained(fleet, "free", descriptor=free)
        assert (machine, verdicts) == (
            "arm1",
            {"arm1": "chosen", "arm2": "spread", "arm3": "away"},
        )
        one = [{"id": "only", "path": "o.py", "deploy": {"machine": "arm1"}}]
        await fleet.start({"nodes": one}, name="only")
        # What runs counts, and so do changed labels.
        assert (await explained(fleet, "free", descriptor=free))[0] == "arm2"
        zone = {"nodes": [{"id": "free", "path": "f.py", "deploy": {"labels": {"zone": "yard"}}}]}
        assert (await explained(fleet, "free", descriptor=zone))[0] is None
        await fleet.call("robot.label", RobotLabel(robot="arm2", labels={"zone": "yard"}))
        assert (await explained(fleet, "free", descriptor=zone))[0] == "arm2"
        assert await explained(fleet, "only", dataflow="only") == (
            "arm1",
            {"arm1": "chosen", "arm2": "stays", "arm3": "stays"},
        )
        assert [each.name for each in (await fleet.call("dataflow.list")).dataflows] == ["only"]
        with pytest.raises(ControlError, match="either a dataflow or a descriptor"):
            await fleet.call("dataflow.explain", Explain())
        with pytest.raises(ControlError, match="no deployment `absent`"):
            await fleet.call("dataflow.explain", Explain(dataflow="absent"))
