"""SIGKILL ends a coordinator at every step of a rollout; the journal is whole after each."""

import asyncio
import json
import socket
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from itertools import pairwise

import pytest
from websockets.exceptions import WebSocketException

from tests.fleet.control.agents import FakeAgent

from .killed import ROBOTS
from .test_cells import ID1, ID2

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

RUNS_S = 280.0


async def stay_connected(agent: FakeAgent) -> None:
    """Connect again whenever the connection ends, as an agent does."""
    while True:
        # The last: the coordinator was killed before it had answered.
        with suppress(OSError, EOFError, WebSocketException):
            await agent.start()
            await agent.ended.wait(60.0)
        await agent.stop()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("scope", ["each", "each:cell"])
async def test_after_each_step_the_next_coordinator_continues_and_no_robot_switches_twice(
    tmp_path, scope
):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    agents = [FakeAgent(f"r{number}", port) for number in range(1, ROBOTS + 1)]
    for agent in agents:
        agent.releases.runs("pick", ID1)
    words = ("-m", "tests.fleet.rollout.killed", str(tmp_path), str(port), scope)
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=PIPE)
    staying = [asyncio.create_task(stay_connected(agent)) for agent in agents]
    try:
        async with asyncio.timeout(RUNS_S):
            out, _ = await process.communicate()
    finally:
        for task in staying:
            task.cancel()
        await asyncio.gather(*staying, return_exceptions=True)
        for agent in agents:
            await agent.stop()
        if process.returncode is None:
            process.kill()
            await process.wait()
    journals = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0, journals
    # Each run makes one step, whenever it is killed; the last one may make none.
    assert [len(journal) for journal in journals[:-1]] == list(range(1, len(journals)))
    for earlier, later in pairwise(journals):
        assert later[: len(earlier)] == earlier
    last = journals[-1]
    assert last[-2:] == ["enter succeeded", "end"]
    assert last.count("order commit r1 r2") == (scope != "each")
    for agent in agents:
        switches = [step for step in last if step.startswith("order switch")]
        assert sum(agent.robot in step.split() for step in switches) == 1
        assert agent.releases.switches == [ID2]
