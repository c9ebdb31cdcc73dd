"""A restart that was begun is finished, even if its client or the coordinator ends meanwhile."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.audit import read_rows, verify
from dorafleet.coordinator.records import RobotAssignment
from dorafleet.coordinator.starter import Starter

from .serving import leading


@asynccontextmanager
async def restarting(fleet, dataflow="talk", **params):
    """Restart a dataflow whose stop the robot `arm1` receives only at the end of the block."""
    arm1 = fleet.agents["arm1"]
    arm1.begins.clear()
    call = asyncio.create_task(
        fleet.call("dataflow.restart", m.Stop(dataflow=dataflow, **params)), name="restart"
    )
    await fleet.until(lambda: call.done() or any(r.again for r in fleet.control.fleet.records))
    assert not call.done()
    try:
        yield call
    finally:
        arm1.begins.set()
        call.cancel()
        with suppress(asyncio.CancelledError, ControlError):
            await call


async def running(fleet, **options):
    """Run a dataflow on two robots; return its UUID."""
    for robot in ("arm1", "arm2"):
        await fleet.agent(robot)
    started = await fleet.start(**options)
    await fleet.wait("running", started.uuid)
    return started.uuid


async def until_again(fleet, before):
    """Wait until another run runs on both robots, and nothing else does."""

    def runs():
        return [record for record in fleet.control.fleet.running if record.opened]

    await fleet.until(lambda: [record.uuid for record in runs()] not in ([], [before]))
    (record,) = fleet.control.fleet.running
    for agent in fleet.agents.values():
        await fleet.until(
            lambda agent=agent: (
                [share.uuid for share in agent.shares.values() if share.status == "running"]
                == [record.uuid]
            )
        )
    assert not any(record.again for record in fleet.control.fleet.records)
    return record


@pytest.mark.parametrize("name", ["talk", None])
async def test_the_next_coordinator_finishes_a_restart(tmp_path, name):
    async with leading(tmp_path) as fleet:
        before = await running(fleet, name=name)
        agents = dict(fleet.agents)
        agents["arm1"].params = {"talker": {"rate": 20}}
        async with restarting(fleet, before):
            # Only a coordinator that is killed stops answering here.
            await fleet.stop_agents()
    async with leading(tmp_path) as fleet:
        for robot, agent in agents.items():
            agent.port = fleet.port
            fleet.agents[robot] = agent
            await fleet.connect(agent)
        record = await until_again(fleet, before)
        assert record.name == name
        assert record.params == {"talker": {"rate": 20}}
        records = [row.record async for row in read_rows(fleet.store)]
        starts = [each for each in records if b'"dataflow.start"' in each]
        assert len(starts) == 2
        assert all(b'"ann"' in each for each in starts)
        await verify(fleet.store)


@pytest.mark.parametrize("name", ["talk", None])
async def test_a_restart_goes_on_without_its_client(tmp_path, name):
    async with leading(tmp_path) as fleet:
        before = await running(fleet, name=name)
        async with restarting(fleet, before) as call:
            call.cancel()
            await asyncio.wait([call])
        await until_again(fleet, before)


async def test_a_second_restart_meanwhile_has_the_same_result(tmp_path):
    async with leading(tmp_path) as fleet:
        before = await running(fleet)
        async with restarting(fleet) as first:
            second = asyncio.create_task(
                fleet.call("dataflow.restart", m.Stop(dataflow="talk")), name="second"
            )
            await asyncio.sleep(0)
            fleet.agents["arm1"].begins.set()
            found = await asyncio.gather(first, second)
        assert found[0].old == found[1].old == before
        assert found[0].new == found[1].new
        await until_again(fleet, before)


async def test_a_second_restart_that_comes_too_late_has_the_same_result(tmp_path, monkeypatch):
    async with leading(tmp_path) as fleet:
        before = await running(fleet)
        async with restarting(fleet) as call:
            (stale,) = fleet.control.fleet.records
            fleet.agents["arm1"].begins.set()
            first = await call
        # It waited for its turn while the first one was finished.
        monkeypatch.setattr(fleet.control.fleet, "find", lambda *_, **__: stale)
        second = await fleet.call("dataflow.restart", m.Stop(dataflow="talk"))
        assert (second.old, second.new) == (before, first.new)


async def test_a_robot_that_is_away_for_a_moment_is_restarted_when_it_is_back(tmp_path):
    async with leading(tmp_path) as fleet:
        before = await running(fleet)
        arm1 = fleet.agents["arm1"]
        async with restarting(fleet) as call:
            await arm1.stop()
            with pytest.raises(ControlError, match=r"arm1.*is started again once it has ended"):
                await call
        await fleet.connect(arm1)
        await until_again(fleet, before)


async def test_a_stop_ends_a_restart(tmp_path):
    async with leading(tmp_path) as fleet:
        await running(fleet)
        async with restarting(fleet) as call:
            stop = asyncio.create_task(
                fleet.call("dataflow.stop", m.Stop(dataflow="talk")), name="stop"
            )
            with pytest.raises(ControlError, match="was stopped meanwhile"):
                await call
            fleet.agents["arm1"].begins.set()
            assert (await stop).status == "finished"
        (flow,) = (await fleet.call("dataflow.list")).dataflows
        assert flow.status == "finished"


async def test_a_stop_also_ends_the_restart_of_what_has_ended(tmp_path, monkeypatch):
    async with leading(tmp_path) as fleet:
        await running(fleet)
        begin = asyncio.Event()
        again = Starter.start_again

        async def wait(starter, key):
            await begin.wait()
            return await again(starter, key)

        monkeypatch.setattr(Starter, "start_again", wait)
        async with restarting(fleet) as call:
            fleet.agents["arm1"].begins.set()
            await fleet.until(lambda: not fleet.control.fleet.running)
            stopped = await fleet.call("dataflow.stop", m.Stop(dataflow="talk"))
            assert stopped.status == "finished"
            begin.set()
            with pytest.raises(ControlError, match="has ended"):
                await call
        assert not fleet.control.fleet.running


async def test_what_cannot_be_started_again_stays_ended_with_the_reason(tmp_path):
    async with leading(tmp_path) as fleet:
        await running(fleet)
        async with restarting(fleet) as call:
            state = fleet.control.fleet
            order = RobotAssignment(state.next_generation, release="a" * 64)
            await state.put_orders({("arm3", "talk"): order}, {"action": "test"})
            fleet.agents["arm1"].begins.set()
            with pytest.raises(ControlError, match="not started again: `talk` on `arm3` belongs"):
                await call
        (record,) = state.records
        assert (record.running, record.again) == (False, None)
        ended = await fleet.call("dataflow.wait", m.Wait(dataflow="talk", until="running"))
        assert "belongs to the release" in ended.failures[-1].headline
