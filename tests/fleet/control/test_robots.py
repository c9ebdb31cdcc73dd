"""Connections of robots: silence, replacement, nonsense, clocks, and returns."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import AgentReport, ShareState
from dorad.control.messages.releases import ReleaseState
from dorafleet.store.model import Transaction

from .agents import FakeAgent
from .serving import leading


async def robots(fleet):
    return {robot.id: robot for robot in (await fleet.call("robot.list")).robots}


async def test_a_robot_is_never_seen_then_connected_then_unreachable(tmp_path):
    async with leading(tmp_path) as fleet:
        before = (await robots(fleet))["arm1"]
        assert (before.state, before.reason) == ("never-seen", "it has never connected")
        agent = await fleet.agent("arm1")
        now = (await robots(fleet))["arm1"]
        assert (now.state, now.reason, now.version) == ("connected", "", "0.1.0")
        assert now.seen_at is not None
        await agent.stop()
        await fleet.until(lambda: fleet.control.robots.get("arm1").client is None)
        after = (await robots(fleet))["arm1"]
        assert after.state == "unreachable"
        assert "connection" in after.reason


async def test_silence_makes_it_unreachable_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.robots.HEARTBEAT_S", 0.1)
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.start()
        await fleet.wait("running")
        arm2.silent = True
        await fleet.until(lambda: fleet.control.robots.get("arm2").client is None)
        assert "silent" in (await robots(fleet))["arm2"].reason
        listed = (await fleet.call("dataflow.list")).dataflows
        assert [each.status for each in listed] == ["running"]
        assert len(arm1.sets) == 1
        # Back again, it is told nothing: nothing differs.
        arm2.silent = False
        await arm2.stop()
        await fleet.connect(arm2)
        assert len(arm2.sets) == 1


async def test_the_last_connection_of_an_id_wins_and_two_machines_are_noticed(tmp_path, caplog):
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1")
        second = FakeAgent("arm1", fleet.port, boot_id="boot-2")
        fleet.agents["second"] = second
        await second.start()
        await first.ended.until(lambda: not first.connected, 10)
        assert second.connected
        assert fleet.control.robots.get("arm1").attached.boot_id == "boot-2"
        assert "do two machines use this id?" in caplog.text
        assert (await robots(fleet))["arm1"].warnings == [
            "two machines connect with its id and certificate"
        ]


def release(dataflow, **fields):
    known = {"epoch": 1, "generation": 1, "phase": "staged", "since": 0.0, "release": "a" * 64}
    return ReleaseState(dataflow=dataflow, **{**known, **fields})


def share(**fields):
    known = {"dataflow": "x", "uuid": "u", "epoch": 1, "generation": 1}
    return ShareState(**{**known, "status": "ready", "since": 0.0, **fields})


@pytest.mark.parametrize(
    "nonsense",
    [
        m.Nothing(),
        AgentReport(time=0, shares=[share(since=1e300)]),
        AgentReport(time=0, shares=[share(uuid="u" * 1000)]),
        AgentReport(
            time=0, shares=[share(links={f"m{n}": m.LinkPeer(state="up") for n in range(2000)})]
        ),
        AgentReport(
            time=0,
            shares=[
                ShareState(dataflow="", uuid="", epoch=0, generation=0, status="ready", since=0)
            ],
        ),
        AgentReport(
            time=0,
            shares=[
                ShareState(dataflow="x", uuid="u", epoch=-1, generation=0, status="ready", since=0)
            ],
        ),
        AgentReport(
            time=0,
            shares=[
                ShareState(
                    dataflow=f"d{n}", uuid="u", epoch=1, generation=1, status="ready", since=0
                )
                for n in range(1001)
            ],
        ),
        AgentReport(time=0, releases=[release("")]),
        AgentReport(time=0, releases=[release("x", generation=-1)]),
        AgentReport(time=0, releases=[release("x", reason="y" * 300_000)]),
        AgentReport(time=0, releases=[release("x", restarted=["node"] * 2000)]),
        AgentReport(time=0, releases=[release(f"d{n}") for n in range(1001)]),
    ],
)
async def test_nonsense_closes_the_connection_and_touches_nothing_else(tmp_path, nonsense):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.start()
        await fleet.wait("running")
        arm1.nonsense = nonsense
        arm1.changed.ring()
        await fleet.until(lambda: fleet.control.robots.get("arm1").client is None)
        assert arm2.connected
        assert (await fleet.call("dataflow.list")).dataflows[0].status == "running"
        await arm1.stop()
        await fleet.connect(arm1)
        assert (await robots(fleet))["arm1"].state == "connected"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"time": 1e300}, "its clock shows"),
        ({"cores": -1.0}, "cores"),
        ({"memory": -1}, "bytes of memory"),
        ({"version": "9" * 5000}, "too long"),
    ],
)
async def test_a_first_answer_that_cannot_be_is_refused_with_the_reason(tmp_path, said, reason):
    async with leading(tmp_path) as fleet:
        agent = FakeAgent("arm1", fleet.port)
        agent.answer = said
        await agent.start()
        await fleet.until(lambda: fleet.control.robots.get("arm1").was_refused)
        found = (await robots(fleet))["arm1"]
        assert (found.state, reason in found.reason) == ("refused", True)
        await agent.stop()


@pytest.mark.parametrize("count", [3, 300])
async def test_a_dataflow_ends_however_much_its_robots_say_about_its_end(tmp_path, count):
    async with leading(tmp_path) as fleet:
        agents = [await fleet.agent(robot) for robot in ("arm1", "arm2")]
        await fleet.start()
        await fleet.wait("running")
        await fleet.until(lambda: all(each.shares["talk"].status == "running" for each in agents))
        long = "\u00e4" * 1200
        outcome = m.DataflowState(
            uuid="u",
            name="talk",
            status="failed",
            results=[m.NodeResult(node="n", outcome="failed", reason=long)] * count,
            failures=[m.Failure(headline=long, lines=[long])] * 30,
        )
        for agent in agents:
            agent.report("talk", "failed", reason=long, outcome=outcome)
        state = await fleet.wait("ended")
        assert state.status == "failed"
        assert (len(state.results), len(state.failures)) == ((6, 40) if count == 3 else (0, 1))
        assert all(len(each.headline) < 1100 for each in state.failures)
    async with leading(tmp_path) as fleet:
        assert (await fleet.call("dataflow.list")).dataflows[0].status == "failed"


async def test_an_agent_that_says_it_is_another_robot_is_refused(tmp_path):
    async with leading(tmp_path) as fleet:
        agent = FakeAgent("arm1", fleet.port)
        agent.name = "arm2"
        fleet.agents["arm1"] = agent
        await agent.start()
        await fleet.until(lambda: fleet.control.robots.get("arm1").was_refused)
        found = (await robots(fleet))["arm1"]
        assert found.state == "refused"
        assert "says that it is `arm2`" in found.reason
        await agent.ended.until(lambda: not agent.connected, 10)


async def test_one_that_is_not_in_the_file_is_closed(tmp_path):
    async with leading(tmp_path) as fleet:
        stranger = FakeAgent("arm9", fleet.port)
        fleet.agents["arm9"] = stranger
        await stranger.start()
        await stranger.ended.until(lambda: not stranger.connected, 10)
        assert not stranger.connected


@pytest.mark.parametrize(
    "frame", ["", "{}", '{"welcome": 7}', "[" * 5000, b"\x00\xff", '{"id": 1}']
)
async def test_garbage_instead_of_a_welcome_is_closed(tmp_path, frame):
    async with leading(tmp_path) as fleet:
        url = f"ws://127.0.0.1:{fleet.port}/agent"
        async with connect(url, additional_headers={"X-Robot": "arm1"}) as connection:
            assert "hello" in json.loads(await connection.recv())
            await connection.send(frame)
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(15):
                    while True:
                        await connection.recv()
        await fleet.agent("arm2")
        assert (await robots(fleet))["arm2"].state == "connected"


async def test_a_wrong_clock_is_shown(tmp_path):
    async with leading(tmp_path) as fleet:
        agent = FakeAgent("arm1", fleet.port)
        agent.clock = -1.7e9
        fleet.agents["arm1"] = agent
        await fleet.connect(agent)
        found = (await robots(fleet))["arm1"]
        assert found.state == "connected"
        assert found.skew == pytest.approx(-1.7e9, abs=60)
        assert "its clock is off by" in found.warnings[0]


def asked_often(monkeypatch):
    """Let robots be asked for their clock and the audit at every report, ten a second."""
    monkeypatch.setattr("dorafleet.coordinator.robots.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("dorafleet.coordinator.probing.EVERY_S", 0.0)


async def test_a_late_report_is_not_a_wrong_clock(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("dorafleet.coordinator.robots.HEARTBEAT_S", 0.1)
    async with leading(tmp_path) as fleet:
        agent = await fleet.agent("arm1")
        agent.delay = 3600.0
        seen = fleet.control.robots.get("arm1").seen_at
        await fleet.until(lambda: fleet.control.robots.get("arm1").seen_at > seen + 0.3)
        found = (await robots(fleet))["arm1"]
        assert found.skew == pytest.approx(0, abs=9)
        assert found.warnings == []
        assert "clock" not in caplog.text


async def test_a_clock_that_steps_is_noticed_without_a_new_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.robots.HEARTBEAT_S", 0.1)
    async with leading(tmp_path) as fleet:
        agent = await fleet.agent("arm1")
        agent.clock = 3600.0
        await fleet.until(lambda: fleet.control.robots.get("arm1").warnings)
        found = (await robots(fleet))["arm1"]
        assert found.skew == pytest.approx(3600, abs=60)
        assert found.warnings[0].startswith("its clock is off by 3")


async def test_an_audit_that_loses_its_tail_is_noticed_without_a_new_connection(
    tmp_path, monkeypatch
):
    asked_often(monkeypatch)
    async with leading(tmp_path) as fleet:
        agent, _ = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.start()
        await fleet.until(lambda: agent.audit == str(fleet.control.fleet.head))
        found = (await fleet.store.get("audit")).entries
        await fleet.store.commit(Transaction({}, {}, [entry.key for entry in found]))
        await fleet.until(lambda: fleet.control.robots.get("arm1").audit)
        assert agent.connected
        found = (await robots(fleet))["arm1"]
        assert found.audit.endswith("there was a record 1") or "is another one" in found.audit


async def test_an_agent_that_cannot_be_asked_stays_connected(tmp_path, monkeypatch):
    """An agent of an earlier version does not know the method."""
    asked_often(monkeypatch)
    async with leading(tmp_path) as fleet:
        agent = FakeAgent("arm1", fleet.port)
        asked = []

        async def unknown(_call, params):
            asked.append(params)
            raise ControlError("unknown-method", "there is no method `agent.remember`")

        agent.handlers = {"agent.remember": unknown}
        fleet.agents["arm1"] = agent
        await fleet.connect(agent)
        seen = fleet.control.robots.get("arm1").seen_at
        await fleet.until(lambda: fleet.control.robots.get("arm1").seen_at > seen + 0.5)
        assert len(asked) == 1
        assert agent.connected


async def test_the_age_of_a_report_is_counted_by_the_coordinator(tmp_path):
    async with leading(tmp_path) as fleet:
        assert (await robots(fleet))["arm1"].age is None
        await fleet.agent("arm1")
        first = (await robots(fleet))["arm1"].age
        await asyncio.sleep(0.05)
        second = (await robots(fleet))["arm1"].age
        assert 0 <= first < second < 60


async def test_a_robot_that_returns_gets_what_was_decided_meanwhile(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.start()
        await fleet.wait("running")
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
        await arm2.stop()
        await fleet.until(lambda: fleet.control.robots.get("arm2").client is None)
        with pytest.raises(ControlError, match="`arm2`: it is unreachable") as caught:
            await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        assert caught.value.code == "unavailable"
        assert arm1.shares["talk"].status == "stopped"
        assert arm2.shares["talk"].status == "running"
        await fleet.connect(arm2)
        assert (await fleet.wait("ended")).status == "finished"
        assert arm2.shares["talk"].status == "stopped"


async def test_a_stop_by_force_waits_for_nobody_and_the_name_stays_taken(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        arm2 = await fleet.agent("arm2")
        await fleet.start()
        await fleet.wait("running")
        await arm2.stop()
        await fleet.until(lambda: fleet.control.robots.get("arm2").client is None)
        state = await fleet.call("dataflow.stop", m.Stop(dataflow="talk", force=True))
        assert state.status == "finished"
        assert (await fleet.call("dataflow.clean")).dataflows == []
        node = {"id": "one", "path": "one.py", "deploy": {"machine": "arm1"}}
        with pytest.raises(ControlError, match="`talk` has not ended on `arm2`"):
            await fleet.start({"nodes": [node]})
        await fleet.connect(arm2)
        await fleet.until(lambda: arm2.shares["talk"].status == "stopped")
        await fleet.start({"nodes": [node]})
        assert (await fleet.wait("running")).status == "running"
        await fleet.until(lambda: "talk" not in arm2.shares)


async def test_a_new_leader_finds_everything_as_it_is(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        started = await fleet.start()
        await fleet.wait("running")
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
    async with leading(tmp_path) as fleet:
        for agent in (arm1, arm2):
            agent.port = fleet.port
            fleet.agents[agent.robot] = agent
            await fleet.connect(agent)
        assert (await fleet.wait("running")).uuid == started.uuid
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        assert [len(arm1.sets), len(arm2.sets)] == [2, 2]
        assert arm1.sets[1].epoch > arm1.sets[0].epoch


async def test_a_leader_that_dies_while_the_barrier_is_closed_is_followed_by_one_that_opens(
    tmp_path,
):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        arm1.becomes = "starting"
        await fleet.start()
        await fleet.until(lambda: "talk" in arm1.shares and "talk" in arm2.shares)
    arm1.report("talk", "ready")
    async with leading(tmp_path) as fleet:
        for agent in (arm1, arm2):
            agent.port = fleet.port
            fleet.agents[agent.robot] = agent
            await fleet.connect(agent)
        assert (await fleet.wait("running")).status == "running"
        await fleet.until(lambda: arm1.shares["talk"].status == "running")
        assert len(arm1.sets) == 1
