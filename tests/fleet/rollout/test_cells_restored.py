"""A store is restored from a backup of the middle of a cell's change: before it is committed."""

from contextlib import asynccontextmanager

import pytest

from dorad.control.errors import ControlError
from dorafleet.coordinator.messages import AuditAcknowledge
from dorafleet.store.backup import back_up, restore
from dorafleet.store.sqlite import SqliteStore

from .site import site, strategy
from .test_cells import CELLS, ID1, ID2, LABELS, running_cells

pytestmark = pytest.mark.long


@asynccontextmanager
async def restored(folder, number, agents):
    """Lead the fleet with the store of a backup, in which a rollout was open."""
    store = await SqliteStore.open(folder / "coordinator.db")
    try:
        await restore(store, folder.parent / "backup")
        async with site(folder, 4, LABELS, connect=False, register=False, store=store) as one:
            for agent in agents.values():
                agent.port = one.fleet.port
                one.agents[agent.robot] = agent
                await one.fleet.connect(agent)
                known = one.control.robots.get(agent.robot)
                # An operator answers with what the robots report in sight.
                await one.fleet.until(lambda known=known: known.releases)
            switches = one.switches()
            summary = (await one.status(number)).summary
            assert "the store was restored from a backup" in summary.question
            assert one.switches() == switches
            await one.fleet.call("audit.acknowledge", AuditAcknowledge())
            yield one
    finally:
        await store.close()


def folders(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    return first, second


@pytest.mark.parametrize("act", ["resume", "undo", "start"])
@pytest.mark.parametrize("went_back", [False, True])
async def test_a_cell_that_was_committed_after_the_backup_is_whole_again(tmp_path, act, went_back):
    first, second = folders(tmp_path)
    async with running_cells(first) as one:
        one.agents["r2"].releases.fate = "switching"
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(canary=0, max_parallel=2))
        await one.until_state(
            number, r1="probation", r2="switching", r3="confirmed", r4="confirmed"
        )
        await back_up(one.fleet.store, tmp_path / "backup")
        # The commit reaches r1 only.
        releases = one.agents["r2"].releases
        releases.finish("confirmed")
        releases.trouble = ControlError("unavailable", "its disk is full")
        await one.until_reason(number, "r2", "split")
        releases.trouble = None
        releases.fate = "confirmed"
        agents = one.agents
    if went_back:  # it has waited for the others as long as it should
        releases.finish("reverted")
    async with restored(second, number, agents) as two:
        if act == "start":
            number = await two.start("pick@2", scope=CELLS, supersede=True, retry=True)
        else:
            await two.act(act, number)
        await two.until(number, "reverted" if act == "undo" else "succeeded", over=True)
        assert set(two.running().values()) == {ID1 if act == "undo" else ID2}


@pytest.mark.parametrize("act", ["resume", "undo"])
@pytest.mark.parametrize("fate", ["confirmed", "reverted"])
async def test_a_cell_that_began_to_switch_after_the_backup_ends_as_one(tmp_path, act, fate):
    first, second = folders(tmp_path)
    async with running_cells(first) as one:
        for agent in one.agents.values():
            agent.releases.has_files, agent.releases.fate = False, "switching"
        number = await one.start("pick@2", scope=CELLS, strategy=strategy(canary=0, max_parallel=2))
        await one.until_state(number, **dict.fromkeys(LABELS, "pending"))
        await back_up(one.fleet.store, tmp_path / "backup")
        for agent in one.agents.values():
            agent.releases.get_files()
        await one.until_state(number, **dict.fromkeys(LABELS, "switching"))
        agents = one.agents
    for agent in agents.values():
        agent.releases.fate = "confirmed"
        agent.releases.finish("confirmed")
    agents["r1"].releases.finish(fate)
    async with restored(second, number, agents) as two:
        await two.act(act, number)
        await two.until(number, "reverted" if act == "undo" else "succeeded", over=True)
        assert set(two.running().values()) == {ID1 if act == "undo" else ID2}
