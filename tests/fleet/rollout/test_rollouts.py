"""Rollouts over the real protocol: from start to end, with what goes wrong on the way."""

import asyncio
import itertools

import pytest

from dorad.control.errors import ControlError
from dorad.control.messages.releases import HealthRules, Lease
from dorafleet.coordinator.rolloutdriver import Timers
from dorafleet.coordinator.software import software_of
from dorafleet.rollout import messages as r
from dorafleet.rollout.strategy import Budget, Strategy
from tests.fleet.control.serving import DEADLINE_S

from .site import ID1, ID2, site, strategy

SHORT = HealthRules(min_healthy_time=0.1, healthy_deadline=1, confirm_deadline=1)


async def test_a_release_gets_to_all_robots_the_canary_first(tmp_path):
    async with site(tmp_path, 4) as one:
        number = await one.start(strategy=strategy(canary=1, max_parallel=1))
        detail = await one.until(number, "succeeded", over=True)
        assert set(one.running().values()) == {ID1}
        assert detail.summary.counts == {"confirmed": 4}
        steps = await one.journal(number)
    assert steps[:6] == [
        "start",
        "enter canary",
        "order stage r1",
        "order switch r1",
        "verdict confirmed r1",
        "enter rolling",
    ]
    assert [each for each in steps if each.startswith("order switch")] == [
        f"order switch r{robot}" for robot in (1, 2, 3, 4)
    ]
    assert steps[-3:] == ["enter settled", "enter succeeded", "end"]


async def test_a_canary_that_fails_reverts_and_no_other_robot_is_touched(tmp_path):
    async with site(tmp_path) as one:
        await one.runs(ID1)
        one.agents["r1"].releases.fate = "reverted"
        number = await one.start("pick@2")
        detail = await one.until(number, "reverted", over=True)
        assert one.switches() == {"r1": [ID2], "r2": [], "r3": []}
        assert set(one.running().values()) == {ID1}
        first = next(row for row in detail.robots if row.robot == "r1")
        assert first.state == "reverted"
        assert first.evidence[0].text == "3 restarts in 20 s"
        assert "the canary failed: `r1` (node grip failed)" in detail.summary.reason
        # The desired state is what runs, so a robot that is set up again gets the good one.
        assert one.control.fleet.owner("r1", "pick").release == ID1

        with pytest.raises(ControlError, match="there is nothing to do") as caught:
            await one.start("pick@2", robots=["r1"])
        assert "--retry" in str(caught.value)
        one.agents["r1"].releases.fate = "confirmed"
        again = await one.start("pick@2", robots=["r1"], retry=True)
        await one.until(again, "succeeded")
        assert one.agents["r1"].releases.orders[-1].retry


async def test_robots_that_are_off_follow_later_through_the_same_gates(tmp_path):
    async with site(tmp_path, 4, connect=False) as one:
        await one.connect("r1", "r2")
        number = await one.start(strategy=strategy(max_parallel=1))
        detail = await one.until_state(number, r1="confirmed", r2="confirmed")
        assert {row.robot: row.reachable for row in detail.robots}["r3"] is False
        one.control.robots.get("r3").away_since -= 60
        one.control.robots.get("r4").away_since -= 60
        detail = await one.until(number, "settled")
        assert detail.summary.unreachable == 2
        assert detail.summary.reason == "for later: `r3`, `r4`"
        await one.connect("r3", "r4")
        await one.until(number, "succeeded")
        assert one.switches() == {f"r{each}": [ID1] for each in (1, 2, 3, 4)}


async def test_a_canary_that_cannot_be_reached_is_waited_for_and_named(tmp_path):
    async with site(tmp_path, 2, {"r2": {"role": "canary"}}, connect=False) as one:
        await one.connect("r1")
        keys = {"strategy": strategy(canary_selector={"role": "canary"})}
        number = await one.start(**keys)
        await one.until(number, "canary")
        detail = await one.status(number)
        assert detail.summary.state == "canary, waiting (unreachable)"
        assert one.switches() == {"r1": []}
        await one.connect("r2")
        await one.until(number, "succeeded")


