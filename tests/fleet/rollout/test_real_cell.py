"""A release over two machines with real daemons, agents and links: it changes as one."""

import asyncio
import re
import shutil
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import yaml

from dorad.agent.status import read_status
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.release.manifest import Place, encode, parse
from dorafleet.rollout import messages as r
from tests.fleet.control.machines import TALKER, fleet_of_two
from tests.harness.waiting import until
from tests.release import samples

from .test_real import FLOW, end_of, receive, release_of, roll_out
from .test_real_own_way import Beyond

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

FLOW_LOSSLESS = FLOW.replace(
    b"inputs: {in: talker/out}",
    b"inputs: {in: {source: talker/out, queue_policy: backpressure}}",
)
COUNTS = """\
# revision {revision}
from dora import Node
node = Node()
with open({path!r}, "a") as file:
    for event in node:
        if event["type"] == "INPUT":
            print({revision}, event["value"][0].as_py(), file=file, flush=True)
            {after}
"""
ENDED = ("succeeded", "reverted", "revert_incomplete", "failed", "refused")


def cell_release(
    sequence: int, path: Path, after: str = "pass", listens: str = "arm2"
) -> samples.Release:
    """Return a release: its talker runs on arm1, its listener, which differs, on `listens`."""
    listener = COUNTS.format(revision=sequence, path=str(path), after=after).encode()
    programs = {"talker": TALKER.encode(), "listener": listener}
    found = release_of(sequence, FLOW_LOSSLESS, programs)
    manifest = parse(found.content)
    places = {"talker": Place(machine="arm1"), "listener": Place(machine=listens)}
    nodes = {
        name: msgspec.structs.replace(node, place=places[name], inputs={})
        for name, node in manifest.nodes.items()
    }
    content = encode(msgspec.structs.replace(manifest, format=2, nodes=nodes))
    return samples.Release(content, samples.sign(content), found.objects)


def received(path: Path) -> list[tuple[int, int]]:
    """Return the revision of the listener, and the number, of each message."""
    if not path.exists():
        return []
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()]


async def commands_take_it_as_one(client) -> None:
    """Commands about a dataflow work with the name of the instance, wherever a node runs."""
    ref = m.Ref(dataflow="talk")
    nodes = (await client.call(m.NODE_LIST, ref)).nodes
    assert {each.node: each.machine for each in nodes if not each.node.startswith("dora.")} == {
        "talker": "arm1", "listener": "arm2",
    }  # fmt: skip
    detail = await client.call(m.NODE_INFO, m.NodeRef(dataflow="talk", node="listener"))
    assert (detail.info.machine, detail.info.status) == ("arm2", "running")
    topics = (await client.call(m.TOPIC_LIST, ref)).topics
    assert [(each.node, [who.node for who in each.subscribers]) for each in topics] == [
        ("talker", ["listener"])
    ]
    info = await client.call(m.DATAFLOW_INFO, ref)
    assert info.placement == {"talker": "arm1", "listener": "arm2"}
    rates = client.stream(m.TOPIC_WATCH, m.TopicWatch(dataflow="talk", topics=[], window=1))
    async with rates as events:
        async for event in events:
            if any(each.hz > 0 for each in event.rates):
                break
    tops = client.stream(m.TOP_WATCH, m.TopWatch(dataflow="talk"))
    async with tops as events:
        async for part in events:
            assert {"talker", "listener"} <= {each.node for each in part.top.nodes}
            break
    lines = client.stream(m.LOGS_READ, m.LogRead(dataflow="talk", nodes=["listener"], tail=5))
    async with lines as events:
        async for _ in events:
            pass
    with pytest.raises(ControlError, match="`talk` comes from a release"):
        await client.call(m.DATAFLOW_STOP, m.Stop(dataflow="talk"))
    with pytest.raises(ControlError, match="`talk` comes from a release"):
        await client.call(m.NODE_REMOVE, m.NodeStop(dataflow="talk", node="listener"))


