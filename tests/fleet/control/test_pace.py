"""A robot that sends reports as fast as it can is read slowly, and delays only itself."""

import asyncio
import time

import pytest

from dorad.control import pace
from dorad.control.messages.agent import AgentReport, ShareState
from dorafleet.coordinator import robot as robot_module
from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.serving import leading
from tests.harness.waiting import DEADLINE_S, until

pytestmark = pytest.mark.long

RATE = 128 << 10
"""Less than a robot sends on the busiest machine; a report is read each second."""
BURST = 512 << 10
SIZE = 128 << 10
BUFFERS = 24 << 20
"""What sockets and queues hold of one connection, at most."""


@pytest.fixture(autouse=True)
def slow(monkeypatch):
    weight = robot_module.REPORT_WEIGHT
    monkeypatch.setattr(robot_module, "RATE", RATE * weight)
    monkeypatch.setattr(robot_module, "BURST", BURST * weight)
    monkeypatch.setattr(pace, "WINDOW_S", 2.0)


def large_report(number):
    share = ShareState(
        dataflow=f"flow{number % 10}",
        uuid="u",
        epoch=1,
        generation=number,
        status="pending",
        since=1.0,
        reason="x" * SIZE,
    )
    return AgentReport(time=time.time(), shares=[share])


class Flood(FakeAgent):
    """An agent that reports without end."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.reports = 0
        self.handlers["agent.watch"] = self.flood

    async def flood(self, _call, _params):
        while True:
            self.reports += 1
            yield large_report(self.reports)


async def test_a_robot_that_floods_waits_itself_and_no_other_does(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm2")
        agent = fleet.agents["arm1"] = Flood("arm1", fleet.port)
        began = time.monotonic()
        await fleet.connect(agent)
        known = fleet.control.robots.get("arm1")
        await until(lambda: known.pace.exceeded)
        # It would have sent all that the coordinator can take until now.
        allowed = BURST + RATE * (time.monotonic() - began) + BUFFERS
        assert agent.reports * SIZE <= allowed
        await fleet.call("robot.list")
        assert any(
            "sends more than" in each.text for each in fleet.control.overview.findings(known)
        )
        arm2 = fleet.control.robots.get("arm2")
        assert not fleet.control.overview.findings(arm2)
        # What it sends is taken, late: it is neither cut off nor forgotten.
        before = agent.reports
        await until(lambda: agent.reports > before + 2)
        assert known.client is not None
        assert agent.connected


async def test_a_new_connection_does_not_start_with_a_full_burst(tmp_path):
    async with leading(tmp_path) as fleet:
        agent = fleet.agents["arm1"] = Flood("arm1", fleet.port)
        await fleet.connect(agent)
        known = fleet.control.robots.get("arm1")
        await until(lambda: known.pace.pause() > 0)
        await agent.stop()
        await asyncio.wait_for(fleet.connect(agent), DEADLINE_S)
        assert known.pace.pause() > 0