async def test_a_lease_holds_a_switch_until_it_ends(tmp_path):
    async with site(tmp_path, 1) as one:
        agent = one.agents["r1"]
        await one.runs(ID1)
        agent.releases.lease()
        number = await one.start("pick@2")
        detail = await one.until_state(number, r1="busy")
        assert detail.robots[0].leases == ["picks box 7 (arm)"]
        assert (await one.status(number)).summary.state == "canary, waiting (busy)"
        agent.releases.lease(reason=None)
        await one.until(number, "succeeded")


async def test_abort_before_a_switch_leaves_every_robot_as_it_was(tmp_path):
    async with site(tmp_path) as one:
        await one.runs(ID1)
        for agent in one.agents.values():
            agent.releases.has_files = False
        number = await one.start("pick@2", strategy=strategy(canary=0))
        detail = await one.until_waiting(number, r1="files", r2="files", r3="files")
        assert {row.state for row in detail.robots} == {"pending"}
        assert (await one.act("abort", number, "wrong one")).phase == "aborted"
        for agent in one.agents.values():
            agent.releases.get_files()
        await one.until(number, "aborted", over=True)
        assert one.switches() == {"r1": [], "r2": [], "r3": []}
        assert {agent.releases.orders[-1].release for agent in one.agents.values()} == {ID1}
        with pytest.raises(ControlError, match="it is aborted"):
            await one.act("abort", number)


async def test_undo_brings_all_robots_back_a_few_at_a_time(tmp_path):
    async with site(tmp_path) as one:
        first = await one.start("pick@1")
        await one.until(first, "succeeded", over=True)
        second = await one.start("pick@2")
        await one.until(second, "succeeded", over=True)
        with pytest.raises(ControlError, match="is not the newest"):
            await one.act("undo", first)
        await one.act("undo", second, "customer asked")
        await one.until(second, "reverted", over=True)
        assert set(one.running().values()) == {ID1}
        steps = await one.journal(second)
        assert "undo" in steps
        assert sum(step.startswith("order back") for step in steps) == 3
        back = one.agents["r1"].releases.orders[-1]
        assert (back.release, back.allow_lower, back.switch) == (ID1, True, True)
        with pytest.raises(ControlError, match="it is reverted"):
            await one.act("undo", second)


async def test_the_first_rollout_is_undone_by_stopping_the_dataflow(tmp_path):
    async with site(tmp_path, 2) as one:
        number = await one.start("pick@1")
        await one.until(number, "succeeded")
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        assert set(one.running().values()) == {""}
        assert one.agents["r2"].releases.orders[-1].release is None


async def test_pause_gives_no_order_and_resume_continues(tmp_path):
    async with site(tmp_path) as one:
        one.agents["r1"].releases.fate = "switching"
        number = await one.start(strategy=strategy(canary=1, auto_promote=False))
        await one.until_state(number, r1="switching")
        await one.act("pause", number)
        one.agents["r1"].releases.finish("confirmed")
        detail = await one.until_state(number, r1="confirmed")
        assert detail.summary.state == "paused (canary)"
        await one.act("resume", number)
        await one.until(number, "awaiting_promotion")
        assert one.running()["r2"] == ""
        await one.act("promote", number)
        await one.until(number, "succeeded")


async def test_too_many_failures_bring_all_back(tmp_path):
    async with site(tmp_path, 5) as one:
        await one.runs(ID1)
        for robot in ("r2", "r3"):
            one.agents[robot].releases.fate = "reverted"
        keys = {"strategy": strategy(max_parallel=1, failure_threshold=1)}
        number = await one.start("pick@2", **keys)
        detail = await one.until(number, "reverted", over=True)
        assert one.switches()["r4"] == one.switches()["r5"] == []
        assert set(one.running().values()) == {ID1}
        assert detail.summary.counts == {"back": 1, "reverted": 2, "left": 2}


