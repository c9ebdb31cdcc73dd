"""Nodes and inputs are added to and removed from a running dataflow; others are not affected."""

import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from dorad.dataflow.model import Dataflow, Input, NodeOutput, NodeSpec, QueuePolicy, Timer
from dorad.procinfo import is_sigstopped
from tests.daemon.clients import Client, Program, Stage, stage
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

COUNTER = """
import pyarrow as pa
from dora import Node
node = Node()
number = 0
while (event := node.next(timeout=0.005)) is None or event["type"] != "STOP":
    node.send_output("out", pa.array([number] * (1 if number % 3 else 1000)))
    number += 1
"""

WRITER = """
import sys
from dora import Node
with open(sys.argv[1], "a") as file:
    for event in Node():
        if event["type"] == "INPUT":
            value = event["value"][0].as_py() if len(event["value"]) else "tick"
            print(event["id"], value, file=file, flush=True)
        else:
            print(event["type"], event.get("id"), file=file, flush=True)
"""


def lines(path: Path, prefix: str = "") -> list[str]:
    """What a writer has written so far for one input."""
    found = path.read_text().splitlines() if path.exists() else []
    return [line for line in found if line.startswith(prefix)]


def with_inputs(flow: Dataflow, node_id: str, *inputs: Input) -> Dataflow:
    """The dataflow after a node's inputs have changed."""
    nodes = [replace(n, inputs=inputs) if n.id == node_id else n for n in flow.nodes]
    return replace(flow, nodes=tuple(nodes))


async def test_an_input_can_be_added_and_removed_while_both_nodes_run(tmp_path: Path) -> None:
    flow = dataflow(node("a"), node("b"))
    out = tmp_path / "b.txt"
    async with stage(flow) as on, Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
        await until(
            lambda: on.broker.stats.vitals("b").connected and on.broker.stats.vitals("a").connected
        )
        for times, name in enumerate(("x", "y", "x"), 1):
            entry = Input(name, NodeOutput("a", "out"))
            before = len(lines(out, name))
            on.broker.topology.add_edge("b", entry)
            on.broker.topology.update(with_inputs(flow, "b", entry))
            await until(lambda name=name, before=before: len(lines(out, name)) > before + 20)
            on.broker.topology.remove_edge("b", name)
            on.broker.topology.update(flow)
            await until(lambda: not on.broker.stats.counters())
            await until(lambda times=times: len(lines(out, "INPUT_CLOSED")) == times)
            assert lines(out)[-1] == f"INPUT_CLOSED {name}"
        numbers = [int(line.split()[1]) for line in lines(out, "y")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        on.broker.topology.add_edge("b", Input("tick", Timer(10_000_000)))
        await until(lambda: len(lines(out, "tick")) > 3)


async def test_rings_of_removed_inputs_are_reused(tmp_path: Path) -> None:
    """The mailbox has room for 7 more queues of this size at a time."""
    flow = dataflow(node("a"), node("b"))
    out = tmp_path / "b.txt"
    async with stage(flow) as on, Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
        await until(
            lambda: on.broker.stats.vitals("b").connected and on.broker.stats.vitals("a").connected
        )
        for number in range(30):
            entry = Input(f"x{number}", NodeOutput("a", "out"), 400)
            await until(lambda new=entry: finds_room(on, new))
            if number % 5 == 0:
                await until(lambda n=number: len(lines(out, f"x{n} ")) > 1)
            on.broker.topology.remove_edge("b", entry.id)


def finds_room(on: Stage, entry: Input) -> bool:
    """Add an input to `b`; False while the ring of a removed input is still in use."""
    try:
        on.broker.topology.add_edge("b", entry)
    except OSError:
        return False
    return True


async def test_a_queue_without_room_is_refused() -> None:
    async with stage(dataflow(node("a"), node("b"))) as on:
        with pytest.raises(OSError, match="no room"):
            on.broker.topology.add_edge("b", Input("x", NodeOutput("a", "out"), 100_000))
        on.broker.topology.add_edge("b", Input("x", NodeOutput("a", "out"), 10))


async def test_a_node_can_be_removed_and_added_again(tmp_path: Path) -> None:
    a, b = node("a"), node("b", x="a/out")
    out = tmp_path / "b.txt"
    async with stage(dataflow(a, b)) as on, Program(on, "b", WRITER, out):
        for _ in range(3):
            before = len(lines(out, "x"))
            async with Program(on, "a", COUNTER):
                await until(lambda n=before: len(lines(out, "x")) > n + 10)
            on.broker.detach("a")
            on.broker.topology.remove_node("a")
            assert on.broker.stats.counters() == []
            await on.broker.topology.add_node(a, dataflow(a, b))
        async with Program(on, "a", COUNTER):
            await until(lambda: on.received("b") > 10)


async def test_a_node_added_receives_from_one_that_runs(tmp_path: Path) -> None:
    a = node("a")
    b: NodeSpec = node("b", x="a/out")
    out = tmp_path / "b.txt"
    async with stage(dataflow(a)) as on, Program(on, "a", COUNTER):
        await until(lambda: on.broker.stats.vitals("a").connected)
        await on.broker.topology.add_node(b, dataflow(a, b))
        async with Program(on, "b", WRITER, out):
            await until(lambda: len(lines(out, "x")) > 20)
        with pytest.raises(ValueError, match="already"):
            await on.broker.topology.add_node(b, dataflow(a, b))


async def test_an_added_input_with_backpressure_makes_its_sender_wait(tmp_path: Path) -> None:
    flow = dataflow(node("a"), node("b"))
    out = tmp_path / "b.txt"
    async with stage(flow) as on, Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
        await until(
            lambda: on.broker.stats.vitals("b").connected and on.broker.stats.vitals("a").connected
        )
        entry = Input("x", NodeOutput("a", "out"), 1, QueuePolicy.BACKPRESSURE)
        on.broker.topology.add_edge("b", entry)
        await until(lambda: len(lines(out, "x")) > 100)
        numbers = [int(line.split()[1]) for line in lines(out, "x")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert on.broker.stats.counters()[0].dropped == 0


async def test_the_removal_of_a_node_touches_no_other_receiver_of_its_inputs() -> None:
    """Only their sender hears of it: no packet comes, and no word of the mailbox changes."""
    flow = dataflow(node("a"), node("b", x="a/out"), node("c", x="a/out"))
    small = COUNTER.replace("1000", "1")  # needs no memory of the daemon, which would tell of it
    async with stage(flow) as on, Program(on, "a", small) as a:
        with on.client() as stays, on.client() as leaves:
            await leaves.attach("c")
            stays.hello("b")
            memory, *others = await stays.descriptors_with("welcome")
            try:
                await until(lambda: sent_to(on, "b") > 20)
                os.kill(a.process.pid, signal.SIGSTOP)
                await until(lambda: is_sigstopped(a.process.pid))
                while has_packet(stays):
                    await stays.packet()
                size = os.fstat(memory).st_size
                before = os.pread(memory, size, 0)
                on.broker.detach("c")
                on.broker.topology.remove_node("c")
                assert not has_packet(stays)
                assert os.pread(memory, size, 0) == before
                count = sent_to(on, "b")
                os.kill(a.process.pid, signal.SIGCONT)
                await until(lambda: sent_to(on, "b") > count + 20)
            finally:
                for descriptor in (memory, *others):
                    os.close(descriptor)


def sent_to(on: Stage, node_id: str) -> int:
    return sum(edge.sent for edge in on.broker.stats.counters() if edge.node == node_id)


def has_packet(client: Client) -> bool:
    try:
        client.peek()
    except BlockingIOError:
        return False
    return True
