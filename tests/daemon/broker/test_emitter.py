"""The daemon as a sender of texts."""

from pathlib import Path

import pyarrow as pa
import pytest
from msgspec.structs import replace

from dorad.daemon.broker.broker import TEXT_CODE, encode_text
from dorad.dataflow.model import Input, LogSource, NodeOutput
from dorad.dataflow.settings import Logging
from dorad.shm.arrow import decode
from tests.daemon.broker.test_topology import COUNTER, WRITER, lines
from tests.daemon.clients import Program, stage
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import until

LENGTHS = """
import sys
from dora import Node
with open(sys.argv[1], "a") as file:
    for event in Node():
        if event["type"] == "INPUT":
            (text,) = event["value"].to_pylist()
            print(event["id"], len(text), set(text), file=file, flush=True)
"""


@pytest.mark.parametrize("text", ["", "a", "grün ☃", "x" * 100_000, "\ud800"])
def test_a_text_reads_as_an_array_of_one(text: str) -> None:
    array = decode(TEXT_CODE, 1, 0, pa.py_buffer(encode_text(text)))
    array.validate(full=True)
    assert array.type == pa.string()
    assert array.to_pylist() == [text.encode(errors="replace").decode()]


async def test_log_inputs_receive_short_and_long_texts_in_order(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    b = replace(node("b"), inputs=(Input("logs", LogSource(), 1000),))
    async with stage(dataflow(node("a"), b)) as on, Program(on, "b", LENGTHS, out):
        await until(lambda: on.broker.stats.vitals("b").connected)
        sizes = [1 + (number * 7919) % 5000 if number % 3 else number for number in range(1, 200)]
        for size in sizes:
            on.broker.emitter.emit("b", "logs", "x" * size)
        await until(lambda: len(lines(out)) == len(sizes))
        assert lines(out) == [f"logs {size} {{'x'}}" for size in sizes]
        assert on.broker.stats.input_counters("b", "logs").received == len(sizes)


async def test_texts_wait_for_a_node_that_attaches_later(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    b = replace(node("b"), inputs=(Input("logs", LogSource(), 5),))
    async with stage(dataflow(node("a"), b)) as on:
        for size in range(1000, 1020):
            on.broker.emitter.emit("b", "logs", "x" * size)
        async with Program(on, "b", LENGTHS, out):
            await until(lambda: len(lines(out)) == 5)
        assert [int(line.split()[1]) for line in lines(out)] == list(range(1015, 1020))


async def test_a_node_cannot_send_on_its_stdout_output(tmp_path: Path) -> None:
    """The node sends on the same output; only the daemon's texts arrive."""
    out, observer = tmp_path / "b.txt", tmp_path / "observer.txt"
    a = replace(node("a"), logging=Logging(send_stdout_as="out"))
    b = node("b", x="a/out")
    async with stage(dataflow(a, b)) as on:
        async with Program(on, "a", COUNTER), Program(on, "b", WRITER, out):
            await on.broker.observers.add(".echo", (Input("x", NodeOutput("a", "out")),))
            async with Program(on, ".echo", WRITER, observer):
                await until(
                    lambda: all(on.broker.stats.vitals(n).asleep for n in ("a", "b", ".echo"))
                )
                on.broker.emitter.emit_output("a", "out", "first")
                on.broker.emitter.emit("b", "x", "second")
                on.broker.emitter.emit_output("a", "out", "third")
                await until(lambda: len(lines(out)) == 3 and len(lines(observer)) == 2)
        assert lines(out) == ["x first", "x second", "x third"]
        assert lines(observer) == ["x first", "x third"]
        assert [edge.sent for edge in on.broker.stats.counters()] == [3]


async def test_only_edges_of_the_daemon_are_sent_to() -> None:
    async with stage(dataflow(node("a"), node("b", x="a/out"))) as on:
        on.broker.emitter.emit("b", "x", "not the daemon's")
        on.broker.emitter.emit_output("a", "out", "not the daemon's")
        assert on.broker.stats.counters()[0].sent == 0