async def test_a_robot_lost_after_its_switch_counts_and_its_own_verdict_counts_later(tmp_path):
    async with site(tmp_path, 2) as one:
        one.agents["r1"].releases.fate = "switching"
        rules = HealthRules(min_healthy_time=0.1, healthy_deadline=60, confirm_deadline=1)
        keys = {"strategy": strategy(canary=0, max_parallel=1, rules=rules)}
        number = await one.start(**keys)
        await one.until_state(number, r1="switching")
        await one.agents["r1"].stop()
        await one.until_state(number, r1="lost", r2="confirmed")
        await one.until(number, "succeeded_partially")
        one.agents["r1"].releases.finish("confirmed")
        await one.fleet.connect(one.agents["r1"])
        await one.until_state(number, r1="confirmed")


async def test_a_robot_without_a_verdict_in_time_is_lost(tmp_path):
    async with site(tmp_path, 1) as one:
        one.agents["r1"].releases.fate = "switching"
        await one.runs(ID1)
        rules = HealthRules(min_healthy_time=0.1, healthy_deadline=1)
        number = await one.start("pick@2", strategy=strategy(rules=rules, progress_deadline=1.0))
        detail = await one.until(number, "reverting")
        assert "no verdict" in detail.summary.reason
        one.agents["r1"].releases.finish("reverted")
        await one.until(number, "reverted", over=True)


async def test_a_robot_that_only_pretends_progress_is_lost(tmp_path):
    async with site(tmp_path, 1) as one:
        liar = one.agents["r1"].releases
        liar.fate = "switching"
        await one.runs(ID1)
        number = await one.start("pick@2", strategy=Strategy(progress_deadline=1.0, rules=SHORT))
        await one.until_state(number, r1="switching")
        for phase in itertools.cycle(("probation", "switching")):
            state = liar.states["pick"]
            liar.report("pick", phase, generation=state.generation + 1)
            detail = await one.status(number)
            if detail.summary.phase == "reverting":
                break
            assert detail.summary.phase in ("canary", "reverting")
            await asyncio.sleep(0.05)
        assert "no verdict" in detail.summary.reason


def test_the_time_in_a_phase_restarts_only_with_a_later_phase_or_another_order():
    now = [0.0]
    timers = Timers(lambda: now[0])

    def look(at, rank, *, order="a", reachable=True):
        now[0] = at
        return timers.in_phase((1, "r1"), order, rank, reachable=reachable)

    assert [look(0, 3), look(10, 4), look(15, 3), look(20, 4), look(30, 3)] == [0, 0, 5, 10, 20]
    assert [look(40, 4, reachable=False), look(1000, 4), look(1005, 4)] == [30, 30, 35]
    assert [look(1010, 4, order="b"), look(1015, 3, order="b")] == [0, 5]
    timers.forget(1)
    assert look(2000, 3, order="b") == 0


@pytest.mark.parametrize("step", [3600.0, -3600.0, 1.8e9, -1.8e9])
def test_what_lasts_does_so_although_the_clock_is_set(step):
    steady, wall = [100.0], [2e9]
    timers = Timers(lambda: steady[0])

    def age(at):
        return wall[0] - timers.date((1, "r1", "at"), at, wall[0])

    def passes(seconds):
        steady[0] += seconds
        wall[0] += seconds

    at = wall[0]
    assert age(at) == 0.0
    passes(50.0)
    assert timers.date((1, "r1", "at"), at, wall[0]) == at
    wall[0] += step
    assert age(at) == pytest.approx(50.0)
    passes(10.0)
    assert age(at) == pytest.approx(60.0)
    # What has happened since has the time of the clock as it is now.
    assert age(wall[0]) == 0.0
    # A coordinator that is started again knows only both clocks of then: nothing is in the future.
    timers.forget(1)
    assert age(at) == max(0.0, wall[0] - at)
    assert timers.date((1, "r1", "at"), 0.0, wall[0]) == 0.0