async def test_a_cell_changes_as_one(tmp_path):
    seen = tmp_path / "seen"
    first = cell_release(1, seen)
    second = cell_release(2, seen)
    bad = cell_release(3, seen, after="raise SystemExit('it is broken')")
    async with fleet_of_two(tmp_path) as fleet, fleet.client() as client:
        for robot in fleet.robots.values():
            for each in (first, second, bad):
                receive(robot.folder / "agent", each)

        detail = await end_of(client, await roll_out(client, first, scope="one"), *ENDED)
        assert detail.summary.phase == "succeeded", detail
        await until(lambda: len(received(seen)) > 20)

        detail = await end_of(client, await roll_out(client, second, scope="one"), *ENDED)
        assert detail.summary.phase == "succeeded", detail
        await until(lambda: received(seen)[-1][0] == 2)
        await until(lambda: sum(revision == 2 for revision, _ in received(seen)) > 20)
        await commands_take_it_as_one(client)
        # The talker ran on: it has counted on, and nothing is missing from its numbers.
        numbers = [number for _, number in received(seen)]
        assert numbers == list(range(1, len(numbers) + 1))

        detail = await end_of(client, await roll_out(client, bad, scope="one"), *ENDED)
        assert detail.summary.phase == "reverted", detail
        count = len(received(seen))
        await until(lambda: len(received(seen)) > count + 20)
        found = received(seen)
        assert found[-1][0] == 2
        drift = await client.call(r.DRIFT_LIST, m.Nothing())
        assert [row for row in drift.rows if row.what != "package"] == []


async def test_a_machine_that_loses_its_last_node_leaves_the_cell(tmp_path):
    seen = tmp_path / "seen"
    first = cell_release(1, seen)
    broken = cell_release(2, seen, after="raise SystemExit('it is broken')", listens="arm1")
    alone = cell_release(3, seen, listens="arm1")
    async with fleet_of_two(tmp_path) as fleet, fleet.client() as client:
        for robot in fleet.robots.values():
            for each in (first, broken, alone):
                receive(robot.folder / "agent", each)
        detail = await end_of(client, await roll_out(client, first, scope="one"), *ENDED)
        assert detail.summary.phase == "succeeded", detail
        await until(lambda: len(received(seen)) > 20)

        # The others go back: it runs its part again.
        detail = await end_of(client, await roll_out(client, broken, scope="one"), *ENDED)
        assert detail.summary.phase == "reverted", detail
        count = len(received(seen))
        await until(lambda: len(received(seen)) > count + 20)
        assert received(seen)[-1][0] == 1
        assert [row for row in await drift(client) if row.what != "package"] == []

        detail = await end_of(client, await roll_out(client, alone, scope="one"), *ENDED)
        assert detail.summary.phase == "succeeded", detail
        left = next(row for row in detail.robots if row.robot == "arm2")
        assert (left.state, left.instance) == ("confirmed", "talk")
        assert "it has left its instance" in left.reason
        await until(lambda: received(seen)[-1][0] == 3)
        # Nothing of it runs there, the agent has forgotten it, and nothing differs.
        nodes = (await client.call(m.NODE_LIST, m.Ref(dataflow="talk"))).nodes
        assert {each.machine for each in nodes if each.status == "running"} == {"arm1"}
        agent = fleet.robots["arm2"].folder / "agent"
        await until(lambda: read_status(agent).releases == read_status(agent).shares == [])
        assert [row for row in await drift(client) if row.what != "package"] == []

        # An undo gives it back its part.
        await client.call(r.ROLLOUT_UNDO, r.RolloutAct(rollout=detail.summary.rollout))
        detail = await end_of(client, detail.summary.rollout, *ENDED[1:])
        assert detail.summary.phase == "reverted", detail
        count = len(received(seen))
        await until(lambda: len(received(seen)) > count + 20)
        assert received(seen)[-1][0] == 1


async def drift(client):
    return (await client.call(r.DRIFT_LIST, m.Nothing())).rows


