"""Clients that go away in the middle of a command: memory, store and audit agree."""

import asyncio

from dorad.control import messages as m
from dorafleet.coordinator.audit import read_rows

from .serving import leading


class SlowStore:
    """Answers a change only when it is told to, after it was made."""

    def __init__(self, store, action):
        self.made = asyncio.Event()
        self.answers = asyncio.Event()
        self._action = action.encode()
        self._commit = store.commit
        store.commit = self.commit

    async def commit(self, transaction):
        revision = await self._commit(transaction)
        if any(self._action in value for value in transaction.puts.values()):
            self.made.set()
            await self.answers.wait()
        return revision


async def go_away(call):
    """Cancel a call as the end of its client's connection does, and wait for its end."""
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()


async def test_a_start_whose_client_goes_away_while_it_is_written_is_carried_out(tmp_path):
    async with leading(tmp_path) as fleet:
        arm1, arm2 = await fleet.agent("arm1"), await fleet.agent("arm2")
        slow = SlowStore(fleet.store, "dataflow.start")
        call = asyncio.create_task(fleet.start())
        await slow.made.wait()
        call.cancel()
        await asyncio.sleep(0)
        slow.answers.set()
        await go_away(call)
        # What the store has is what this coordinator knows and does.
        await fleet.wait("running")
        uuids = {agent.shares["talk"].uuid for agent in (arm1, arm2)}
        assert uuids == {fleet.control.fleet.get("talk").uuid}


async def test_a_parameter_that_a_robot_has_set_is_in_the_audit_also_without_the_client(tmp_path):
    async with leading(tmp_path) as fleet:
        asked, answers = asyncio.Event(), asyncio.Event()

        async def set_param(_call, params):
            asked.set()
            await answers.wait()
            return m.Param(key=params.key, value=params.value)

        async def get_param(_call, params):
            return m.Param(key=params.key, value=1)

        for robot in ("arm1", "arm2"):
            agent = await fleet.agent(robot)
            agent.handlers = {"param.set": set_param, "param.get": get_param}
            await agent.stop()
            await fleet.until(lambda robot=robot: not fleet.control.robots.get(robot).client)
            await fleet.connect(agent)
        await fleet.run()
        params = m.ParamSet(dataflow="talk", node="talker", key="rate", value=20)
        call = asyncio.create_task(fleet.call("param.set", params))
        await asked.wait()
        call.cancel()
        await asyncio.sleep(0)
        answers.set()
        await go_away(call)
        records = [row.record async for row in read_rows(fleet.store)]
        assert any(b'"param.set"' in each and b'"new":"20"' in each for each in records)
        assert fleet.control.fleet.get("talk").params == {"talker": {"rate": 20}}
