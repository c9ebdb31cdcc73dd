"""A robot with a valid certificate sends nonsense: only its own connection ends."""

import asyncio
import json
import os
import random
import time
from contextlib import suppress

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.agent.test_hostile import anything
from tests.fleet.coordinator.running import client, connected, coordinator
from tests.fleet.coordinator.test_access import admin, ended, enrol, refusal
from tests.harness.waiting import until

ROUND = 240
"""Frames until others are looked at."""

FRAMES = int(os.environ.get("FLEET_FRAMES", "240"))
"""Random frames that are sent; `make fuzz-fleet` sends more."""

MAX_MEMORY = 300 << 20
ATTACHED = {
    "version": "0.1.0",
    "boot_id": "b",
    "epoch": 1,
    "audit": "",
    "arch": "x86_64",
    "cores": 4,
    "memory": 8 << 30,
    "shares": [],
}
SHARE = {
    "dataflow": "flow",
    "uuid": "u",
    "epoch": 1,
    "generation": 1,
    "status": "running",
    "since": 1.0,
}


HOSTILE = [f"bad{number}" for number in range(8)]
"""Robots that send at the same time, because the coordinator delays each that sends too fast."""
CLUSTER = "coordinator: {addr: 10.0.0.1}\nmachines:\n" + "\n".join(
    f"  - {{id: {name}, host: 10.0.0.{number}}}"
    for number, name in enumerate(["arm1", "arm2", *HOSTILE], 11)
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "state"
    with coordinator(folder, "--tls", file=CLUSTER) as found:
        yield found
    assert "Traceback" not in found.process.printed


async def state(process, robot):
    token = f"Bearer {process.token}"
    async with client(process, Authorization=token) as one:
        listed = (await one.call("robot.list"))["robots"]
    (found,) = (each for each in listed if each["id"] == robot)
    return found


async def attach(connection, robot):
    """Connect like an agent; return the id of the coordinator's request for reports."""
    await connection.recv()
    await connection.send(json.dumps({"welcome": "dorad-agent 1", "protocol": 1}))
    async for frame in connection:
        request = json.loads(frame)
        if request["method"] == "agent.watch":
            return request["id"]
        result = {"robot": robot, "time": time.time(), **ATTACHED}
        await connection.send(json.dumps({"id": request["id"], "result": result}))
    raise AssertionError("the coordinator has ended the connection")


async def beat(connection, watch):
    """Report as long as the connection lasts."""
    while True:
        await connection.send(json.dumps({"id": watch, "event": {"time": time.time()}}))
        await asyncio.sleep(0.5)


def frame(dice, watch):
    """Return a frame: noise, JSON, or a report that is nearly right."""
    match dice.randrange(5):
        case 0:
            return dice.randbytes(dice.randrange(200))
        case 1:
            return json.dumps(anything(dice))
        case 2:
            return json.dumps({"id": dice.randrange(4), "result": anything(dice)})
        case 3:
            share = SHARE | {dice.choice([*SHARE, "reason", "links"]): anything(dice)}
            report = {"time": time.time(), "shares": [share]}
        case _:
            field = dice.choice(["time", "shares", "removed", "releases", "daemon"])
            report = {"time": time.time(), field: anything(dice)}
    return json.dumps({"id": watch, "event": report})


async def flood(process, tls, robot, dice, frames):
    """Send frames as a robot; each connection lasts until the coordinator ends it."""
    sent = 0
    while sent < frames:
        async with connected(process, tls, "/agent") as connection:
            watch = await attach(connection, robot)
            with suppress(ConnectionClosed):
                while sent < frames:
                    await connection.send(frame(dice, watch))
                    # Learn of the end: what is sent after it is not received.
                    await asyncio.sleep(0)
                    sent += 1


@pytest.mark.timeout(240 + FRAMES // 50)
async def test_random_frames_of_an_enrolled_robot_change_nothing_of_others(shared, tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    good = await enrol(shared, tmp_path / "good", "arm2")
    bad = {name: await enrol(shared, tmp_path / name, name) for name in HOSTILE}
    for _ in range(0, FRAMES, ROUND):
        async with connected(shared, good, "/agent") as other:
            beating = asyncio.create_task(beat(other, await attach(other, "arm2")))
            frames = ROUND // len(bad)
            await asyncio.gather(
                *(flood(shared, tls, name, dice, frames) for name, tls in bad.items())
            )
            assert not beating.done()
            beating.cancel()
            assert (await state(shared, "arm2"))["state"] == "connected"
    assert psutil.Process(shared.process.pid).memory_info().rss < MAX_MEMORY
    name, tls = bad.popitem()
    async with connected(shared, tls, "/agent") as connection:
        await attach(connection, name)
        await until_state(shared, name, "connected")


async def until_state(process, robot, wanted):
    await until(lambda: state(process, robot), lambda seen: seen["state"] == wanted)


async def test_a_report_of_too_many_nodes_ends_its_connection_only(shared, tmp_path):
    tls = await enrol(shared, tmp_path / "robot", "arm1", again=True)
    nodes = '{"node":"n","outcome":"ok","reason":"r"},' * 200_000
    outcome = f'{{"uuid":"u","name":"x","status":"failed","results":[{nodes[:-1]}]}}'
    share = json.dumps(SHARE)[:-1] + f',"outcome":{outcome}}}'
    async with connected(shared, tls, "/agent") as connection:
        watch = await attach(connection, "arm1")
        with suppress(ConnectionClosed):
            await connection.send(f'{{"id":{watch},"event":{{"time":1,"shares":[{share}]}}}}')
        await ended(connection)
        assert connection.close_code == 1009
    await until_state(shared, "arm1", "unreachable")
    assert psutil.Process(shared.process.pid).memory_info().rss < MAX_MEMORY


@pytest.mark.parametrize("protocol", [0, 2, 1 << 60])
async def test_an_agent_of_another_protocol_is_refused_with_both_numbers(
    shared, tmp_path, protocol
):
    tls = await enrol(shared, tmp_path / "robot", "arm1", again=True)
    async with connected(shared, tls, "/agent") as connection:
        await connection.recv()
        await connection.send(json.dumps({"welcome": "dorad-agent 9", "protocol": protocol}))
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    found = await state(shared, "arm1")
    assert found["state"] == "refused"
    assert f"dorad-agent 9 speaks version {protocol} of the control protocol" in found["reason"]
    assert "version 1" in found["reason"]


async def obeys_another_term(process, tls, robot, told):
    """Connect like an agent again and again; obey only who takes over. Ends once it was refused."""
    while True:
        async with connected(process, tls, "/agent") as connection:
            await connection.recv()
            await connection.send(json.dumps({"welcome": "dorad-agent 1", "protocol": 1}))
            with suppress(ConnectionClosed):
                async for frame in connection:
                    request = json.loads(frame)
                    if request["method"] == "agent.watch":
                        await beat(connection, request["id"])
                    answer = {"id": request["id"]}
                    if request["method"] == "agent.attach" and not request["params"].get(
                        "takes_over"
                    ):
                        answer["error"] = {"code": "conflict", "message": "term 900 is obeyed"}
                    elif request["method"] == "agent.attach":
                        told.append(robot)
                        answer["result"] = {"robot": robot, "time": time.time(), **ATTACHED}
                    await connection.send(json.dumps(answer))


@pytest.mark.parametrize("revoked_first", [True, False])
async def test_a_takeover_reaches_no_robot_that_was_revoked_meanwhile(tmp_path, revoked_first):
    told = []
    with coordinator(tmp_path / "state", "--tls") as process:
        tasks = []
        for name in ("arm1", "arm2"):
            tls = await enrol(process, tmp_path / name, name)
            work = obeys_another_term(process, tls, name, told)
            tasks.append(asyncio.create_task(work, name=name))
        for name in ("arm1", "arm2"):
            await until_state(process, name, "refused")
        async with admin(process) as one:
            if revoked_first:
                await one.call("access.revoke", kind="robot", name="arm2")
                # Its next try is refused before anything is asked.
                with pytest.raises(InvalidStatus) as caught:
                    await tasks[1]
                assert b"was revoked" in caught.value.response.body
            else:
                tasks[1].cancel()  # away
            for name in ("arm1", "arm2"):
                await one.call("robot.takeover", robot=name)
            if not revoked_first:
                await one.call("access.revoke", kind="robot", name="arm2")
                assert "was revoked" in await refusal(process, tls, "/agent")
        await until_state(process, "arm1", "connected")
        assert (await state(process, "arm2"))["state"] != "connected"
        assert told == ["arm1"]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
