"""Every verb in every state: it does what it says, or is refused and has changed nothing.

Commands run against a coordinator with robots. Afterwards all is undone, and every robot that can
be reached runs what it had.
"""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from dorad.cli.root import run_command as run_dora
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.releases import HealthRules
from dorad.release.manifest import encode
from dorafleet.cli.main import run_command
from dorafleet.coordinator.audit import read_rows
from dorafleet.coordinator.token import make_token
from dorafleet.release.store import Store
from dorafleet.rollout.model import FINAL
from dorafleet.store.backup import back_up, restore
from dorafleet.store.sqlite import SqliteStore
from tests.fleet.control.serving import leading, with_commands
from tests.release.samples import sign

from .site import ID1, ID2, ID3, ONE, THREE, TWO, Site, machines, strategy

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

QUICK = ("--canary", "0", "--soak-time", "0s", "--min-healthy-time", "0.1", "--detach")
BEFORE_SWITCH = ("pending", "staging", "staged", "busy", "waiting")
SOAK = strategy(canary=1, max_parallel=1, soak_time=600.0)


class Fleet(Site):
    """Two robots with `pick@1`, and the commands of an operator."""

    def __init__(self, fleet, folder, capsys):
        super().__init__(fleet)
        self._folder = folder
        self._capsys = capsys
        self.params = {}
        """What was set on robots."""
        for each in (ONE, TWO, THREE):
            Store(folder / "releases").add(encode(each), sign(encode(each)))

    async def run(self, *words):
        """Run a command of `dorafleet`, or one that begins with `dora`."""
        if words[0] == "dora":
            code = await asyncio.to_thread(run_dora, words[1:])
        else:
            where = ["--state", str(self._folder), "--port", str(self.fleet.port)]
            if words[0] == "alerts":
                where = []
            if words[:2] == ("rollout", "start"):
                where += ["--store", str(self._folder / "releases")]
            code = await asyncio.to_thread(run_command, [*words, *where])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        assert code in (0, 1), (words, out, err)
        assert code == 0 or (out + err).strip(), f"{words} fails without a word"
        return code, out, err

    async def serve_params(self):
        """Let robots take parameters, as their daemons do."""
        for name, agent in self.agents.items():

            async def set_param(_call, params, name=name):
                self.params[name, params.node, params.key] = params.value
                return m.Param(key=params.key, value=params.value)

            async def get_param(_call, _params):
                raise ControlError("not-found", "it was not set")

            agent.handlers |= {"param.set": set_param, "param.get": get_param}
            await agent.stop()
            await self.fleet.connect(agent)

    async def acts(self):
        """Return what the audit says that operators have done."""
        rows = [row.record async for row in read_rows(self.fleet.store)]
        return [row for row in rows if b'"peer":"ann"' in row]


async def preparing(one):
    for agent in one.agents.values():
        agent.releases.has_files = False
    number = await one.start("pick@2", strategy=SOAK)
    await one.until_state(number, r1="pending")


async def switching(one):
    one.agents["r1"].releases.fate = "switching"
    number = await one.start("pick@2", strategy=SOAK)
    await one.until_state(number, r1="switching")


async def soaking(one):
    number = await one.start("pick@2", strategy=SOAK)
    await one.until(number, "soaking")


async def paused(one):
    await switching(one)
    await one.act("pause", 2)
    one.agents["r1"].releases.finish("confirmed")
    await one.until_state(2, r1="confirmed", r2="waiting")


async def rolled_back(one):
    number = await one.start("pick@2", strategy=strategy(canary=0, max_parallel=2))
    await one.until(number, "succeeded")
    await one.act("undo", number)
    await one.until(number, "reverted", over=True)


async def lost(one):
    one.agents["r1"].releases.fate = "switching"
    rules = HealthRules(min_healthy_time=0.1, healthy_deadline=1, confirm_deadline=1)
    keys = {"canary": 0, "max_parallel": 2, "failure_threshold": 2, "rules": rules}
    number = await one.start(
        "pick@2", strategy=strategy(**keys, progress_deadline=1.0, soak_time=600.0)
    )
    await one.until_state(number, r1="switching", r2="confirmed")
    await one.agents["r1"].stop()
    await one.until_state(number, r1="lost")


