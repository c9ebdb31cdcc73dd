"""Connections of robots: silence, replacement, nonsense, clocks, and returns."""

import asyncio
import json
import re

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dorad import __version__
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import AgentReport, ShareState
from dorad.control.messages.releases import Evidence, Lease, ReleaseState
from dorad.control.shortening import KEPT_FAILURES, KEPT_LEASES, KEPT_LINES
from dorafleet.coordinator.membermessages import RobotRemove
from dorafleet.coordinator.reports import MAX_STATES
from dorafleet.coordinator.robot import MAX_REASON
from dorafleet.store.model import Transaction

from .agents import FakeAgent
from .serving import DEADLINE_S, leading


async def robots(fleet):
    return {robot.id: robot for robot in (await fleet.call("robot.list")).robots}


async def test_a_robot_is_never_seen_then_connected_then_unreachable(tmp_path):
    async with leading(tmp_path) as fleet:
        before = (await robots(fleet))["arm1"]
        assert (before.state, before.reason) == ("never-seen", "it has never connected")
        agent = await fleet.agent("arm1")
        now = (await robots(fleet))["arm1"]
        assert (now.state, now.reason, now.version) == ("connected", "", __version__)
        assert now.seen_at is not None
        await fleet.disconnect(agent)
        after = (await robots(fleet))["arm1"]
        assert after.state == "unreachable"
        assert "connection" in after.reason


async def test_silence_makes_it_unreachable_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.connections.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("dorafleet.coordinator.connections.SILENT_HEARTBEATS", 20)
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
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


def release(dataflow, **fields):
    known = {"epoch": 1, "generation": 1, "phase": "staged", "since": 0.0, "release": "a" * 64}
    return ReleaseState(dataflow=dataflow, **{**known, **fields})


def share(dataflow, **fields):
    known = {"uuid": "u", "epoch": 1, "generation": 1, "status": "ready", "since": 0.0}
    return ShareState(dataflow=dataflow, **{**known, **fields})


@pytest.mark.parametrize(
    "nonsense",
    [
        m.Nothing(),
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
        AgentReport(time=0, shares=[share("x", uuid="y" * 600_000)]),
        AgentReport(time=0, shares=[share("x", since=1e300)]),
        AgentReport(time=-1.7e308),
        AgentReport(time=0, room=-1),
        AgentReport(time=0, removed=["x"] * 1001),
        AgentReport(time=0, releases=[release("")]),
        AgentReport(time=0, releases=[release("x", generation=-1)]),
        AgentReport(time=0, releases=[release("x", running="y" * 201)]),
        AgentReport(time=0, releases=[release("x", since=-1e300)]),
        AgentReport(time=0, releases=[release(f"d{n}") for n in range(1001)]),
    ],
)
async def test_nonsense_closes_the_connection_and_touches_nothing_else(tmp_path, nonsense):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
        arm1.nonsense = nonsense
        arm1.changed.ring()
        await fleet.until(lambda: fleet.control.robots.get("arm1").client is None)
        assert arm2.connected
        assert (await fleet.call("dataflow.list")).dataflows[0].status == "running"
        await arm1.stop()
        await fleet.connect(arm1)
        assert (await robots(fleet))["arm1"].state == "connected"


