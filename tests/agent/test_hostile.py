"""A coordinator that sends nonsense harms only its own connection."""

import asyncio
import json
import os
import random
import uuid
from contextlib import suppress

import msgspec
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from dorad.agent.store import MAX_ASSIGNMENTS
from dorad.control.errors import ControlError
from dorad.control.limits import IDLE_FRAMES, MAX_REQUEST
from dorad.control.messages import METHODS
from dorad.control.messages.agent import AGENT_METHODS, SHARE_REMOVE, ShareRef
from tests.agent.fleet import DEADLINE_S, robot, send
from tests.agent.orders import UUID, order

FRAMES = int(os.environ.get("AGENT_FRAMES", "3000"))
"""Random frames that are sent; `make fuzz-agent` sends more."""

KEYS = ["id", "method", "params", "hello", "protocol", "epoch", "generation", "dataflow", "content"]


def anything(dice, depth=0):
    """Return a random value of JSON, often with words of the protocol."""
    kinds = ["number", "text", "word", "none", "list", "object"]
    match dice.choice(kinds[: 4 if depth > 3 else 6]):
        case "number":
            return dice.choice([0, 1, -1, 2**63, 2**70, 0.5, 1e308, dice.randrange(100)])
        case "text":
            return "".join(chr(dice.randrange(1, 0xD7FF)) for _ in range(dice.randrange(20)))
        case "word":
            return dice.choice([*METHODS, *AGENT_METHODS, *KEYS, UUID, "cancel", "flow"])
        case "none":
            return dice.choice([None, True, False])
        case "list":
            return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
        case _:
            return {dice.choice(KEYS): anything(dice, depth + 1) for _ in range(dice.randrange(5))}


OTHER = json.loads(msgspec.json.encode(order(dataflow="other", uuid=UUID.replace("1", "2"))))


def frame(dice):
    """Return a frame: noise, JSON, or a request that is nearly right."""
    match dice.randrange(6):
        case 0:
            return dice.randbytes(dice.randrange(200))
        case 1:
            return json.dumps(anything(dice))
        case 2:
            return "[" * dice.randrange(2000)
        case 3:
            text = json.dumps({"id": dice.randrange(9), "method": "share.set", "params": OTHER})
            at = dice.randrange(len(text))
            return text[:at] + chr(dice.randrange(1, 0x7F)) + text[at + 1 :]
        case 4:
            method = dice.choice(["share.open", "share.remove", "agent.certify", "cancel", "top"])
            params = anything(dice)
            return json.dumps({"id": dice.randrange(2**40), "method": method, "params": params})
        case _:
            params = OTHER | {dice.choice(KEYS): anything(dice)}
            return json.dumps({"id": dice.randrange(99), "method": "share.set", "params": params})


@pytest.mark.timeout(240 + FRAMES // 100)
async def test_random_frames_after_the_handshake_change_nothing_of_other_shares(folder):
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach_running()
        await control.close()
        sent = 0
        while sent < FRAMES:
            connection = await coordinator.accepted()
            await connection.send(json.dumps({"hello": "fuzz", "protocol": 1}))
            reading = asyncio.create_task(drain(connection))
            with suppress(ConnectionClosed):
                while sent < FRAMES:
                    await connection.send(frame(dice))
                    sent += 1
            if sent == FRAMES:
                await connection.close()
            await reading
        control = await coordinator.attach()
        await control.reaches("running")
        assert psutil.Process(agent.process.pid).memory_info().rss < 300 << 20
        assert [start.uuid for start in dorad.started].count(UUID) == 1
        # A frame that is nearly right may be an order for another share, which may be stopped.
        assert [stop for stop in dorad.stops if stop.dataflow == UUID] == []
        assert "Traceback" not in agent.log
        await control.close()


HELLO = json.dumps({"hello": "x", "protocol": 1})


@pytest.mark.parametrize(
    "first",
    [b"\x00" * 100, "", "{", "null", '{"hello": 5}', json.dumps({"id": 1, "method": "top"})],
)
async def test_nonsense_instead_of_hello_ends_the_connection_with_the_reason(folder, first):
    async with robot(folder) as (coordinator, agent, _):
        connection = await coordinator.accepted()
        await connection.send(first)
        reply = json.loads(await connection.recv())
        assert reply["error"]["code"] == "bad-request"
        await connection.wait_closed()
        assert (await agent.connection("refused")).connection.reason


async def test_a_frame_that_is_too_large_ends_the_connection_only(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach_running()
        await control.close()
        connection = await coordinator.accepted()
        await connection.send(HELLO)
        await connection.recv()
        with suppress(ConnectionClosed):
            await connection.send("x" * (MAX_REQUEST + 1))
        await connection.wait_closed()
        assert connection.close_code == 1009
        control = await coordinator.attach()
        await control.reaches("running")
        assert len(dorad.started) == 1
        await control.close()
        del agent


async def test_pings_without_end_whose_answers_nobody_reads_end_the_connection_only(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach_running()
        await control.close()
        transport = (await coordinator.accepted()).transport
        transport.pause_reading()
        pings = (b"\x89\x7d" + bytes(125)) * (4 * IDLE_FRAMES)
        async with asyncio.timeout(DEADLINE_S):
            while not transport.is_closing():
                transport.write(pings)
                await asyncio.sleep(0.05)
        await agent.says("frames without a message")
        control = await coordinator.attach()
        await control.reaches("running")
        assert len(dorad.started) == 1


async def test_one_coordinator_cannot_fill_the_disk_with_shares(folder):
    async with robot(folder) as (coordinator, _, dorad):
        dorad.refusal = ControlError("bad-request", "no")
        control = await coordinator.attach()
        for number in range(MAX_ASSIGNMENTS):
            await send(control, order(dataflow=f"flow{number}", uuid=str(uuid.UUID(int=number))))
        with pytest.raises(ControlError, match=f"{MAX_ASSIGNMENTS} dataflows, the maximum"):
            await send(control, order(dataflow="one-more"))
        await control.reaches("failed", "flow7")
        ref = ShareRef(epoch=1, generation=1, dataflow="flow7")
        await control.client.call(SHARE_REMOVE, ref)
        await send(control, order(dataflow="one-more"))


async def drain(connection):
    """Read all answers, so that the agent is not blocked."""
    with suppress(ConnectionClosed):
        async for _ in connection:
            pass
