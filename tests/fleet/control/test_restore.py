"""Robots that are newer than a restored store are left alone until an operator decides."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.cli.main import run_command
from dorafleet.coordinator.messages import RobotRef
from dorafleet.coordinator.token import make_token
from dorafleet.store.backup import back_up, restore
from dorafleet.store.sqlite import SqliteStore

from .serving import TALK, leading, with_commands

pytestmark = pytest.mark.long

LATER = {"nodes": [{"id": "late", "path": "late.py", "deploy": {"machine": "arm1"}}]}


@asynccontextmanager
async def restored(tmp_path, *, changed):
    """Back up a fleet that runs `talk`, change it, lose the store, restore, and lead again."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    async with leading(tmp_path / "old") as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
        await fleet.until(lambda: arm1.shares["talk"].status == "running")
        await back_up(fleet.store, tmp_path / "a.backup")
        await changed(fleet)
    store = await SqliteStore.open(tmp_path / "new" / "coordinator.db")
    await restore(store, tmp_path / "a.backup")
    await store.close()
    async with leading(tmp_path / "new", authenticate=with_commands) as fleet:
        for agent in (arm1, arm2):
            agent.port = fleet.port
            fleet.agents[agent.robot] = agent
            await fleet.connect(agent)
        yield fleet, arm1, arm2


async def describing(fleet, agent, name, descriptor):
    """Let the daemon of a robot describe what it runs, and wait for its conflict."""
    uuid = agent.shares[name].uuid
    info = m.DataflowInfo(
        uuid=uuid, name=name, status="running", nodes=1, cpu=0, memory=0, started_at=1.0
    )
    nodes = [
        m.NodeInfo(
            dataflow=uuid,
            dataflow_name=name,
            node=node["id"],
            status="running",
            pid=1,
            restarts=0,
            metrics=m.NodeMetrics(),
        )
        for node in descriptor["nodes"]
        if node["deploy"]["machine"] == agent.robot
    ]

    async def describe(_call, _params):
        return m.DataflowDetail(info=info, descriptor=descriptor, path="/srv/l.yml", log_dir="")

    async def list_nodes(_call, _params):
        return m.NodeList(nodes=nodes)

    known = fleet.control.robots.get(agent.robot)
    agent.handlers = {"dataflow.info": describe, "node.list": list_nodes}
    await fleet.disconnect(agent)
    await fleet.connect(agent)
    await fleet.until(lambda: known.conflicts)


async def robot(fleet, id_):
    found = (await fleet.call("robot.list")).robots
    return next(each for each in found if each.id == id_)


async def start_later(fleet):
    await fleet.start(LATER, name="later")
    await fleet.wait("running", "later")
    arm1 = fleet.agents["arm1"]
    await fleet.until(lambda: arm1.shares["later"].status == "running")
    # Robots hear of the audit soon after they connect.
    await fleet.disconnect(arm1)
    await fleet.connect(arm1)
    await fleet.until(lambda: arm1.audit == str(fleet.control.fleet.head))


async def stop_talk(fleet):
    await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))