async def test_a_budget_holds_robots_of_a_group_with_one_that_is_off(tmp_path):
    labels = {"r1": {"cell": "a"}, "r2": {"cell": "a"}, "r3": {"cell": "b"}}
    async with site(tmp_path, 3, labels, connect=False) as one:
        await one.connect("r1", "r3")
        keys = {"strategy": strategy(canary=0, disruption_budget=Budget(group_by="cell"))}
        number = await one.start(**keys)
        detail = await one.until_state(number, r3="confirmed", r1="staged")
        assert next(row for row in detail.robots if row.robot == "r1").waiting == "budget"
        assert detail.summary.state == "rolling, waiting (budget)"
        await one.connect("r2")
        await one.until(number, "succeeded")


async def test_a_closed_window_holds_every_switch(tmp_path):
    async with site(tmp_path, 1) as one:
        # A minute that is over: it opens again in a week at the latest.
        number = await one.start(strategy=strategy(windows=["Mon 00:00-00:01", "Tue 00:00-00:01"]))
        detail = await one.until_state(number, r1="staged")
        assert detail.summary.state == "canary, waiting (window)"
        assert detail.summary.opening is not None
        await one.act("abort", number)
        await one.until(number, "aborted", over=True)


async def test_a_newer_rollout_supersedes_one_that_waits(tmp_path):
    async with site(tmp_path, 2) as one:
        for agent in one.agents.values():
            agent.releases.has_files = False
        stuck = await one.start("pick@1")
        await one.until_state(stuck, r1="pending")
        plan = await one.plan("pick@2")
        assert plan.supersedes == [stuck]
        for agent in one.agents.values():
            agent.releases.has_files = True
        newer = await one.start("pick@2")
        await one.until(newer, "succeeded")
        detail = await one.until(stuck, "superseded", over=True)
        assert detail.summary.over
        assert set(one.running().values()) == {ID2}
        assert ID1 not in one.switches()["r2"]


async def test_one_that_switches_is_superseded_only_on_demand(tmp_path):
    async with site(tmp_path, 2) as one:
        one.agents["r1"].releases.fate = "switching"
        moving = await one.start("pick@1")
        await one.until_state(moving, r1="switching")
        with pytest.raises(ControlError, match=r"rollout 1 .* is canary: 1 of its 2") as caught:
            await one.plan("pick@2")
        assert caught.value.code == "conflict"
        newer = await one.start("pick@2", supersede=True)
        await asyncio.sleep(0)
        assert one.agents["r1"].releases.orders[-1].release == ID1
        one.agents["r1"].releases.fate = "confirmed"
        one.agents["r1"].releases.finish("confirmed")
        await one.until(newer, "succeeded")
        assert one.switches()["r1"] == [ID1, ID2]


async def test_of_two_operators_with_one_plan_one_wins(tmp_path):
    async with site(tmp_path, 2) as one:
        plan = await one.plan("pick@1")
        new = one.new("pick@1", if_version=plan.version)
        found = await asyncio.gather(
            *(one.fleet.call("rollout.start", new) for _ in range(2)), return_exceptions=True
        )
        refused = [each for each in found if isinstance(each, ControlError)]
        assert len(refused) == 1
        assert refused[0].code == "conflict"
        assert "`rollout.start 1` came meanwhile, by ann" in str(refused[0])
        assert len(one.control.rollouts.heads) == 1


