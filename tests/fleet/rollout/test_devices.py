"""Two dataflows that want one device of a robot: one of them is refused, and both are named."""

import re
import zlib
from contextlib import asynccontextmanager

import apsw
import msgspec
import pytest

from dorad.control.errors import ControlError
from dorad.dataflow.settings import Amounts
from dorad.release.manifest import Place
from dorafleet.coordinator.messages import Explain
from dorafleet.coordinator.planner import most
from dorafleet.inventory.model import Machine
from tests.fleet.control.serving import leading

from .site import Site, manifest, strategy

VIDEO = "/dev/video0"
DATAFLOW = {
    "nodes": [
        {
            "id": "eye",
            "path": "eye.py",
            "outputs": ["image"],
            "deploy": {"needs": {"devices": [VIDEO]}},
        }
    ]
}


def release(name, node, *devices, sequence=1):
    """Return a release with one node, which needs devices."""
    made = manifest(sequence, name, **{node: name})
    place = Place(devices=list(devices))
    nodes = {
        id_: msgspec.structs.replace(each, place=place, inputs={})
        for id_, each in made.nodes.items()
    }
    return msgspec.structs.replace(made, format=2, nodes=nodes)


@asynccontextmanager
async def two_robots(folder):
    capacity = Amounts(devices=(VIDEO, "lidar"))
    robots = tuple(
        Machine(f"r{number}", f"10.0.0.{number}", capacity=capacity) for number in (1, 2)
    )
    async with leading(folder, robots) as fleet:
        one = Site(fleet)
        await one.connect("r1", "r2")
        yield one


async def run(one, name, *robots):
    number = await one.start(name, robots=list(robots))
    await one.until(number, "succeeded", over=True)


async def test_a_release_that_needs_a_device_of_another_one_is_refused_with_both_names(tmp_path):
    async with two_robots(tmp_path) as one:
        await one.register(release("pick", "camera", VIDEO), release("look", "eye", VIDEO))
        await run(one, "pick@1", "r1")
        with pytest.raises(ControlError) as caught:
            await one.plan("look@1")
        assert caught.value.message == (
            f"node `eye` needs `{VIDEO}` of `r1`, which node `camera` of `pick` uses"
        )
        assert caught.value.hint == "stop `pick` there first, or leave out `r1`"
        await run(one, "look@1", "r2")


async def test_another_device_and_the_next_release_of_a_dataflow_are_not_refused(tmp_path):
    async with two_robots(tmp_path) as one:
        second = release("pick", "camera", VIDEO, sequence=2)
        await one.register(
            release("pick", "camera", VIDEO), second, release("look", "eye", "lidar")
        )
        await run(one, "pick@1", "r1")
        await run(one, "look@1", "r1")
        await run(one, "pick@2", "r1")


async def test_a_dataflow_that_is_started_keeps_off_the_devices_of_releases(tmp_path):
    async with two_robots(tmp_path) as one:
        await one.register(release("pick", "camera", VIDEO))
        await run(one, "pick@1", "r1")
        found = await one.fleet.call("dataflow.explain", Explain(descriptor=DATAFLOW))
        (decision,) = found.nodes
        assert decision.machine == "r2"
        reasons = {each.machine: each.reason for each in decision.verdicts}
        assert reasons["r1"] == f"`pick:camera` uses its `{VIDEO}`"


async def test_what_a_rollout_may_bring_or_bring_back_stays_reserved_until_it_ends(tmp_path):
    async with two_robots(tmp_path) as one:
        second = release("pick", "camera", "lidar", sequence=2)
        await one.register(release("pick", "camera", VIDEO), second)
        await run(one, "pick@1", "r1", "r2")
        number = await one.start(
            "pick@2", strategy=strategy(canary=1, auto_promote=False), robots=["r1", "r2"]
        )
        await one.until(number, "awaiting_promotion")
        ids = [one.control.releases.find(f"pick@{each}").id for each in (2, 1)]
        assert one.running() == dict(zip(("r1", "r2"), ids, strict=True))
        # r1 may go back to the first release, r2 is to get the second one.
        assert await users(one, VIDEO) == dict.fromkeys(("r1", "r2"), "pick:camera")
        assert await users(one, "lidar") == dict.fromkeys(("r1", "r2"), "pick:camera")
        await one.act("promote", number)
        await one.until(number, "succeeded", over=True)
        assert await users(one, VIDEO) == {"r1": ""}
        assert await users(one, "lidar") == dict.fromkeys(("r1", "r2"), "pick:camera")
        # From here on it may only go back.
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        assert await users(one, "lidar") == {"r1": ""}


async def test_a_first_release_that_is_undone_gives_its_devices_back(tmp_path):
    async with two_robots(tmp_path) as one:
        await one.register(release("pick", "camera", VIDEO))
        number = await one.start("pick@1", robots=["r1", "r2"])
        await one.until(number, "succeeded", over=True)
        await one.act("undo", number)
        await one.until(number, "reverted", over=True)
        await one.fleet.until(lambda: not any(one.running().values()))
        assert await users(one, VIDEO) == {"r1": ""}


async def users(one, device):
    """Return which node keeps another one off the robots with a device; "" for the robot that is
    chosen, after which no other is looked at.
    """
    eye = DATAFLOW["nodes"][0] | {"deploy": {"needs": {"devices": [device]}}}
    found = await one.fleet.call("dataflow.explain", Explain(descriptor={"nodes": [eye]}))
    (decision,) = found.nodes
    if decision.machine:
        return {decision.machine: ""}
    return {
        each.machine: re.fullmatch(rf"`(.*)` uses its `{device}`", each.reason)[1]
        for each in decision.verdicts
    }


def test_a_node_of_several_releases_counts_with_the_most_of_each():
    one = Amounts(cpu=2.0, memory=100, devices=("a", "b"))
    assert most(one, Amounts(cpu=0.5, memory=300, gpu=1, devices=("b", "c"))) == Amounts(
        2.0, 300, 1, ("a", "b", "c")
    )
    assert most(one, Amounts()) == one
    assert most(Amounts(), Amounts()) == Amounts()


@pytest.mark.parametrize("damaged", [False, True])
async def test_a_coordinator_that_starts_again_knows_the_devices_of_releases(tmp_path, damaged):
    async with two_robots(tmp_path) as one:
        await one.register(release("pick", "camera", VIDEO), release("look", "eye", VIDEO))
        await run(one, "pick@1", "r1", "r2")
        machines = list(one.control.robots.machines.values())
    as_an_earlier_version(tmp_path, damaged)
    async with leading(tmp_path, machines) as fleet:
        if damaged:  # the fleet is led nevertheless
            assert (await Site(fleet).plan("look@1")).robots
            return
        with pytest.raises(ControlError, match="which node `camera` of `pick` uses"):
            await Site(fleet).plan("look@1")


def as_an_earlier_version(folder, damaged):
    """Write the releases as a version did that kept no places; or damage their content."""
    database = apsw.Connection(str(folder / "coordinator.db"))
    rows = database.execute("SELECT key, value FROM entries WHERE key GLOB 'release*'").fetchall()
    for key, value in rows:
        if key.startswith("release/"):
            content = msgspec.json.decode(value)
            del content["places"]
            value = msgspec.json.encode(content)
        elif damaged and msgspec.json.decode(zlib.decompress(value))["name"] == "pick":
            value = value[:-1]
        database.execute("UPDATE entries SET value = ? WHERE key = ?", (value, key))
    database.close()