async def test_what_was_started_after_the_backup_runs_on_and_pauses_its_robot(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("dorafleet.coordinator.starter.COMING_S", 0.1)
    async with restored(tmp_path, changed=start_later) as (fleet, arm1, _):
        await fleet.until(lambda: fleet.control.robots.get("arm1").conflicts)
        found = await robot(fleet, "arm1")
        assert found.state == "conflict-paused"
        assert "after the backup" in found.conflicts["later"]
        assert "there was a record" in found.audit
        assert (await robot(fleet, "arm2")).state == "connected"
        assert arm1.shares["later"].status == "running"
        with pytest.raises(ControlError, match="paused because of `later`"):
            await fleet.start(LATER, name="more")
        monkeypatch.setattr("dorafleet.coordinator.dataflows.END_SLACK_S", 0.1)
        with pytest.raises(ControlError, match="`arm1`: it is paused because of `later`"):
            await fleet.call("dataflow.stop", m.Stop(dataflow="talk", grace=0))


async def test_what_has_ended_after_the_backup_pauses_no_robot(tmp_path):
    async def start_and_stop_later(fleet):
        await start_later(fleet)
        await fleet.call("dataflow.stop", m.Stop(dataflow="later"))

    async with restored(tmp_path, changed=start_and_stop_later) as (fleet, arm1, _):
        await fleet.until(lambda: "later" not in arm1.shares)
        assert (await robot(fleet, "arm1")).state == "connected"
        assert arm1.shares["talk"].status == "running"


async def test_resume_ends_what_the_store_does_not_know(tmp_path):
    async with restored(tmp_path, changed=start_later) as (fleet, arm1, _):
        await fleet.until(lambda: fleet.control.robots.get("arm1").conflicts)
        found = await fleet.call("robot.resume", RobotRef(robot="arm1"))
        assert found.state == "connected"
        await fleet.until(lambda: "later" not in arm1.shares)
        assert arm1.shares["talk"].status == "running"


async def test_adopt_makes_the_store_say_what_the_robot_has(tmp_path):
    async with restored(tmp_path, changed=start_later) as (fleet, arm1, _):
        uuid = arm1.shares["later"].uuid
        await describing(fleet, arm1, "later", LATER)
        found = await fleet.call("robot.adopt", RobotRef(robot="arm1"))
        assert found.state == "connected"
        listed = {each.name: each for each in (await fleet.call("dataflow.list")).dataflows}
        assert listed["later"].uuid == uuid
        assert listed["later"].status == "running"
        state = await fleet.call("dataflow.stop", m.Stop(dataflow="later"))
        assert state.status == "finished"
        assert [each.enabled for each in arm1.sets[-2:]] == [True, False]


async def start_talk_again(fleet):
    await stop_talk(fleet)
    await fleet.run()
    for agent in fleet.agents.values():
        await fleet.until(lambda agent=agent: agent.shares["talk"].status == "running")


async def test_adopt_replaces_a_run_of_the_store_that_runs_nowhere_any_more(tmp_path):
    async with restored(tmp_path, changed=start_talk_again) as (fleet, arm1, arm2):
        uuid = arm1.shares["talk"].uuid
        sets = [len(agent.sets) for agent in (arm1, arm2)]
        for agent in (arm1, arm2):
            await describing(fleet, agent, "talk", TALK)
        for agent in (arm1, arm2):
            found = await fleet.call("robot.adopt", RobotRef(robot=agent.robot))
            assert found.state == "connected"
        (talk,) = (await fleet.call("dataflow.list")).dataflows
        assert (talk.uuid, talk.status) == (uuid, "running")
        assert sets == [len(agent.sets) for agent in (arm1, arm2)]
        state = await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        assert state.status == "finished"
        assert [agent.shares["talk"].status for agent in (arm1, arm2)] == ["stopped", "stopped"]


async def test_adopt_is_refused_while_another_robot_still_has_the_run_of_the_store(tmp_path):
    async with restored(tmp_path, changed=start_talk_again) as (fleet, arm1, arm2):
        await fleet.until(lambda: fleet.control.robots.get("arm2").conflicts)
        await describing(fleet, arm1, "talk", TALK)
        (talk,) = (await fleet.call("dataflow.list")).dataflows
        arm2.report("talk", "running", uuid=talk.uuid)
        await fleet.until(lambda: fleet.control.robots.get("arm2").shares["talk"].uuid == talk.uuid)
        with pytest.raises(ControlError, match="`arm2` runs another run of `talk`") as caught:
            await fleet.call("robot.adopt", RobotRef(robot="arm1"))
        assert f"dora stop {talk.uuid}" in caught.value.hint


async def test_resume_starts_again_what_was_stopped_after_the_backup(tmp_path):
    async with restored(tmp_path, changed=stop_talk) as (fleet, arm1, arm2):
        await fleet.until(lambda: fleet.control.robots.get("arm1").conflicts)
        await fleet.until(lambda: fleet.control.robots.get("arm2").conflicts)
        assert arm1.shares["talk"].status == "stopped"
        await fleet.call("robot.resume", RobotRef(robot="arm1"))
        await fleet.until(lambda: arm1.shares["talk"].status == "running")
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
        assert not (await robot(fleet, "arm2")).conflicts


async def test_a_robot_without_a_conflict_has_nothing_to_resume(tmp_path):
    async with leading(tmp_path) as fleet:
        with pytest.raises(ControlError, match="cannot be reached"):
            await fleet.call("robot.resume", RobotRef(robot="arm1"))
        await fleet.agent("arm1")
        with pytest.raises(ControlError, match="has no conflict"):
            await fleet.call("robot.adopt", RobotRef(robot="arm1"))
        assert TALK["nodes"]


async def test_several_robots_are_decided_about_at_once(tmp_path, capsys):
    make_token(tmp_path / "token")

    async def run(*words):
        where = ["--state", str(tmp_path), "--port", str(fleet.port)]
        code = await asyncio.to_thread(run_command, [*words, *where])
        return code, *capsys.readouterr()

    async with restored(tmp_path, changed=stop_talk) as (fleet, arm1, _):
        one, two = map(fleet.control.robots.get, ("arm1", "arm2"))
        await fleet.until(lambda: one.conflicts and two.conflicts)
        for words, text in (
            ((), "give the names of machines, or --label"),
            (("--label", "zone"), "'zone' is not KEY=VALUE for --label"),
        ):
            code, _, err = await run("resume", *words)
            assert code == 2
            assert text in err
        code, _, err = await run("resume", "arm1", "arm9")
        assert code == 1
        assert "there is no robot `arm9`" in err
        code, _, err = await run("adopt", "--label", "zone=nowhere")
        assert code == 1
        assert "no machine has zone=nowhere" in err
        assert one.conflicts, "a mistake changes nothing"

        await fleet.control.fleet.set_labels("arm2", {"zone": "yard"}, {})
        code, out, err = await run("resume", "-l", "zone=yard", "--json")
        assert (code, err) == (0, "")
        assert [(each["id"], each["error"]) for each in json.loads(out)] == [("arm2", None)]
        await fleet.until(lambda: arm1.shares["talk"].status == "running")

        # The decision about arm2 was also one about arm1, which has the other part.
        code, out, err = await run("resume", "arm1,arm2")
        assert code == 1
        assert "robot `arm1` has no conflict with the store" in err
        assert "2 of 2 machines failed: arm1, arm2" in err
        code, out, err = await run("resume", "-l", "zone=yard")
        assert (code, out) == (0, "")
        assert "none of these machines waits for a decision" in err


async def test_a_robot_that_fails_keeps_no_other_from_its_decision(tmp_path, capsys):
    make_token(tmp_path / "token")
    async with restored(tmp_path, changed=stop_talk) as (fleet, arm1, arm2):
        one, two = map(fleet.control.robots.get, ("arm1", "arm2"))
        await fleet.until(lambda: one.conflicts and two.conflicts)
        await fleet.disconnect(arm1)
        words = ["resume", "arm1", "arm2", "--state", str(tmp_path), "--port", str(fleet.port)]
        code = await asyncio.to_thread(run_command, words)
        out, err = capsys.readouterr()
        assert (code, out) == (1, "arm2: connected\n")
        assert "arm1: robot `arm1` cannot be reached" in err
        assert "1 of 2 machines failed: arm1" in err
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
