"""Windows, budgets and pauses hold switches of a rollout that a coordinator drives for real."""

from datetime import UTC, datetime, timedelta

import pytest

from dorafleet.rollout.strategy import Budget

from .site import ID1, ID2, site, strategy

CELLS = {f"r{number}": {"cell": "a" if number <= 3 else "b"} for number in range(1, 6)}


def monday_at(text):
    """Return a time of the next Monday in seconds since 1970."""
    day = datetime.now(UTC) + timedelta(days=1)
    day += timedelta(days=-day.weekday() % 7)
    return datetime.fromisoformat(f"{day:%Y-%m-%d}T{text}+00:00").timestamp()


class Clock:
    """The coordinator's clock, set by hand."""

    def __init__(self, one, now):
        self.now = now
        self._bell = one.control.fleet.bell
        self._driver = one.control.driver
        self._driver.clock = lambda: self.now

    def set(self, now):
        self.now = now
        self._bell.ring()


async def test_a_window_that_closes_in_the_middle_lets_switches_end_and_begins_no_other(tmp_path):
    async with site(tmp_path, 3) as one:
        await one.runs(ID1)
        clock = Clock(one, monday_at("10:59"))
        first = one.agents["r1"].releases
        first.fate = "switching"
        keys = {"strategy": strategy(canary=0, max_parallel=1, windows=["Mon 10:00-11:00"])}
        number = await one.start("pick@2", **keys)
        await one.until_state(number, r1="switching")
        clock.set(monday_at("11:00"))
        first.finish("confirmed")
        await one.until_state(number, r1="confirmed", r2="staged", r3="staged")
        await one.until_waiting(number, r2="window", r3="window")
        detail = await one.status(number)
        assert detail.summary.state == "rolling, waiting (window)"
        assert detail.summary.opening == monday_at("10:00") + 7 * 86400
        assert one.running() == {"r1": ID2, "r2": ID1, "r3": ID1}
        clock.set(monday_at("10:00") + 7 * 86400 - 1)
        await one.until_waiting(number, r2="window")
        assert one.running()["r2"] == ID1
        clock.set(monday_at("10:00") + 7 * 86400)
        await one.until(number, "succeeded")
        assert set(one.running().values()) == {ID2}


async def test_going_back_waits_for_no_window(tmp_path):
    async with site(tmp_path, 2) as one:
        await one.runs(ID1)
        clock = Clock(one, monday_at("10:30"))
        keys = {"strategy": strategy(canary=1, auto_promote=False, windows=["Mon 10:00-11:00"])}
        number = await one.start("pick@2", **keys)
        await one.until(number, "awaiting_promotion")
        clock.set(monday_at("12:00"))
        await one.act("promote", number)
        await one.until_waiting(number, r2="window")
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        assert set(one.running().values()) == {ID1}


@pytest.mark.parametrize(("limit", "at_a_time"), [(1, (1, 1)), ("70%", (2, 1))])
async def test_a_budget_holds_for_each_group(tmp_path, limit, at_a_time):
    """`at_a_time` of the three robots of cell a and of the two of cell b may switch."""
    async with site(tmp_path, 5, CELLS) as one:
        await one.runs(ID1)
        for agent in one.agents.values():
            agent.releases.fate = "switching"
        budget = Budget(group_by="cell", max_unavailable=limit)
        keys = {"canary": 0, "max_parallel": 5, "progress_deadline": 60.0}
        keys = {"strategy": strategy(disruption_budget=budget, **keys)}
        number = await one.start("pick@2", **keys)
        waiting = {"a": ["r1", "r2", "r3"], "b": ["r4", "r5"]}
        done: list[str] = []
        while any(waiting.values()):
            moving = waiting["a"][: at_a_time[0]] + waiting["b"][: at_a_time[1]]
            await one.until_state(number, **dict.fromkeys(moving, "switching"))
            held = [each for cell in waiting.values() for each in cell if each not in moving]
            await one.until_waiting(number, **dict.fromkeys(held, "budget"))
            assert {each for each, has in one.running().items() if has == ID2} == {*moving, *done}
            ended = moving[0]
            one.agents[ended].releases.finish("confirmed")
            done.append(ended)
            waiting[CELLS[ended]["cell"]].remove(ended)
        await one.until(number, "succeeded")


async def test_a_robot_of_the_group_that_is_in_trouble_uses_the_budget(tmp_path):
    async with site(tmp_path, 5, CELLS, connect=False) as one:
        await one.connect("r1", "r2", "r3", "r4", "r5")
        await one.runs(ID1)
        # r3 is not of this rollout, but it cannot work either.
        one.agents["r3"].releases.report("other", "stuck", running="")
        await one.fleet.until(lambda: "other" in one.control.robots.get("r3").releases)
        keys = {"strategy": strategy(canary=0, disruption_budget=Budget(group_by="cell"))}
        number = await one.start("pick@2", robots=["r1", "r2", "r4"], **keys)
        await one.until_state(number, r4="confirmed")
        await one.until_waiting(number, r1="budget", r2="budget")
        one.agents["r3"].releases.report("other", "confirmed", running=ID1)
        await one.until(number, "succeeded")


async def test_a_paused_rollout_stays_paused_over_a_restart_of_the_coordinator(tmp_path):
    async with site(tmp_path, 3) as one:
        await one.runs(ID1)
        one.agents["r1"].releases.fate = "switching"
        number = await one.start("pick@2", strategy=strategy(progress_deadline=60.0))
        await one.until_state(number, r1="switching")
        await one.act("pause", number, "lunch")
        agents = one.agents
    async with site(tmp_path, 3, connect=False, register=False) as two:
        for agent in agents.values():
            agent.port = two.fleet.port
            two.agents[agent.robot] = agent
            await two.fleet.connect(agent)
        assert (await two.status(number)).summary.state == "paused (canary)"
        agents["r1"].releases.finish("confirmed")
        detail = await two.until_state(number, r1="confirmed")
        assert detail.summary.state == "paused (canary)"
        assert two.running() == {"r1": ID2, "r2": ID1, "r3": ID1}
        steps = await two.journal(number)
        assert steps[-2:] == ["pause", "verdict confirmed r1"]
        await two.act("resume", number)
        await two.until(number, "succeeded")
        assert two.switches() == {"r1": [ID2], "r2": [ID2], "r3": [ID2]}