STATES = {
    "preparing": preparing,
    "switching": switching,
    "soaking": soaking,
    "paused": paused,
    "rolled back": rolled_back,
    "lost": lost,
    "restored": switching,
}


@asynccontextmanager
async def led(stack, folder, capsys, monkeypatch, store=None):
    """Lead a fleet, for both commands."""
    fleet = await stack.enter_async_context(
        leading(folder, machines(2), store=store, authenticate=with_commands)
    )
    monkeypatch.setattr("dorad.control.choosing.coordinator_folder", lambda: folder)
    monkeypatch.setenv("DORA_COORDINATOR_ADDR", "127.0.0.1")
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(fleet.port))
    yield Fleet(fleet, folder, capsys)


@asynccontextmanager
async def in_state(name, folder, capsys, monkeypatch):
    """Yield a fleet in a state."""
    make_token(folder / "token")
    async with AsyncExitStack() as stack:
        async with led(stack, folder, capsys, monkeypatch) as one:
            await one.connect("r1", "r2")
            await one.serve_params()
            await one.register()
            first = await one.start("pick@1", strategy=strategy(canary=0, max_parallel=2))
            await one.until(first, "succeeded", over=True)
            await STATES[name](one)
            if name != "restored":
                yield one
                return
            await back_up(one.fleet.store, folder / "backup")
            agents, params = one.agents, one.params
        await stack.aclose()
        later = folder / "later"
        later.mkdir()
        make_token(later / "token")
        store = await SqliteStore.open(later / "coordinator.db")
        stack.push_async_callback(store.close)
        await restore(store, folder / "backup")
        async with led(stack, later, capsys, monkeypatch, store) as one:
            one.params = params  # which the handlers of the robots fill
            for agent in agents.values():
                agent.port = one.fleet.port
                one.agents[agent.robot] = agent
                await one.fleet.connect(agent)
            assert "restored from a backup" in (await one.status(2)).summary.question
            yield one


def head(one):
    return one.control.rollouts.newest()


def is_started(one, release):
    return head(one).release == release and head(one).number > 2


VERBS = {
    "start": (
        ("rollout", "start", "pick@3", *QUICK),
        lambda one: is_started(one, ID3),
    ),
    "start --supersede": (
        ("rollout", "start", "pick@3", *QUICK, "--supersede"),
        lambda one: is_started(one, ID3),
    ),
    "retry": (
        ("rollout", "start", "pick@2", *QUICK, "--retry"),
        lambda one: is_started(one, ID2) or set(one.running().values()) == {ID2},
    ),
    "undo": (
        ("rollout", "undo", "--detach"),
        lambda one: head(one).phase in ("reverting", "reverted", "revert_incomplete"),
    ),
    "undo --all-at-once": (
        ("rollout", "undo", "--all-at-once", "--detach"),
        lambda one: head(one).phase in ("reverting", "reverted", "revert_incomplete"),
    ),
    "abort": (("rollout", "abort"), lambda one: head(one).phase == "aborted"),
    "pause": (("rollout", "pause"), lambda one: head(one).paused),
    "resume": (("rollout", "resume"), lambda one: not head(one).paused),
    "promote": (("rollout", "promote"), lambda one: head(one).phase != "awaiting_promotion"),
    "ack": (("alerts", "--ack", "r2:unreachable:robot"), lambda _: True),
    "adopt": (("adopt", "r1"), lambda one: not one.control.robots.get("r1").conflicts),
    "resume the robot": (("resume", "r1"), lambda one: not one.control.robots.get("r1").conflicts),
    "remove": (("robot", "remove", "r1"), lambda one: "r1" not in one.control.robots.machines),
    "stop": (("dora", "stop", "r1/pick"), lambda _: False),
    "stop --force": (("dora", "stop", "r1/pick", "--force"), lambda _: False),
    "restart": (("dora", "restart", "r1/pick"), lambda _: False),
    "param set": (
        ("dora", "param", "set", "camera", "gain", "5", "-d", "r1/pick"),
        lambda one: one.params.get(("r1", "camera", "gain")) == 5,
    ),
}
"""The command, and whether it has done what it says."""

