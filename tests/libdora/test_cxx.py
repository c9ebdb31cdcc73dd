"""Nodes against the C++ API that dora generates, `dora-node-api.h`."""

from pathlib import Path

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import PREFIX, Compile, add

HERE = Path(__file__).parent
DORA_FLAGS = ("-pthread", f"-I{PREFIX}/include/dora")

ARRAYS = """
import datetime
import pyarrow as pa
from dora import Node
from probe import report

METADATA = {
    "t": True, "n": -3, "f": 0.5, "s": "x",
    "ints": [1, 2], "floats": [0.5, 1.5], "texts": ["a", "b"],
    "when": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC),
}
node = Node()
for array in (pa.array([1, 2, 3]), pa.array([{"x": 1.5, "l": ["a", None]}, None])):
    node.send_output("array", array, METADATA)
    while (event := node.next(30))["type"] != "INPUT":
        assert event["type"] != "ERROR", event
    assert event["value"].equals(array), event
    assert {key: event["metadata"][key] for key in METADATA} == METADATA, event
    report("same")
"""

FAILING = """
import sys
from dora import Node

node = Node()
node.send_output("x", b"1")
sys.exit("it ends badly")
"""


@pytest.mark.long
def test_nodes_call_each_other_and_pass_arrays_on(flow: Flow, compile_node: Compile) -> None:
    program = compile_node("cxx", HERE / "cxx.cc", flags=DORA_FLAGS, language="c++")
    asks = {"tick": "dora/timer/millis/20", "answer": "server/answer"}
    asked = {"request": "client/request"}
    add(flow, "client", program, env={"ROLE": "client"}, inputs=asks, outputs=["request"])
    add(flow, "server", program, env={"ROLE": "server"}, inputs=asked, outputs=["answer"])
    passes = {"in": "driver/array"}
    add(flow, "pass", program, env={"ROLE": "pass"}, inputs=passes, outputs=["out"])
    flow.node("driver", ARRAYS, inputs={"back": "pass/out"}, outputs=["array"])
    outcome = flow.run(deadline=60).expect(0)
    assert "asked, " in outcome.output
    assert "failed: " not in outcome.output
    assert flow.reports("driver") == ["same", "same"]


def test_a_node_learns_which_inputs_a_failed_node_leaves(flow: Flow, compile_node: Compile) -> None:
    program = compile_node("cxx", HERE / "cxx.cc", flags=DORA_FLAGS, language="c++")
    flow.node("failing", FAILING, outputs=["x"])
    request = {"request": "failing/x", "other": "failing/x"}
    add(flow, "server", program, env={"ROLE": "server"}, inputs=request, outputs=["answer"])
    outcome = flow.run(deadline=60)
    assert outcome.code == 1
    (line,) = (line for line in outcome.output.splitlines() if "failed node: " in line)
    assert sorted(line.partition("failed node: ")[2].split()) == ["failing", "other", "request"]