async def test_a_plan_that_takes_much_memory_is_refused(tmp_path):
    """Also viewers may plan, and every robot of a plan has the parameters."""
    many = {f"camera/{number}": 0 for number in range(10_000)}
    probes = [["true"]] * 20_000
    async with site(tmp_path, 2) as one:
        with pytest.raises(ControlError, match="`params` has more than 32768 bytes"):
            await one.plan("pick@1", params=many)
        with pytest.raises(ControlError, match="`strategy` has more than"):
            await one.plan("pick@1", strategy=Strategy(rules=HealthRules(probes=probes)))


async def test_watch_says_all_then_what_changes(tmp_path):
    async with site(tmp_path, 2) as one:
        one.agents["r1"].releases.fate = "switching"
        number = await one.start()
        stream = one.fleet.stream("rollout.watch", r.RolloutWatch(rollout=number))
        news = await anext(stream)
        assert {row.robot for row in news.robots} == {"r1", "r2"}
        await one.until_state(number, r1="switching")
        one.agents["r1"].releases.finish("confirmed")
        one.agents["r1"].releases.fate = "confirmed"
        async with asyncio.timeout(DEADLINE_S):
            while not (news.rollouts and news.rollouts[-1].over):
                news = await anext(stream)
        await stream.aclose()


async def test_the_row_of_a_robot_says_what_is_done_to_it(tmp_path):
    async with site(tmp_path, 1) as one:
        await one.runs(ID1)
        agent = one.agents["r1"].releases
        agent.fate = "switching"
        agent.lease()
        number = await one.start("pick@2")
        await one.until_state(number, r1="busy")
        control = one.control
        found = software_of("r1", control.fleet, control.robots, control.rollouts, control.releases)
        assert found[:3] == ("pick@1", "", "picks box 7 (arm)")
        agent.lease(reason=None)
        await one.until_state(number, r1="switching")
        found = software_of("r1", control.fleet, control.robots, control.rollouts, control.releases)
        assert found[:3] == ("pick@2", "rollout 1: switching", "")
        (state,) = control.robots.get("r1").releases.values()
        assert found.since == state.since


async def test_a_robot_that_got_the_order_and_waits_for_a_lease_is_busy(tmp_path):
    async with site(tmp_path, 1) as one:
        await one.runs(ID1)
        one.agents["r1"].releases.fate = "switching"
        number = await one.start("pick@2")
        await one.until_state(number, r1="switching")
        control = one.control
        (state,) = control.robots.get("r1").releases.values()
        state.phase, state.waiting = "staged", "busy"
        state.leases = [Lease(id="a", reason="picks box 7", owner="arm", since=5.0)]
        found = software_of("r1", control.fleet, control.robots, control.rollouts, control.releases)
        assert found[1:4] == ("", "rollout 1 waits: picks box 7 (arm)", 5.0)


async def test_an_order_that_a_robot_cannot_store_is_pending_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.delivery.RETRY_S", 0.05)
    async with site(tmp_path, 1) as one:
        await one.runs(ID1)
        agent = one.agents["r1"].releases
        agent.trouble = ControlError("unavailable", "agent.db cannot be written: disk full")
        number = await one.start("pick@2")
        row = await one.until_reason(number, "r1", "agent.db cannot be written: disk full")
        assert row.state == "pending"
        agent.trouble = None
        detail = await one.until(number, "succeeded", over=True)
        assert detail.robots[0].reason == ""


async def test_every_change_is_in_the_audit_with_who_made_it(tmp_path):
    async with site(tmp_path, 1) as one:
        number = await one.start()
        await one.until(number, "succeeded", over=True)
        await one.act("undo", number, "too slow")
        await one.until(number, "reverted", over=True)
        from dorafleet.coordinator.audit import read_rows

        records = [row.record.decode() async for row in read_rows(one.fleet.store)]
    actions = [record.split('"action":"')[1].split('"')[0] for record in records]
    assert {"release.put", "rollout.start", "rollout.step", "rollout.undo"} <= set(actions)
    undo = records[actions.index("rollout.undo")]
    assert '"peer":"ann"' in undo
    assert '"reason":"too slow"' in undo