POSSIBLE = {
    "preparing": {"start", "start --supersede", "retry", "undo", "undo --all-at-once", "abort",
                  "pause", "param set"},
    "switching": {"start --supersede", "undo", "undo --all-at-once", "abort", "pause",
                  "param set"},
    "soaking": {"start", "start --supersede", "retry", "undo", "undo --all-at-once", "abort",
                "pause", "param set"},
    "paused": {"start", "start --supersede", "retry", "undo", "undo --all-at-once", "abort",
               "resume", "param set"},
    "rolled back": {"start", "start --supersede", "retry", "param set"},
    "lost": {"start", "start --supersede", "retry", "undo", "undo --all-at-once", "abort", "pause"},
    "restored": {"start --supersede", "undo", "undo --all-at-once", "abort", "resume",
                 "param set"},
}  # fmt: skip
"""What succeeds in each state. A release is stopped by a rollout, and not by `stop`; a robot leaves
when it runs nothing; without a conflict with the store there is nothing to adopt."""


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", STATES)
async def test_a_verb_does_what_it_says_or_is_refused_with_words_and_changes_nothing(
    state, verb, tmp_path, capsys, caplog, monkeypatch
):
    words, has_done = VERBS[verb]
    async with in_state(state, tmp_path, capsys, monkeypatch) as one:
        before, rollout = await one.acts(), head(one)
        code, out, err = await one.run(*words)
        possible = verb in POSSIBLE[state]
        assert (code == 0) == possible, (code, out, err)
        if code == 0:
            await one.fleet.until(lambda: has_done(one))
        else:
            assert await one.acts() == before, "it was refused, and has changed something"
            assert (head(one).number, head(one).paused) == (rollout.number, rollout.paused)
        await agrees(one)
        await all_goes_back(one, state)
        await agrees(one)
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


async def agrees(one):
    """Check that what is shown of the newest rollout does not contradict itself."""
    detail = await one.status()
    summary = detail.summary
    assert sum(summary.counts.values()) == summary.size == len(detail.robots)
    assert not (summary.paused and summary.phase in FINAL)
    assert bool(summary.question) <= summary.paused
    for row in detail.robots:
        assert summary.counts[row.state] > 0
        agent = one.agents[row.robot]
        state = agent.releases.states["pick"]
        if row.state == "confirmed" and agent.connected and not summary.over:
            assert state.confirmed == state.running == head(one).release
        if row.state in BEFORE_SWITCH and agent.connected:
            assert state.running != head(one).release or state.phase == "confirmed"
    code, out, _ = await one.run("rollout", "status")
    bad = summary.phase not in ("succeeded", "planned", "canary", "rolling", "soaking", "settled")
    failed = any(row.state in ("lost", "reverted", "stuck", "failed") for row in detail.robots)
    assert code == int((bad and summary.phase != "awaiting_promotion") or failed), out


async def all_goes_back(one, state):
    """Let robots end what they do, then undo the newest rollout: all run what they had."""
    for robot, agent in one.agents.items():
        releases = agent.releases
        releases.fate = "confirmed"
        if releases.states["pick"].phase == "switching":
            releases.finish("confirmed")
        releases.get_files()
        if not agent.connected:
            assert (robot, state) == ("r1", "lost")
            await one.fleet.connect(agent)
    newest = head(one)
    if newest.paused:
        await one.act("resume", newest.number)
    await one.fleet.until(lambda: not any(each.in_flight for each in members(one).values()))
    if head(one).phase not in ("reverting", "reverted"):
        try:
            await one.act("undo", newest.number)
        except ControlError as error:
            assert "it has given the release to no robot" in error.message
            return
    detail = await one.until(newest.number, "reverted", over=True)
    assert {row.state for row in detail.robots} <= {"back", "left", "reverted", "waiting"}
    for robot, member in (await one.control.rollouts.members(newest.number)).items():
        running = one.agents[robot].releases.states["pick"].running
        # One that the rollout has given no order keeps what it had.
        assert running in ((member.before,) if member.order else (ID1, ID2)), (robot, member)
        assert running != newest.release or member.before == newest.release
    rows = (await one.fleet.call("drift.list")).rows
    assert [row for row in rows if row.what == "release"] == []


def members(one):
    return one.control.rollouts.known_members(head(one).number)
