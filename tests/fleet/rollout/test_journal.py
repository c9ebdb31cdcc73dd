"""A coordinator dies at any step of a rollout: the next one goes on, each robot switches once."""

from __future__ import annotations

import asyncio

from dorafleet.coordinator.audit import verify
from dorafleet.store.sqlite import SqliteStore

from .site import ID1, ID2, Site, site, strategy

ROBOTS = 2


class DyingStore:
    """Counts the steps of rollouts; at one of them the coordinator does nothing more."""

    def __init__(self, store, step, moment):
        self.died = asyncio.Event()
        self.steps = 0
        self._commit = store.commit
        self._step = step
        self._moment = moment
        store.commit = self.commit

    async def commit(self, transaction):
        is_step = any(key.startswith("rollout-log/") for key in transaction.puts)
        dies = is_step and self.steps == self._step
        self.steps += is_step
        if dies and self._moment == "before":
            await self.die()
        revision = await self._commit(transaction)
        if dies:
            await self.die()
        return revision

    async def die(self):
        self.died.set()
        await asyncio.Event().wait()


async def roll_out(folder, step, moment):
    """Kill the leader at a step; let another one finish. Return the number of steps, and it."""
    store = await SqliteStore.open(folder / "coordinator.db")
    dying = DyingStore(store, step, moment)
    keys = {"strategy": strategy(canary=1, max_parallel=1)}
    async with site(folder, ROBOTS, store=store) as one:
        await one.runs(ID1)
        plan = await one.plan("pick@2", **keys)
        new = one.new("pick@2", if_version=plan.version, **keys)
        starting = asyncio.create_task(one.fleet.call("rollout.start", new))
        over = asyncio.create_task(over_or_never(one))
        died = asyncio.create_task(dying.died.wait())
        await asyncio.wait({over, died}, return_when=asyncio.FIRST_COMPLETED)
        for task in (starting, over, died):
            task.cancel()
        agents = one.agents
    await store.close()
    async with site(folder, ROBOTS, connect=False, register=False) as two:
        for agent in agents.values():
            agent.port = two.fleet.port
            two.agents[agent.robot] = agent
            await two.fleet.connect(agent)
        if not two.control.rollouts.heads:
            # It died before the rollout was in the store: nothing has happened.
            assert two.switches() == {f"r{each}": [] for each in range(1, ROBOTS + 1)}
            await two.start("pick@2", **keys)
        await two.until(1, "succeeded", over=True)
        assert two.switches() == {f"r{each}": [ID2] for each in range(1, ROBOTS + 1)}
        assert set(two.running().values()) == {ID2}
        await check_journal(two)
    return dying.steps


async def over_or_never(one: Site):
    bell = one.control.fleet.bell
    await bell.until(lambda: any(head.over for head in one.control.rollouts.heads.values()))


async def check_journal(one: Site):
    """Every step is there once, in order, and the audit is whole."""
    steps = await one.journal(1)
    orders = [step for step in steps if step.startswith("order switch")]
    assert sorted(orders) == [f"order switch r{each}" for each in range(1, ROBOTS + 1)]
    assert len(steps) == one.control.rollouts.heads[1].steps
    await verify(one.fleet.store)


async def test_a_coordinator_that_dies_at_any_step_is_followed_by_one_that_goes_on(tmp_path):
    for moment in ("before", "after"):
        step = 0
        while True:
            folder = tmp_path / f"{moment}{step}"
            folder.mkdir()
            steps = await roll_out(folder, step, moment)
            if steps <= step:
                break  # it did not die any more
            step += 1
        assert step >= 10
