"""Observers of a running dataflow watch and feed nodes, and leave no trace."""

import os
import subprocess
from pathlib import Path

import pytest

from dorad.dataflow.model import Input, LogSource, NodeOutput, QueuePolicy
from tests.daemon.broker.test_topology import COUNTER, WRITER, lines
from tests.daemon.clients import Program, Stage, stage
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

PUBLISHER = """
import sys
import pyarrow as pa
from dora import Node
node = Node()
for number in range(int(sys.argv[1])):
    node.send_output("out", pa.array([number] * (1 if number % 2 else 1000)))
"""

SOURCE = NodeOutput("a", "out")


def descriptors_of(process: subprocess.Popen[bytes]) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


async def test_an_observer_receives_the_messages_of_nodes_and_is_in_no_result(
    tmp_path: Path,
) -> None:
    out = tmp_path / "observer.txt"
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on:
        async with Program(on, "a", COUNTER):
            await on.broker.observers.add(".echo", (Input("x", SOURCE),))
            async with Program(on, ".echo", WRITER, out):
                await until(lambda: len(lines(out, "x")) > 20)
            assert [edge.node for edge in on.broker.stats.counters()] == ["b"]
            on.broker.observers.remove(".echo")
            sent = on.broker.stats.counters()[0].sent
            await until(lambda: on.broker.stats.counters()[0].sent > sent + 20)
        assert {name for _, name in on.events} == {"a"}


async def test_an_observer_that_does_not_read_delays_no_sender() -> None:
    async with stage(dataflow(node("a"))) as on, Program(on, "a", COUNTER):
        entry = Input("x", SOURCE, 1, QueuePolicy.BACKPRESSURE)
        await on.broker.observers.add(".deaf", (entry,))
        with on.client() as client:
            client.hello(".deaf")
            await client.packet_of("welcome")
            client.send_packet("ready")
            await until(lambda: on.broker.stats.input_counters(".deaf", "x").sent > 50)
        on.broker.observers.remove(".deaf")


async def test_an_observer_without_a_process_counts_messages() -> None:
    async with stage(dataflow(node("a"))) as on, Program(on, "a", COUNTER):
        await on.broker.observers.add(".silent", (Input("x", SOURCE, 1),))
        seen = on.broker.stats.input_counters(".silent", "x")
        await until(lambda: on.broker.stats.input_counters(".silent", "x").sent > seen.sent + 50)
        seen = on.broker.stats.input_counters(".silent", "x")
        assert seen.sent == seen.dropped + seen.queued
        assert seen.received == 0
        on.broker.observers.remove(".silent")


async def publish(on: Stage, number: int, count: int, *targets: tuple[str, str]) -> None:
    observer = f".pub-{number}"
    await on.broker.observers.add(observer, outputs={"out": targets})
    async with Program(on, observer, PUBLISHER, count) as program:
        assert await program.ended() == 0
    on.broker.observers.remove(observer)


async def test_a_publisher_feeds_inputs_beside_their_own_source(tmp_path: Path) -> None:
    out, other = tmp_path / "b.txt", tmp_path / "c.txt"
    flow = dataflow(node("a"), node("b", x="a/out"), node("c", x="a/out"))
    async with stage(flow) as on:
        async with Program(on, "b", WRITER, out), Program(on, "c", WRITER, other):
            await until(lambda: all(on.broker.stats.vitals(n).connected for n in "bc"))
            await publish(on, 0, 5, ("b", "x"), ("c", "x"))
            await until(lambda: len(lines(out, "x")) >= 5 and len(lines(other, "x")) >= 5)
            async with Program(on, "a", COUNTER):
                await until(lambda: len(lines(out, "x")) > 20)
            await publish(on, 1, 3, ("b", "x"))
            assert on.broker.stats.counters()[0].dropped == 0


async def test_messages_of_a_publisher_are_received_after_it_has_exited(tmp_path: Path) -> None:
    """The observer has been removed long before the node receives."""
    out = tmp_path / "b.txt"
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on:
        for number in range(3):
            before = len(lines(out))
            async with Program(on, "b", WRITER, out) as program:
                await until(lambda: on.broker.stats.vitals("b").connected)
                os.kill(program.process.pid, 19)
                await publish(on, number, 8, ("b", "x"))
                os.kill(program.process.pid, 18)
                await until(lambda n=before: len(lines(out)) >= n + 8)
            on.broker.released("b")
        assert lines(out) == [f"x {number}" for number in range(8)] * 3


async def test_observers_leave_nothing_in_the_nodes(tmp_path: Path) -> None:
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on:
        async with Program(on, "a", COUNTER) as a, Program(on, "b", WRITER, tmp_path / "b") as b:
            await until(lambda: on.received("b") > 10)
            before = descriptors_of(a.process) + 3, descriptors_of(b.process)
            for number in range(30):
                await on.broker.observers.add(f".echo-{number}", (Input("x", SOURCE, 1),))
                await until(
                    lambda n=number: on.broker.stats.input_counters(f".echo-{n}", "x").sent > 1
                )
                on.broker.observers.remove(f".echo-{number}")
            # The sender notices within seconds that its samples are free.
            await until(lambda: descriptors_of(a.process) <= before[0])
            assert descriptors_of(b.process) == before[1]


@pytest.mark.parametrize("observer_id", ["a", ".daemon", ".a/b"])
async def test_an_invalid_observer_id_is_refused(observer_id: str) -> None:
    async with stage() as on:
        with pytest.raises(ValueError, match="observer"):
            await on.broker.observers.add(observer_id)


async def test_an_observer_of_an_unknown_input_leaves_nothing() -> None:
    async with stage() as on:
        with pytest.raises(KeyError):
            await on.broker.observers.add(".g", outputs={"out": (("b", "nothing"),)})
        await on.broker.observers.add(".g", (Input("logs", LogSource()),))
        on.broker.observers.remove(".g")
        on.broker.observers.remove(".g")
