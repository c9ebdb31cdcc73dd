"""Robots with a real dorad, which look at their releases often; and a clock to set on."""

from contextlib import asynccontextmanager

import pytest

from dorad.agent.assignments import files, queries, releases
from tests.agent.assignments.robot import Robot
from tests.harness.daemon import daemon
from tests.harness.waiting import until


@pytest.fixture(scope="module")
def dorad():
    with daemon() as running:
        yield running


@pytest.fixture
async def robot(folder, dorad, monkeypatch):
    async with robot_with(folder, dorad, monkeypatch) as running:
        yield running


@pytest.fixture
async def frail_robot(folder, monkeypatch):
    """A robot with its own dorad, for power cuts."""
    with daemon() as own:
        async with robot_with(folder, own, monkeypatch) as running:
            yield running


@asynccontextmanager
async def robot_with(folder, dorad, monkeypatch):
    for name in ("CALM_EVERY_S", "SWITCH_EVERY_S", "WAITING_EVERY_S", "CONFIRMED_EVERY_S"):
        monkeypatch.setattr(releases, name, 0.1)
    for name in ("EVERY_S", "DAMAGED_EVERY_S"):
        monkeypatch.setattr(files, name, 0.1)
    robot = Robot(folder, dorad)
    robot.start()
    yield robot
    for name in list(robot.store.releases):
        robot.order(None, 1000, dataflow=name)
    await until(lambda: not robot.assignments.releases)
    await robot.kill()


@pytest.fixture
def pass_time(monkeypatch):
    """Return a function that sets the robot's clock on, past a deadline."""
    clock, passed = queries.clock, [0.0]
    monkeypatch.setattr(queries, "clock", lambda: clock() + passed[0])

    def forward(seconds):
        passed[0] += seconds

    return forward
