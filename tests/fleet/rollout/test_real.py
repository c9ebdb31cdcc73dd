"""Rollouts to real agents and daemons: from nothing to a release, to a bad one, and back."""

import hashlib
import signal
import zlib

import psutil
import pytest
from msgspec.structs import replace

from dorad.control import messages as m
from dorad.control.messages.releases import HealthRules
from dorad.release.machine import this_machine
from dorad.release.manifest import Manifest, NodeContent, encode, id_of
from dorad.release.signature import ALLOWED, Signers
from dorad.release.trees import Trees
from dorafleet.rollout import messages as r
from dorafleet.rollout.messages import (
    DRIFT_LIST,
    RELEASE_PUT,
    ROLLOUT_PLAN,
    ROLLOUT_START,
    ROLLOUT_STATUS,
    ROLLOUT_UNDO,
)
from dorafleet.rollout.strategy import Strategy
from tests.fleet.control.machines import LISTENER, TALKER, fleet_of_two
from tests.harness.waiting import until
from tests.release import samples

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

FLOW = b"""\
nodes:
  - id: talker
    path: talker.py
    inputs: {tick: dora/timer/millis/50}
    outputs: [out]
  - id: listener
    path: listener.py
    inputs: {in: talker/out}
"""
CRASHING = f"{LISTENER}        raise SystemExit(3)\n"
RULES = HealthRules(min_healthy_time=1.0, healthy_deadline=60.0, confirm_deadline=60.0)
STRATEGY = Strategy(rules=RULES, progress_deadline=120.0, soak_time=0.0)


CHAIN = b"""\
nodes:
  - id: pub
    path: pub.py
    inputs: {tick: dora/timer/millis/50}
    outputs: [out]
  - id: con
    path: con.py
    inputs: {in: pub/out}
    outputs: [out]
  - id: idle
    path: idle.py
    inputs: {in: con/out}
"""
SENDS = """\
import os
import pyarrow as pa
from dora import Node

node = Node()
for event in node:
    if event["type"] == "INPUT":
        if os.path.exists(%r):
            raise SystemExit("con is broken")
        node.send_output("out", pa.array([1]))
"""


def build(sequence, listener):
    """Return a release; of its two nodes the listener differs."""
    return release_of(sequence, FLOW, {"talker": TALKER.encode(), "listener": listener.encode()})


def build_chain(sequence, die):
    """Return a release of `pub`, `con` and `idle`, whose `con` dies once the file `die` exists."""
    pub, con = (SENDS % str(path) for path in ("/nowhere", die))
    programs = {"pub": pub.encode(), "con": con.encode(), "idle": LISTENER.encode()}
    return release_of(sequence, CHAIN, programs)


def release_of(sequence, flow, programs):
    contents = {"dataflow.yml": flow, **{f"{node}.py": text for node, text in programs.items()}}
    objects = {samples.object_of(each): each for each in contents.values()}
    files = [samples.file_of(path, content) for path, content in contents.items()]
    nodes = {
        node: NodeContent(hashlib.sha256(text).hexdigest(), python=False)
        for node, text in programs.items()
    }
    content = encode(
        Manifest(
            format=1,
            name="talk",
            sequence=sequence,
            created=1_790_000_000,
            min_dorad="0.1.0",
            entry="dataflow.yml",
            targets=[this_machine().target],
            files=files,
            packages=[],
            environments=[],
            nodes=nodes,
        )
    )
    return samples.Release(content, samples.sign(content), objects)


def receive(agent, release):
    """Put a release where its files arrive; the agent trusts its signer."""
    signers = agent / "signers"
    signers.mkdir(exist_ok=True)
    (signers / ALLOWED).write_text(f"ada@example.org {samples.public(samples.KEY)}\n")
    trees = Trees(agent / "releases", Signers(signers))
    trees.put_manifest(release.content, release.signature)
    for wanted, content in release.objects.items():
        with trees.objects.open_partial(wanted.sha256) as file:
            file.write(content)
        trees.objects.finish(wanted)


async def roll_out(client, release, **keys):
    put = r.ReleasePut(content=zlib.compress(release.content), signature=release.signature.decode())
    info = await client.call(RELEASE_PUT, put)
    new = r.RolloutNew(release=info.id, **{"strategy": STRATEGY, **keys})
    new.if_version = (await client.call(ROLLOUT_PLAN, new)).version
    return (await client.call(ROLLOUT_START, new)).rollout


async def end_of(client, number, *phases):
    """Wait until a rollout is in one of these phases."""
    return await until(
        lambda: client.call(ROLLOUT_STATUS, r.RolloutRef(rollout=number)),
        lambda detail: detail.summary.phase in phases,
        deadline_s=180,
    )