async def test_reports_one_after_the_other_do_not_fill_the_coordinator(tmp_path):
    async with leading(tmp_path) as fleet:
        agent, known = await fleet.agent("arm1"), fleet.control.robots.get("arm1")
        for number in range(MAX_STATES // 400_000 + 1):
            before = len(known.shares)
            if known.client is None:
                break
            agent.nonsense = AgentReport(time=0, shares=[share(f"d{number}", uuid="y" * 400_000)])
            agent.changed.ring()
            await fleet.until(lambda: known.client is None or len(known.shares) > before)  # noqa: B023
        assert known.client is None
        assert sum(len(each.uuid) for each in known.shares.values()) <= MAX_STATES
        assert "more than" in known.reason


async def test_of_a_share_with_very_many_failures_only_some_lines_are_kept(tmp_path):
    failures = [m.Failure(headline=f"n{n}", lines=["x" * 1000] * 20) for n in range(100)]
    outcome = m.DataflowState(uuid="u", name=None, status="failed", failures=failures)
    async with leading(tmp_path) as fleet:
        agent, known = await fleet.agent("arm1"), fleet.control.robots.get("arm1")
        agent.nonsense = AgentReport(time=0, shares=[share("x", status="failed", outcome=outcome)])
        agent.changed.ring()
        await fleet.until(lambda: "x" in known.shares)
        kept = known.shares["x"].outcome.failures
        assert (len(kept), kept[0].headline) == (KEPT_FAILURES, "n0")
        assert {len(each.lines) for each in kept} == {KEPT_LINES}
        assert known.client is not None


async def test_of_a_release_of_very_many_nodes_the_main_parts_are_kept(tmp_path):
    """Each of a thousand nodes fails and holds leases: that does not cut off the robot."""
    evidence = [Evidence(check=f"node n{n}", ok=n < 1000, text="x" * 200) for n in range(1100)]
    leases = [Lease(id=f"u/n{n}/1", reason="r" * 200, owner="o", since=0.0) for n in range(3000)]
    long = release("x", evidence=evidence, leases=leases, restarted=[f"n{n}" for n in range(1000)])
    async with leading(tmp_path) as fleet:
        agent, known = await fleet.agent("arm1"), fleet.control.robots.get("arm1")
        agent.nonsense = AgentReport(time=0, releases=[long])
        agent.changed.ring()
        await fleet.until(lambda: "x" in known.releases)
        kept = known.releases["x"]
        assert [each.check for each in kept.evidence if not each.ok] == [
            f"node n{n}" for n in range(1000, 1100)
        ]
        assert (len(kept.leases), len(kept.restarted)) == (KEPT_LEASES, 1000)
        assert known.client is not None


async def test_a_dataflow_ends_even_if_its_results_are_too_large_for_the_store(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("dorafleet.store.model.MAX_BYTES", 20_000)
    outcome = m.DataflowState(
        uuid="u",
        name="talk",
        status="failed",
        failures=[m.Failure(headline="n", lines=["x" * 1000] * 5)] * 10,
    )
    async with leading(tmp_path) as fleet:
        agents = [await fleet.agent(robot) for robot in ("arm1", "arm2")]
        await fleet.run()
        await fleet.until(lambda: all(each.shares["talk"].status == "running" for each in agents))
        for agent in agents:
            agent.report("talk", "failed", outcome=outcome)
        state = await fleet.wait("ended")
        assert state.status == "failed"
        assert [each.headline for each in state.failures] == [
            "the results of its nodes are too large to be kept"
        ]


async def test_a_refusal_of_a_robot_is_kept_in_part(tmp_path):
    async def refuse(_call, _params):
        raise ControlError("refused", "y" * 1_000_000)

    async with leading(tmp_path) as fleet:
        agent = FakeAgent("arm1", fleet.port)
        agent.handlers["agent.attach"] = refuse
        fleet.agents["arm1"] = agent
        await agent.start()
        known = fleet.control.robots.get("arm1")
        await fleet.until(lambda: known.was_refused)
        assert len(known.reason) == MAX_REASON


@pytest.mark.parametrize(
    ("said", "words"),
    [({"name": "arm2"}, "says that it is `arm2`"), ({"python": "3" * 201}, "is too long")],
)
async def test_an_agent_whose_first_answer_cannot_be_true_is_refused(tmp_path, said, words):
    async with leading(tmp_path) as fleet:
        agent = FakeAgent("arm1", fleet.port)
        vars(agent).update(said)
        fleet.agents["arm1"] = agent
        await agent.start()
        await fleet.until(lambda: fleet.control.robots.get("arm1").was_refused)
        found = (await robots(fleet))["arm1"]
        assert found.state == "refused"
        assert words in found.reason
        await agent.ended.until(lambda: not agent.connected, DEADLINE_S)


async def test_one_that_is_not_in_the_file_is_closed(tmp_path):
    async with leading(tmp_path) as fleet:
        stranger = FakeAgent("arm9", fleet.port)
        fleet.agents["arm9"] = stranger
        await stranger.start()
        await stranger.ended.until(lambda: not stranger.connected, DEADLINE_S)
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
                async with asyncio.timeout(DEADLINE_S):
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
        assert found.warnings[0] == "its clock is 19676 days behind"


def reporting_often(monkeypatch):
    """Let robots report ten times a second; on a busy machine they are silent for longer."""
    monkeypatch.setattr("dorafleet.coordinator.connections.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("dorafleet.coordinator.connections.SILENT_HEARTBEATS", 600)


def asked_often(monkeypatch):
    """Let robots be asked for their clock and the audit at every report."""
    reporting_often(monkeypatch)
    monkeypatch.setattr("dorafleet.coordinator.probe.EVERY_S", 0.0)


async def test_a_late_report_is_not_a_wrong_clock(tmp_path, monkeypatch, caplog):
    reporting_often(monkeypatch)
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
    reporting_often(monkeypatch)
    async with leading(tmp_path) as fleet:
        agent = await fleet.agent("arm1")
        agent.clock = 3600.0
        arm1 = fleet.control.robots.get("arm1")
        await fleet.until(lambda: fleet.control.overview.findings(arm1))
        found = (await robots(fleet))["arm1"]
        assert found.skew == pytest.approx(3600, abs=60)
        assert found.warnings[0] == "its clock is 60 min ahead"


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
        lost = re.search(r"there was a record [123]$", found.audit)
        assert lost or "is another one" in found.audit


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
        await fleet.run()
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
        await fleet.disconnect(arm2)
        with pytest.raises(ControlError, match="`arm2`: it is unreachable") as caught:
            await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
        assert caught.value.code == "unavailable"
        assert arm1.shares["talk"].status == "stopped"
        assert arm2.shares["talk"].status == "running"
        await fleet.connect(arm2)
        assert (await fleet.wait("ended")).status == "finished"
        assert arm2.shares["talk"].status == "stopped"


async def test_a_stop_by_force_waits_for_no_robot_and_the_name_stays_taken(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        arm2 = await fleet.agent("arm2")
        await fleet.run()
        await fleet.disconnect(arm2)
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
        started = await fleet.run()
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


async def test_a_robot_that_has_left_the_fleet_holds_up_no_dataflow(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        await fleet.run()
        await fleet.until(lambda: arm2.shares["talk"].status == "running")
        await arm1.stop()
        await arm2.stop()
        await fleet.call("robot.remove", RobotRemove(robot="arm1", lost=True))
    async with leading(tmp_path) as fleet:
        arm2.port = fleet.port
        fleet.agents["arm2"] = arm2
        await fleet.connect(arm2)
        assert [each.id for each in fleet.control.robots.all] == ["arm2", "arm3"]
        await fleet.call("dataflow.stop", m.Stop(dataflow="talk", grace=0))
        await fleet.until(lambda: arm2.shares["talk"].status == "stopped")
        (cleaned,) = (await fleet.call("dataflow.clean")).dataflows
        assert cleaned.name == "talk"
