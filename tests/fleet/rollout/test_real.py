"""Rollouts to real agents and daemons: from nothing to a release, to a bad one, and back."""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib

import pytest

from dorad.control import messages as m
from dorad.control.messages.releases import HealthRules
from dorad.release.machine import this_machine
from dorad.release.manifest import Manifest, NodeContent, encode
from dorad.release.signature import ALLOWED, Signers
from dorad.release.trees import Trees
from dorafleet.rollout import messages as r
from dorafleet.rollout.strategy import Strategy
from tests.fleet.control.machines import LISTENER, TALKER, fleet_of_two
from tests.release import samples

pytestmark = pytest.mark.timeout(300)

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


def build(sequence, listener):
    """Return a release; of its two nodes the listener differs."""
    contents = {
        "dataflow.yml": FLOW,
        "talker.py": TALKER.encode(),
        "listener.py": listener.encode(),
    }
    objects = {samples.object_of(each): each for each in contents.values()}
    files = [samples.file_of(path, content) for path, content in contents.items()]
    nodes = {
        node: NodeContent(hashlib.sha256(contents[f"{node}.py"]).hexdigest(), python=False)
        for node in ("talker", "listener")
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
    info = await client.call("release.put", put, r.ReleaseInfo)
    new = r.RolloutNew(release=info.id, strategy=STRATEGY, **keys)
    new.if_version = (await client.call("rollout.plan", new, r.RolloutPlan)).version
    return (await client.call("rollout.start", new, r.RolloutSummary)).rollout


async def end_of(client, number, *phases):
    """Wait until a rollout is in one of these phases."""
    deadline = time.monotonic() + 180
    while True:
        ref = r.RolloutRef(rollout=number)
        detail = await client.call("rollout.status", ref, r.RolloutDetail)
        if detail.summary.phase in phases:
            return detail
        assert time.monotonic() < deadline, detail
        await asyncio.sleep(0.3)


async def test_a_release_is_rolled_out_and_a_bad_one_reverts_on_the_canary(tmp_path):
    good, bad = build(1, LISTENER), build(2, CRASHING)
    async with fleet_of_two(tmp_path) as fleet, fleet.client() as client:
        for robot in fleet.robots.values():
            agent = robot.folder / "agent"
            receive(agent, good)
            receive(agent, bad)
        first = await roll_out(client, good)
        detail = await end_of(client, first, "succeeded", "settled", "reverted", "failed")
        assert detail.summary.phase == "succeeded", detail

        second = await roll_out(client, bad)
        detail = await end_of(client, second, "reverted", "succeeded", "failed")
        assert detail.summary.phase == "reverted", detail
        states = {row.robot: row.state for row in detail.robots}
        assert sorted(states.values()) == ["reverted", "waiting"], states
        canary = next(row for row in detail.robots if row.state == "reverted")
        assert canary.reason
        drift = await client.call("drift.list", m.Nothing(), r.DriftList)
        assert [row for row in drift.rows if row.what == "release"] == []