async def state_of(client, number: int, robot: str) -> str:
    ref = r.RolloutRef(rollout=number)
    detail = await client.call(r.ROLLOUT_STATUS, ref)
    return next(row.state for row in detail.robots if row.robot == robot)


@pytest.mark.parametrize("when", ["staged", "switching", "probation"])
async def test_a_cell_ends_as_one_whatever_is_killed_meanwhile(tmp_path, when):
    """SIGKILL for an agent and for the coordinator, in the middle of the same change."""
    seen = tmp_path / "seen"
    first, second = cell_release(1, seen), cell_release(2, seen)
    async with fleet_of_two(tmp_path) as fleet:
        async with fleet.client() as client:
            for robot in fleet.robots.values():
                for each in (first, second):
                    receive(robot.folder / "agent", each)
            detail = await end_of(client, await roll_out(client, first, scope="one"), *ENDED)
            assert detail.summary.phase == "succeeded", detail
            await until(lambda: len(received(seen)) > 20)
            number = await roll_out(client, second, scope="one")
            await until(
                lambda: state_of(client, number, "arm2"), lambda now: now in (when, "confirmed")
            )
        fleet.robots["arm2"].agent.end(signal.SIGKILL)
        fleet.coordinator.end(signal.SIGKILL)
        fleet.coordinator.start()
        fleet.robots["arm2"].agent.start()
        client = await fleet.again()
        async with client:
            detail = await end_of(client, number, *ENDED)
            assert detail.summary.phase == "succeeded", detail
            count = len(received(seen))
            await until(lambda: len(received(seen)) > count + 20)
    found = received(seen)
    assert found[-1][0] == 2
    assert [number for _, number in found] == list(range(1, len(found) + 1))


EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "cell"


async def printed(client, pattern: str) -> None:
    """Wait until the station of the example has printed a line."""

    async def printed():
        async with client.logs("cell1/sorting", nodes=["station"]) as events:
            return [line.message async for each in events for line in each.lines]

    await until(printed, lambda lines: any(re.fullmatch(pattern, line) for line in lines))


async def test_the_example_changes_as_one(tmp_path):
    """On its three machines, or on none."""
    flow = shutil.copytree(EXAMPLE, tmp_path / "cell") / "dataflow.yml"
    gripper = flow.with_name("gripper.py")
    machines = yaml.safe_load((EXAMPLE / "cluster.yml").read_text())["machines"]
    async with AsyncExitStack() as stack:
        fleet = Beyond(tmp_path / "f", machines)  # short: paths of sockets are
        stack.callback(fleet.end)
        await fleet.start()

        async def roll_out(old: str, new: str, code: int = 0) -> str:
            text = gripper.read_text()
            assert old in text
            gripper.write_text(text.replace(old, new))
            await asyncio.to_thread(fleet.release, flow, "sorting")
            more = ("--scope", "each:cell", "--upload")
            return await asyncio.to_thread(fleet.roll_out, "sorting", *more, code=code)

        client = await stack.enter_async_context(fleet.client())
        await roll_out("", "")
        await printed(client, r"part 1: 10\.0 N per kg, 0 parts are missing")
        shown = await roll_out("= 10.0", "= 12.0")
        await printed(client, r"part \d+: 12\.0 N per kg, 0 parts are missing")
        for machine in ("camera1", "arm1", "station1"):
            assert f"✓ {machine}: confirmed" in shown

        node = "    node = Node()\n"
        await roll_out(node, f"{node}    raise RuntimeError('it has no pressure')\n", code=1)
        detail = await client.call(r.ROLLOUT_STATUS, r.RolloutRef(rollout=None))
        assert detail.summary.phase == "reverted", detail
        nodes = (await client.call(m.NODE_LIST, m.Ref(dataflow="cell1/sorting"))).nodes
        assert {each.node: (each.machine, each.status) for each in nodes
                if not each.node.startswith("dora.")} == {
            "camera": ("camera1", "running"),
            "gripper": ("arm1", "running"),
            "station": ("station1", "running"),
        }  # fmt: skip
        assert [row for row in await drift(client) if row.what != "package"] == []
