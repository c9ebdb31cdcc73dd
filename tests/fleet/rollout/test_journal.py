"""A coordinator dies at any step of a rollout: the next one continues, each robot switches once."""

import asyncio

import pytest

from dorad.agent.model import Memory
from dorafleet.coordinator.audit import verify
from dorafleet.coordinator.messages import AuditAcknowledge
from dorafleet.store.backup import back_up, restore
from dorafleet.store.sqlite import SqliteStore

from .site import ID1, ID2, ID3, Site, site, strategy

ROBOTS = 2
AT_ONCE = 6


class DyingStore:
    """Counts the steps of rollouts; at one of them the coordinator does nothing more."""

    def __init__(self, store, step, moment):
        self.died = asyncio.Event()
        self.steps = 0
        self.left = asyncio.Event()
        """Set when nothing of the coordinator is needed any more."""
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
        await self.left.wait()
        raise asyncio.CancelledError


async def roll_out(folder, step, moment):
    """Kill the leader at a step; let another one finish. Return how many steps the first made."""
    folder.mkdir()
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
        dying.left.set()
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


@pytest.mark.long
async def test_a_coordinator_that_dies_at_any_step_is_followed_by_one_that_continues(tmp_path):
    undisturbed = await roll_out(tmp_path / "undisturbed", None, "before")
    assert undisturbed >= 10
    few = asyncio.Semaphore(AT_ONCE)

    async def die(step, moment):
        async with few:
            await roll_out(tmp_path / f"{moment}{step}", step, moment)

    # Each mostly waits for its robots.
    async with asyncio.TaskGroup() as tasks:
        for moment in ("before", "after"):
            for step in range(undisturbed):
                tasks.create_task(die(step, moment))


async def test_robots_that_are_newer_than_a_restored_backup_are_left_alone(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    async with site(first, ROBOTS) as one:
        await one.until(await one.start("pick@1"), "succeeded", over=True)
        await one.agents["r2"].stop()
        # It waits for r2 when the backup is made.
        late = await one.start("pick@2", strategy=strategy(canary=0))
        await one.until_state(late, r1="confirmed")
        await back_up(one.fleet.store, tmp_path / "backup")
        await one.act("abort", late)
        third = await one.start("pick@3", robots=["r1"])
        await one.until(third, "succeeded", over=True)
        agents = one.agents
    store = await SqliteStore.open(second / "coordinator.db")
    await restore(store, tmp_path / "backup")
    async with site(second, ROBOTS, connect=False, register=False, store=store) as two:
        for agent in agents.values():
            agent.port = two.fleet.port
            two.agents[agent.robot] = agent
            await two.fleet.connect(agent)
        # What became of the rollout after the backup is not known: an operator says so.
        summary = (await two.status(late)).summary
        assert summary.paused
        assert "the store was restored from a backup" in summary.question
        assert summary.reason == summary.question
        assert any(f"rollout {late}" in each for each in two.control.questions)
        assert two.switches() == {"r1": [ID1, ID2, ID3], "r2": [ID1]}
        await two.fleet.call("audit.acknowledge", AuditAcknowledge())
        assert not (await two.act("resume", late)).question
        assert two.control.questions == []
        # r2 is as the backup knows it: it continues. r1 has another order since: it is left alone.
        await two.until_state(late, r2="confirmed")
        assert two.running() == {"r1": ID3, "r2": ID2}
        drift = await two.fleet.call("drift.list")
        (row,) = [row for row in drift.rows if row.what == "release"]
        assert (row.robot, row.desired, row.found) == ("r1", "pick@2", "pick@3")
        assert "it has a newer order" in row.way_back
        number = await two.start("pick@2", allow_lower=True, supersede=True)
        await two.until(number, "succeeded")
        assert set(two.running().values()) == {ID2}
    await store.close()


async def test_after_a_restore_open_rollouts_are_paused_once_and_move_no_robot(tmp_path):
    """Five releases later, an old backup is restored, and again before its question is answered."""
    first = tmp_path / "first"
    first.mkdir()
    async with site(first, ROBOTS) as one:
        await one.agents["r2"].stop()
        old = await one.start("pick@1")
        await one.until_state(old, r1="confirmed")
        await back_up(one.fleet.store, tmp_path / "backup")
        for release in ("pick@2", "pick@3"):
            number = await one.start(release, robots=["r1"], supersede=True)
            await one.until(number, "succeeded", over=True)
        agents = one.agents
    for place in ("second", "third"):
        (tmp_path / place).mkdir()
        store = await SqliteStore.open(tmp_path / place / "coordinator.db")
        await restore(store, tmp_path / "backup")
        for again in range(2):
            async with site(
                tmp_path / place, ROBOTS, connect=False, register=False, store=store
            ) as two:
                head = two.control.rollouts.heads[old]
                assert head.paused
                steps = await two.journal(old)
                assert steps.count("pause") == 1, again
                assert [each for each in steps if each.startswith("order switch r2")] == []
                for agent in agents.values():
                    agent.port = two.fleet.port
                    agent.memory = Memory()  # as after `dorafleet takeover`
                    two.agents[agent.robot] = agent
                    await two.fleet.connect(agent)
                await two.fleet.until(lambda two=two: two.control.robots.get("r1").releases)
                assert two.running()["r1"] == ID3
                if again:
                    await two.act("abort", old)
                    assert two.control.rollouts.heads[old].question == ""
        await store.close()
    async with site(tmp_path / "third", ROBOTS, connect=False, register=False) as two:
        assert not two.control.rollouts.heads[old].paused
        assert agents["r1"].releases.switches == [ID1, ID2, ID3]
