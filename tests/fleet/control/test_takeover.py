"""A store that was restored or copied takes over robot by robot, with an operator's yes."""

import asyncio
import shutil

import msgspec
import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Revocation
from dorafleet.cli import checks
from dorafleet.cli.main import run_command
from dorafleet.coordinator.audit import read_rows
from dorafleet.coordinator.messages import AuditAcknowledge, RobotRef
from dorafleet.coordinator.token import make_token
from dorafleet.store.backup import back_up, restore
from dorafleet.store.model import Transaction
from dorafleet.store.sqlite import SqliteStore

from .agents import FakeAgent
from .serving import TALK, leading, with_commands
from .test_restore import describing, robot

HUGE = (1 << 62) - 1


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Let robots learn of newer records at once, instead of within a minute."""
    monkeypatch.setattr("dorafleet.coordinator.probe.EVERY_S", 0.2)
    monkeypatch.setattr("dorafleet.coordinator.connections.HEARTBEAT_S", 0.5)
    monkeypatch.setattr("dorafleet.coordinator.connections.SILENT_HEARTBEATS", 120)


async def told(fleet):
    """Wait until the robots know the end of the audit."""
    head = str(fleet.control.fleet.head)
    await fleet.until(lambda: all(agent.audit == head for agent in fleet.agents.values()))


async def led_again(folder, agents):
    """Lead once more with a store and robots, as after a restart of the coordinator."""
    async with leading(folder) as fleet:
        await reconnect(fleet, agents)
        await told(fleet)


async def reconnect(fleet, agents):
    for agent in agents:
        agent.port = fleet.port
        fleet.agents[agent.robot] = agent
        await fleet.connect(agent)


async def refused(fleet, agent):
    """Let a robot try to connect to a coordinator that it does not obey."""
    agent.port = fleet.port
    fleet.agents[agent.robot] = agent
    await agent.start()
    known = fleet.control.robots.get(agent.robot)
    await fleet.until(lambda: known.was_refused and not agent.connected)
    return await robot(fleet, agent.robot)


async def taken_over(fleet, agent):
    await fleet.call("robot.takeover", RobotRef(robot=agent.robot))
    await fleet.connect(agent)


async def restored(folder, backup):
    folder.mkdir()
    store = await SqliteStore.open(folder / "coordinator.db")
    await restore(store, backup)
    await store.close()


async def running(folder):
    """Start `talk` on two robots, back the store up twice, and return the robots."""
    folder.mkdir()
    async with leading(folder) as fleet:
        agents = [await fleet.agent("arm1"), await fleet.agent("arm2")]
        await back_up(fleet.store, folder / "empty")
        await fleet.run()
        await fleet.until(lambda: all(a.shares["talk"].status == "running" for a in agents))
        await back_up(fleet.store, folder / "backup")
    return agents


async def test_two_restores_and_then_an_older_backup_take_over_with_a_yes(tmp_path):
    agents = await running(tmp_path / "zero")
    backup = tmp_path / "zero" / "backup"
    for number, source in enumerate((backup, tmp_path / "again"), 1):
        await restored(tmp_path / f"{number}", source)
        async with leading(tmp_path / f"{number}") as fleet:
            await reconnect(fleet, agents)
            assert (await robot(fleet, "arm1")).state == "connected"
            await back_up(fleet.store, tmp_path / "again")
    await restored(tmp_path / "last", backup)
    async with leading(tmp_path / "last", authenticate=with_commands) as fleet:
        arm1, arm2 = agents
        for agent in agents:
            found = await refused(fleet, agent)
            assert (found.state, found.outranked) == ("refused", True)
            check = next(each for each in checks.check_robots([found]) if each.name == agent.robot)
            assert check.level == "FAIL"
            assert f"`dorafleet takeover {agent.robot}`" in check.hint
        await taken_over(fleet, arm1)
        assert not (await robot(fleet, "arm1")).outranked
        assert (await robot(fleet, "arm2")).state == "refused"
        await taken_over(fleet, arm2)
        # The yes is used up.
        assert not any(each.takes_over for each in fleet.control.robots.all)
        rows = [row.record async for row in read_rows(fleet.store)]
        assert sum(b"robot.takeover" in each for each in rows) == 2
        # Everything works again, and no node was restarted.
        assert {agent.shares["talk"].status for agent in agents} == {"running"}
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        assert {agent.shares["talk"].status for agent in agents} == {"stopped"}
        await fleet.run()


async def test_a_yes_is_for_one_robot_that_has_refused(tmp_path):
    async with leading(tmp_path) as fleet:
        with pytest.raises(ControlError, match="has not refused to obey"):
            await fleet.call("robot.takeover", RobotRef(robot="arm1"))
        await fleet.agent("arm1")
        with pytest.raises(ControlError, match="obeys this coordinator"):
            await fleet.call("robot.takeover", RobotRef(robot="arm1"))
        with pytest.raises(ControlError, match="there is no robot `arm9`"):
            await fleet.call("robot.takeover", RobotRef(robot="arm9"))


async def test_the_term_that_a_hostile_robot_reports_raises_that_of_no_other(tmp_path):
    async with leading(tmp_path) as fleet:
        term = fleet.control.fleet.writer.epoch
        hostile = FakeAgent("arm1", fleet.port)
        hostile.memory = msgspec.structs.replace(
            hostile.memory, fleet="fleet", authority="authority", epoch=HUGE
        )
        await refused(fleet, hostile)
        await taken_over(fleet, hostile)
        await fleet.agent("arm2")
        assert fleet.agents["arm2"].memory.epoch == term
        assert fleet.control.fleet.writer.epoch == term
    async with leading(tmp_path) as fleet:
        assert fleet.control.fleet.writer.epoch == term + 1


async def test_a_copy_of_the_disk_with_the_same_number_of_the_term_is_not_obeyed(tmp_path):
    """A virtual machine is set back to a snapshot; the original had started once more since."""
    agents = await running(tmp_path / "original")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "original" / "coordinator.db", tmp_path / "copy" / "coordinator.db")
    async with leading(tmp_path / "original") as fleet:
        await reconnect(fleet, agents)
        term = fleet.control.fleet.writer.epoch
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        await told(fleet)
    async with leading(tmp_path / "copy") as fleet:
        assert fleet.control.fleet.writer.epoch == term
        found = await refused(fleet, agents[0])
        assert "another coordinator of the same epoch" in found.reason
        assert found.outranked
        await taken_over(fleet, agents[0])
        found = await robot(fleet, "arm1")
        assert "there was a record" in found.audit or "is another one" in found.audit


@pytest.mark.parametrize("decision", ["adopt", "resume"])
async def test_generations_above_those_of_a_copied_store_keep_no_decision_from_working(
    tmp_path, decision
):
    agents = await running(tmp_path / "original")
    arm1, _ = agents
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "original" / "coordinator.db", tmp_path / "copy" / "coordinator.db")
    async with leading(tmp_path / "original") as fleet:
        await reconnect(fleet, agents)
        for number in range(20):
            await fleet.control.fleet.set_labels("arm3", {"n": str(number)}, {})
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        await fleet.run()
        await fleet.until(lambda: all(a.shares["talk"].status == "running" for a in agents))
    uuid, high = arm1.shares["talk"].uuid, arm1.shares["talk"].generation
    async with leading(tmp_path / "copy", authenticate=with_commands) as fleet:
        for agent in agents:
            await refused(fleet, agent)
            await taken_over(fleet, agent)
            await fleet.until(lambda a=agent: fleet.control.robots.get(a.robot).conflicts)
        assert high > fleet.control.fleet.next_generation + 5
        for agent in agents:
            if decision == "adopt":
                await describing(fleet, agent, "talk", TALK)
            if fleet.control.robots.get(agent.robot).conflicts:
                params = RobotRef(robot=agent.robot)
                assert (await fleet.call(f"robot.{decision}", params)).state == "connected"
        (talk,) = (await fleet.call("dataflow.list")).dataflows
        assert (talk.uuid == uuid) is (decision == "adopt")
        await fleet.until(lambda: {a.shares["talk"].status for a in agents} == {"running"})
        assert (await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))).status == "finished"
        assert {agent.shares["talk"].status for agent in agents} == {"stopped"}


async def test_a_cut_audit_is_reported_until_an_operator_acknowledges(tmp_path):
    folder = tmp_path / "one"
    agents = await running(folder)
    await led_again(folder, agents)
    store = await SqliteStore.open(folder / "coordinator.db")
    rows = [row async for row in read_rows(store)]
    cut = rows[-2]
    head = f"{cut.sequence}:{cut.hash}".encode()
    gone = [f"audit/{rows[-1].sequence:020}"]
    await store.commit(Transaction({}, {"audit-head": head}, gone))
    await store.close()
    # Again and again, also after the audit has grown beyond what robots know.
    for number in range(3):
        async with leading(folder) as fleet:
            await reconnect(fleet, agents)
            found = await robot(fleet, "arm1")
            assert found.audit, number
            assert [each.level for each in checks.check_robots([found])] == ["PASS", "FAIL"]
            for count in range(3):
                await fleet.control.fleet.set_labels("arm3", {"n": f"{number}.{count}"}, {})
    async with leading(folder) as fleet:
        await reconnect(fleet, agents)
        known = agents[0].audit
        done = await fleet.call("audit.acknowledge", AuditAcknowledge(robots=["arm1", "arm3"]))
        assert done.robots == ["arm1"]
        assert done.failed == {"arm3": "its audit does not differ"}
        assert not (await robot(fleet, "arm1")).audit
        assert (await robot(fleet, "arm2")).audit
        assert agents[0].audit == str(fleet.control.fleet.head)
        (record,) = [
            row.record async for row in read_rows(fleet.store) if b"acknowledge" in row.record
        ]
        assert known.encode() in record
        assert b"test 1" in record
        await fleet.disconnect(fleet.agents["arm2"])
        done = await fleet.call("audit.acknowledge", AuditAcknowledge())
        assert "cannot be reached" in done.failed["arm2"]
    async with leading(folder) as fleet:
        await reconnect(fleet, agents)
        assert not (await robot(fleet, "arm1")).audit
        assert (await robot(fleet, "arm2")).audit
        await fleet.call("audit.acknowledge", AuditAcknowledge())
        await told(fleet)
        assert not (await robot(fleet, "arm2")).audit


async def test_rollouts_and_the_audit_go_on_for_robots_that_do_not_differ(tmp_path):
    """One robot that lies about the audit stops nothing but what concerns itself."""
    async with leading(tmp_path) as fleet:
        liar = FakeAgent("arm1", fleet.port)
        liar.memory = msgspec.structs.replace(
            liar.memory, authority="authority", audit=f"{10**9}:{'f' * 64}"
        )
        fleet.agents["arm1"] = liar
        await fleet.connect(liar)
        await fleet.agent("arm2")
        assert (await robot(fleet, "arm1")).audit
        assert not (await robot(fleet, "arm2")).audit
        assert fleet.control.questions == []


async def test_revocations_after_a_backup_are_named_until_they_are_made_again(tmp_path):
    revoked: list[Revocation] = [Revocation(owner="operator ann", at=10.0)]
    async with leading(tmp_path, revocations=lambda: revoked) as fleet:
        agent = await fleet.agent("arm1")
        await fleet.until(lambda: agent.memory.revocations == revoked)
        # Robots learn of another one soon, not only when they connect again.
        revoked.append(Revocation(owner="robot arm3", at=20.0))
        await fleet.until(lambda: agent.memory.revocations == revoked)
    restored = [revoked[0]]
    async with leading(tmp_path, revocations=lambda: restored) as fleet:
        await reconnect(fleet, [agent])
        found = await robot(fleet, "arm1")
        assert found.revoked == ["robot arm3"]
        check = list(checks.check_robots([found]))[-1]
        assert (check.level, check.name) == ("FAIL", "arm1")
        assert "robot arm3 was revoked" in check.text
        assert "`dorafleet revoke --robot arm3`" in check.hint
        restored.append(Revocation(owner="robot arm3", at=99.0))
        assert (await robot(fleet, "arm1")).revoked == []


async def test_the_commands_take_over_and_acknowledge(tmp_path, capsys):
    make_token(tmp_path / "token")

    async def run(*words):
        where = ["--state", str(tmp_path), "--port", str(fleet.port)]
        code = await asyncio.to_thread(run_command, [*words, *where])
        return code, *capsys.readouterr()

    async with leading(tmp_path, authenticate=with_commands) as fleet:
        agent = FakeAgent("arm1", fleet.port)
        agent.memory = msgspec.structs.replace(
            agent.memory,
            fleet="fleet",
            authority="authority",
            epoch=900,
            audit=f"77:{'a' * 64}",
        )
        await refused(fleet, agent)
        assert (await run("takeover"))[0] == 2
        assert (await run("takeover", "arm1", "--all"))[0] == 2
        code, _, err = await run("takeover", "arm2")
        assert code == 1
        assert "arm2: robot `arm2` has not refused to obey" in err
        command = asyncio.create_task(run("takeover", "--all"))
        known = fleet.control.robots.get("arm1")
        await fleet.until(lambda: known.takes_over)
        await fleet.connect(agent)
        code, out, err = await command
        assert (code, out) == (0, "arm1: connected\n")
        code, _, err = await run("takeover", "--all")
        assert (code, "no machine waits for this" in err) == (0, True)

        code, out, _ = await run("audit", "acknowledge", "arm2")
        assert code == 1
        code, out, _ = await run("audit", "acknowledge")
        assert (code, out) == (0, "arm1: follows the audit as it is\n")
        for words in (("verify", "arm1"), ("acknowledge", "--known", "7:x")):
            assert (await run("audit", *words))[0] == 2
        records = b"".join([row.record async for row in read_rows(fleet.store)])
        assert b"audit.acknowledge" in records
        assert b"robot.takeover" in records
