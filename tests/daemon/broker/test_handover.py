"""Replacing the process of a running node: no message is lost or received twice."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from dorad.dataflow.model import Dataflow, Input, NodeKind, NodeOutput, NodeSpec, Timer
from tests.daemon.broker.test_topology import COUNTER, WRITER, lines
from tests.daemon.clients import Program, Stage, stage
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

pytestmark = pytest.mark.long

RELAY = """
import time
from dora import Node
node = Node()
held = []
for event in node:
    if event["type"] == "INPUT":
        held = [*held, event["value"]][-8:]
        node.send_output("out", event["value"])
"""

SLOW_TO_RECEIVE = RELAY.replace("held = []", "held = []; time.sleep(1)")

SLOW_TO_ATTACH = RELAY.replace("node = Node()", "time.sleep(0.4); node = Node()")


def flow(queue_size: int = 100) -> Dataflow:
    """A counter, a relay and a writer with room for all messages; the relay has the queue."""
    relay = NodeSpec(
        "m",
        NodeKind.PATH,
        path="m.py",
        inputs=(Input("x", NodeOutput("a", "out"), queue_size),),
        outputs=("out",),
    )
    writer = replace(node("b"), inputs=(Input("x", NodeOutput("m", "out"), 1000),))
    return dataflow(node("a"), relay, writer)


def numbers(path: Path) -> list[int]:
    return [int(line.split()[1]) for line in lines(path, "x")]


@asynccontextmanager
async def line_of_three(queue_size: int, out: Path) -> AsyncIterator[tuple[Stage, Program]]:
    async with stage(flow(queue_size)) as on:
        async with Program(on, "b", WRITER, out), Program(on, "m", RELAY) as relay:
            await until(lambda: all(on.broker.stats.vitals(n).connected for n in "bm"))
            async with Program(on, "a", COUNTER):
                await until(lambda: len(numbers(out)) > 40)
                yield on, relay


async def replace_relay(on: Stage, old: Program, program: str, stack: AsyncExitStack) -> Program:
    """Replace the relay as the supervisor does."""
    dataflow = flow()
    events = len(on.events)
    on.broker.handovers.begin("m", dataflow.node("m"), dataflow)
    new = await stack.enter_async_context(Program(on, "m", program))
    await until(lambda: ("waiting", "m") in on.events[events:])
    on.broker.notifications.stop("m", "MANUAL")
    assert await old.ended() == 0
    assert on.broker.handovers.end("m")
    return new


@pytest.mark.parametrize("program", [RELAY, SLOW_TO_RECEIVE])
async def test_a_sequence_continues_without_a_gap(program: str, tmp_path: Path) -> None:
    """The queue holds half a second of messages; the slow process starts in a whole one."""
    out = tmp_path / "b.txt"
    async with line_of_three(100, out) as (on, relay), AsyncExitStack() as stack:
        for _ in range(2):
            relay = await replace_relay(on, relay, program, stack)
            goal = len(numbers(out)) + 60
            await until(lambda g=goal: len(numbers(out)) > g)
        assert [edge.dropped for edge in on.broker.stats.counters()] == [0, 0]
        found = numbers(out)
        assert found == list(range(found[0], found[0] + len(found)))
        # Afterwards the input drops the oldest messages of a slow receiver again.
        os.kill(relay.process.pid, 19)
        await until(lambda: on.broker.stats.counters()[0].dropped > 0)
        os.kill(relay.process.pid, 18)
    assert ("disconnected", "m") not in on.events[: on.events.index(("waiting", "m")) + 1]


async def test_a_killed_old_process_hands_over_queued_messages(tmp_path: Path) -> None:
    """Only the message it was working on is lost."""
    out = tmp_path / "b.txt"
    async with line_of_three(100, out) as (on, relay):
        on.broker.handovers.begin("m", flow().node("m"), flow())
        async with Program(on, "m", RELAY) as new:
            await until(lambda: ("waiting", "m") in on.events)
            relay.process.kill()
            await relay.ended()
            on.broker.handovers.end("m")
            goal = len(numbers(out)) + 60
            await until(lambda: len(numbers(out)) > goal)
            found = numbers(out)
            missing = set(range(found[0], found[-1])) - set(found)
            assert len(found) == len(set(found))
            assert len(missing) <= 1
            assert new.process.poll() is None


async def test_a_replacement_that_attaches_after_the_exit_of_the_old_process_takes_over(
    tmp_path: Path,
) -> None:
    out = tmp_path / "b.txt"
    async with line_of_three(100, out) as (on, relay):
        on.broker.handovers.begin("m", flow().node("m"), flow())
        on.broker.notifications.stop("m", "MANUAL")
        assert await relay.ended() == 0
        assert not on.broker.handovers.end("m")
        async with Program(on, "m", SLOW_TO_ATTACH):
            goal = len(numbers(out)) + 60
            await until(lambda: len(numbers(out)) > goal)
        found = numbers(out)
        assert found == list(range(found[0], found[0] + len(found)))


async def test_a_replacement_that_exits_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    async with line_of_three(100, out) as (on, relay):
        on.broker.handovers.begin("m", flow().node("m"), flow())
        async with Program(on, "m", RELAY) as new:
            await until(lambda: ("waiting", "m") in on.events)
            new.process.kill()
        assert not on.broker.handovers.end("m")
        goal = len(numbers(out)) + 20
        await until(lambda: len(numbers(out)) > goal)
        assert relay.process.poll() is None
        os.kill(relay.process.pid, 19)
        await until(lambda: on.broker.stats.counters()[0].dropped > 0)
        os.kill(relay.process.pid, 18)


async def test_a_replacement_may_have_other_inputs(tmp_path: Path) -> None:
    """One input stays, one is removed, one has another source, one is new."""
    out = tmp_path / "m.txt"
    source = NodeOutput("a", "out")
    tick = Timer(10_000_000)
    old = replace(
        node("m"), inputs=(Input("x", source, 1000), Input("gone", source), Input("turned", source))
    )
    new = replace(
        node("m"), inputs=(Input("x", source, 1000), Input("turned", tick), Input("tick", tick))
    )
    async with stage(dataflow(node("a"), old)) as on, Program(on, "a", COUNTER):
        async with Program(on, "m", WRITER, out) as first:
            await until(lambda: len(lines(out, "gone")) > 5)
            on.broker.handovers.begin("m", new, dataflow(node("a"), new))
            async with Program(on, "m", WRITER, out):
                await until(lambda: ("waiting", "m") in on.events)
                on.broker.notifications.stop("m", "MANUAL")
                await first.ended()
                assert on.broker.handovers.end("m")
                on.broker.topology.update(dataflow(node("a"), new))
                gone = len(lines(out, "gone"))
                await until(lambda: lines(out, "tick") and lines(out, "turned tick"))
                goal = len(numbers(out)) + 30
                await until(lambda: len(numbers(out)) > goal)
                assert len(lines(out, "gone")) == gone
                found = numbers(out)
                assert found == list(range(found[0], found[0] + len(found)))
                assert {edge.input for edge in on.broker.stats.counters()} == {"x"}


async def test_a_timer_continues_without_a_repeated_tick(tmp_path: Path) -> None:
    out = tmp_path / "m.txt"
    node_m = replace(node("m"), inputs=(Input("tick", Timer(20_000_000), 100),))
    stamper = WRITER.replace('"tick"', 'event["metadata"]["timestamp"].timestamp()')
    async with stage(dataflow(node_m)) as on, Program(on, "m", stamper, out) as first:
        await until(lambda: len(lines(out, "tick")) > 5)
        on.broker.handovers.begin("m", node_m, dataflow(node_m))
        async with Program(on, "m", stamper, out):
            await until(lambda: ("waiting", "m") in on.events)
            on.broker.notifications.stop("m", "MANUAL")
            await first.ended()
            on.broker.handovers.end("m")
            seen = len(lines(out, "tick"))
            await until(lambda: len(lines(out, "tick")) > seen + 5)
    # Ticks are due every 20 ms; the clocks of stamps differ slightly.
    stamps = [float(line.split()[1]) for line in lines(out, "tick")]
    assert all(later - earlier > 0.015 for earlier, later in pairwise(stamps))


async def test_a_second_process_may_wait_only_during_a_handover() -> None:
    async with stage(flow()) as on:
        with on.client() as old, on.client() as early:
            await old.attach("m")
            early.hello("m")
            assert "already attached" in (await early.packet_of("refused"))["error"]
            on.broker.handovers.begin("m", flow().node("m"), flow())
            with pytest.raises(ValueError, match="already"):
                on.broker.handovers.begin("m", flow().node("m"), flow())
            with on.client() as same:
                same.hello("m")  # from the process that is attached
                assert "being replaced" in (await same.packet_of("refused"))["error"]
            async with Program(on, "m", RELAY):
                await until(lambda: ("waiting", "m") in on.events)
                async with Program(on, "m", RELAY) as second:
                    assert await second.ended() == 1
                old.send_packet("done")
                await old.ended()
                await until(lambda: ("connected", "m") in on.events)
            on.broker.handovers.end("m")
            await until(lambda: ("disconnected", "m") in on.events)


async def test_samples_that_an_old_process_holds_are_not_reused_before_it_has_ended() -> None:
    """The old process drops its `Node` and keeps arrays in the sender's samples."""
    holder = """
import sys
import pyarrow as pa
from dora import Node
node = Node()
held = []
for event in node:
    if event["type"] == "INPUT" and len(event["value"]) > 1 and len(held) < 8:
        held.append((event["value"], event["value"].to_pylist()))
del node
sys.stdin.read()
assert all(array.to_pylist() == known for array, known in held) and len(held) == 8
"""
    async with stage(flow()) as on, Program(on, "a", COUNTER):
        old = Program(on, "m", holder)
        async with old:
            await until(lambda: on.broker.stats.vitals("m").connected and on.received("m") > 60)
            on.broker.handovers.begin("m", flow().node("m"), flow())
            async with Program(on, "m", RELAY):
                await until(lambda: ("waiting", "m") in on.events)
                on.broker.notifications.stop("m", "MANUAL")
                await until(lambda: on.received("m") > 100)
                seen = on.received("m")
                await until(lambda: on.received("m") > seen + 200)
                assert await old.ended() == 0
                assert on.broker.handovers.end("m")