async def test_a_release_is_rolled_out_and_a_bad_one_reverts_on_the_canary(tmp_path):
    good, bad = build(1, LISTENER), build(2, CRASHING)
    async with fleet_of_two(tmp_path) as fleet, fleet.client() as client:
        for robot in fleet.robots.values():
            agent = robot.folder / "agent"
            receive(agent, good)
            receive(agent, bad)
        first = await roll_out(client, good)
        detail = await end_of(client, first, "succeeded", "reverted", "failed")
        assert detail.summary.phase == "succeeded", detail

        second = await roll_out(client, bad)
        detail = await end_of(client, second, "reverted", "succeeded", "failed")
        assert detail.summary.phase == "reverted", detail
        states = {row.robot: row.state for row in detail.robots}
        assert sorted(states.values()) == ["reverted", "waiting"], states
        canary = next(row for row in detail.robots if row.state == "reverted")
        assert canary.reason
        drift = await client.call(DRIFT_LIST, m.Nothing())
        assert [row for row in drift.rows if row.what == "release"] == []


async def test_an_undo_brings_nodes_to_life_whose_inputs_had_closed(tmp_path):
    die = tmp_path / "die"
    first, second = build_chain(1, tmp_path / "never"), build_chain(2, die)
    async with fleet_of_two(tmp_path) as fleet, fleet.client() as client:
        for robot in fleet.robots.values():
            for each in (first, second):
                receive(robot.folder / "agent", each)
        number = await roll_out(client, first)
        detail = await end_of(client, number, "succeeded", "reverted", "failed")
        assert detail.summary.phase == "succeeded", detail
        number = await roll_out(client, second)
        detail = await end_of(client, number, "succeeded", "reverted", "failed")
        assert detail.summary.phase == "succeeded", detail
        assert await drift_is(client, lambda rows: not rows)

        die.touch()
        dead = {"con runs", "idle runs"}
        both = await drift_is(client, lambda rows: len(rows) == 2 * len(dead))
        assert {row.desired for row in both} == dead
        assert {row.robot for row in both} == set(fleet.robots)

        summary = await client.call(ROLLOUT_UNDO, r.RolloutAct(rollout=number))
        assert summary.phase == "reverting"
        detail = await end_of(client, number, "reverted", "revert_incomplete")
        assert detail.summary.phase == "reverted", detail
        assert await drift_is(client, lambda rows: not rows)


@pytest.mark.parametrize(("away", "killed"), [("canary", True), ("other", False)])
async def test_after_an_undo_in_the_soak_a_robot_that_was_away_follows_whatever_was_killed(
    tmp_path, away, killed
):
    """The coordinator runs on, or is killed and starts again before the robot is back."""
    releases = [build(number, f"{LISTENER}# {number}\n") for number in (1, 2)]
    soaks = replace(STRATEGY, soak_time=600.0)
    async with fleet_of_two(tmp_path) as fleet:
        for robot in fleet.robots.values():
            for each in releases:
                receive(robot.folder / "agent", each)
        async with fleet.client() as client:
            first = await roll_out(client, releases[0])
            await end_of(client, first, "succeeded")
            number = await roll_out(client, releases[1], strategy=soaks)
            detail = await end_of(client, number, "soaking")
            canary = next(row.robot for row in detail.robots if row.batch == 0)
            (other,) = fleet.robots.keys() - {canary}
            name = canary if away == "canary" else other
            (stays,) = fleet.robots.keys() - {name}
            fleet.robots[name].agent.end(signal.SIGKILL)
            await client.call(ROLLOUT_UNDO, r.RolloutAct(rollout=number))
            await reach(client, number, {stays: "back"})
        if killed:
            fleet.coordinator.end(signal.SIGKILL)
            fleet.coordinator.start()
        fleet.robots[name].agent.start()
        async with await fleet.again() as client:
            await reach(client, number, {stays: "back", name: "back"})
            detail = await end_of(client, number, "reverted")
            assert await drift_is(client, lambda rows: not rows)
        assert [listeners_of(each) for each in fleet.robots.values()] == [
            {id_of(releases[0].content)}
        ] * 2


def listeners_of(robot):
    """Return the releases whose listener runs on a robot, as the kernel knows it."""
    folder = str(robot.folder / "agent" / "releases")
    lines = (each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"]))
    paths = (line[-1] for line in lines if line and line[-1].startswith(folder))
    return {
        path.removeprefix(folder).split("/")[1] for path in paths if path.endswith("listener.py")
    }


async def reach(client, number, states):
    """Wait until robots of a rollout are in these states."""
    await until(
        lambda: client.call(ROLLOUT_STATUS, r.RolloutRef(rollout=number)),
        lambda detail: states.items() <= {row.robot: row.state for row in detail.robots}.items(),
        deadline_s=180,
    )


async def drift_is(client, wanted):
    """Wait until the drift is as wanted; return its rows, or True for none."""

    async def drifted():
        rows = (await client.call(DRIFT_LIST, m.Nothing())).rows
        return [row for row in rows if row.what != "package"]

    return await until(drifted, wanted, deadline_s=120) or True
