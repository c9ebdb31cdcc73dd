"""Robots that connect and never attach keep no other out; the newest connection of each counts."""

import asyncio
import os
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dorad.agent.dial import LIMITS
from dorad.control import asyncclient
from dorad.control.peer import Peer
from dorad.control.session import ClientSession
from dorad.control.target import ROBOT
from dorafleet.coordinator import connections
from tests.fleet.control.agents import METHODS
from tests.fleet.control.serving import leading, machine
from tests.harness.waiting import DEADLINE_S, until

MANY = 70


@pytest.fixture(autouse=True)
def no_end(monkeypatch):
    """Let a robot have so much time to attach that no test can wait for its end."""
    monkeypatch.setattr(connections, "ATTACH_S", 10 * DEADLINE_S)
    monkeypatch.setattr(asyncclient, "ROBOT", ROBOT._replace(connect=10 * DEADLINE_S))


async def opened(fleet, robot, stack):
    """Open a connection as a robot; None if it is refused."""
    try:
        return await stack.enter_async_context(
            connect(
                f"ws://127.0.0.1:{fleet.port}/agent",
                additional_headers={"X-Robot": robot},
                compression=None,
                open_timeout=None,
                close_timeout=0.1,
                ping_interval=None,
            )
        )
    except InvalidStatus as error:
        assert error.response.status_code == 503
        assert int(error.response.headers["Retry-After"]) > 0
        return None


async def stall(fleet, robot, stack):
    """Connect as a robot that answers nothing after its welcome; return what it was asked."""
    asked = asyncio.Event()

    async def attach(_call, _params):
        asked.set()
        await asyncio.Event().wait()

    connection = await opened(fleet, robot, stack)
    session = ClientSession(
        connection,
        Peer(0, os.getuid(), os.getgid()),
        {"agent.attach": attach},
        METHODS,
        "dorad-agent 1",
        LIMITS,
    )
    stack.callback(asyncio.create_task(session.run()).cancel)
    return asked


async def test_a_robot_that_opens_many_connections_and_never_attaches_keeps_no_other_out(tmp_path):
    async with leading(tmp_path) as fleet, AsyncExitStack() as stack:
        held = [await opened(fleet, "arm1", stack) for _ in range(MANY)]
        await fleet.agent("arm2")
        await fleet.agent("arm1")
        # Not one of the others is still open: the newest has replaced them.
        for each in filter(None, held):
            with pytest.raises(ConnectionClosed):
                while True:
                    await each.recv()
        assert fleet.agents["arm1"].connected


async def test_the_newest_connection_of_a_robot_ends_the_one_that_has_not_attached(tmp_path):
    async with leading(tmp_path) as fleet, AsyncExitStack() as stack:
        first = await opened(fleet, "arm1", stack)
        await first.recv()
        second = await opened(fleet, "arm1", stack)
        with pytest.raises(ConnectionClosed):
            await first.recv()
        await second.recv()
        robot = fleet.control.robots.get("arm1")
        # The older one is not a refusal: an operator would look for its reason.
        assert not robot.was_refused


async def test_robots_that_did_not_attach_once_keep_the_others_out_no_second_time(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(connections, "SLOTS", 3)
    monkeypatch.setattr(connections, "SLOW_SLOTS", 1)
    bad = [machine(f"bad{number}", number) for number in range(1, 7)]
    good = machine("good", 100)
    async with leading(tmp_path, (*bad, good)) as fleet, AsyncExitStack() as stack:
        for round_ in range(2):
            for each in bad[round_ * 3 : round_ * 3 + 3]:
                async with AsyncExitStack() as once:
                    asked = await stall(fleet, each.id, once)
                    await asyncio.wait_for(asked.wait(), DEADLINE_S)
        again = [await stall(fleet, each.id, stack) for each in bad]
        await until(lambda: any(asked.is_set() for asked in again))
        await fleet.agent("good")
        # One that attaches has the slots of all others again.
        assert sum(asked.is_set() for asked in again) == 1


async def test_a_robot_is_told_how_long_its_fleet_spreads_its_tries(tmp_path):
    machines = tuple(machine(f"arm{number}", number % 200) for number in range(1, 401))
    async with leading(tmp_path, machines) as fleet:
        agent = await fleet.agent("arm1")
        assert agent.pause == 2.0
