"""The soak of a rollout and the pace of an undo, as commands with a coordinator see them."""

import asyncio

import pytest

from dorad.control.errors import ControlError
from dorafleet.rollout import messages as r

from .site import ID1, site, strategy
from .test_commands import command_site
from .test_soak import FAILED


async def test_a_failure_after_the_confirmation_is_seen_by_every_command(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        await one.register()
        keys = {"strategy": strategy(soak_time=300.0, canary=0, max_parallel="100%")}
        number = await one.start("pick@1", **keys)
        await one.until(number, "soaking")
        code, out, err = await one.run("drift")
        assert code == 0, out + err
        code, out, _ = await one.run("rollout", "status")
        assert (code, "soaking until" in out) == (0, True)
        ended = {"log": "has ended: its inputs closed"}
        one.agents["r2"].releases.report("pick", "confirmed", failed=FAILED, ended=ended)
        await one.until_state(number, r1="confirmed", r2="failed")
        code, out, _ = await one.run("rollout", "status")
        assert (code, "node cam has failed: it exited with code 1" in out) == (1, True)
        code, out, _ = await one.run("status")
        assert (code, "node cam has failed: it exited with code 1" in out) == (1, True)
        code, out, _ = await one.run("drift")
        assert code == 1
        assert "cam has failed: it exited with code 1" in out
        assert "log has ended: its inputs closed" in out
        assert "dorafleet rollout start pick@1 --robots r2 --retry" in out
        plan = await one.plan("pick@1", robots=["r2"], retry=True)
        (found,) = [each for each in plan.robots if each.robot == "r2"]
        assert found.note == "started again: cam, log"


async def test_the_command_follows_the_soak_and_ends_with_1_when_the_canary_fails(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        words = ("--min-healthy-time", "0.1", "--healthy-deadline", "60s", "--soak-time", "5m")
        more = ("--progress-deadline", "60s", "--max-parallel", "3")
        running = asyncio.create_task(one.release("rollout", "start", "pick@1", *words, *more))
        heads = one.control.rollouts.heads
        assert await one.control.fleet.bell.until(lambda: 1 in heads, 60)
        await one.until(1, "soaking")
        assert not running.done()
        canary = next(m.robot for m in (await one.status(1)).robots if m.batch == 0)
        one.agents[canary].releases.report("pick", "confirmed", failed=FAILED)
        code, out, _ = await running
        assert code == 1
        assert "failed after its confirmation" in out


async def test_undo_all_at_once_by_command(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        await one.register()
        number = await one.start("pick@1")
        await one.until(number, "succeeded")
        number = await one.start("pick@2")
        await one.until(number, "succeeded")
        code, _, err = await one.run("rollout", "undo", "--max-parallel", "2", "--all-at-once")
        assert code == 2
        assert "--max-parallel does not go with --all-at-once" in err
        code, _, err = await one.run("rollout", "undo", "--max-parallel", "none")
        assert code == 1
        assert "max_parallel: `none` is neither a number" in err
        code, out, err = await one.run("rollout", "undo", "--all-at-once")
        assert code == 0, out + err
        assert set(one.running().values()) == {ID1}
        assert "order back r1 r2 r3" in await one.journal(number)


async def test_only_an_undo_has_a_pace(tmp_path):
    async with site(tmp_path) as one:
        number = await one.start("pick@1")
        with pytest.raises(ControlError, match="only an undo has a pace"):
            await one.fleet.call("rollout.pause", r.RolloutAct(rollout=number, all_at_once=True))
