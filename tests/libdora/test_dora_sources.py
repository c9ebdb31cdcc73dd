"""Nodes in C and C++ of dora's repository, compiled without a change, run beside nodes in Python.

Set DORA_SOURCES to a checkout of https://github.com/dora-rs/dora; without it the tests are skipped.
The sources include dora's own header; those that look for it elsewhere find ours.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import PREFIX, Compile, add

SOURCES = os.environ.get("DORA_SOURCES")

pytestmark = pytest.mark.skipif(SOURCES is None, reason="DORA_SOURCES is not set")

TEMPLATES = "binaries/cli/src/template/c"
CXX = "binaries/cli/src/template/cxx"
DYNAMIC = "examples/cxx-dynamic-add-remove"
EXCHANGE = "examples/c++-service-action/nodes"
NODES = {
    "node": "examples/c-dataflow/node.c",
    "sink": "examples/c-dataflow/sink.c",
    "cpp": "examples/c++-dataflow/node-c-api/main.cc",
    "cmake": "examples/cmake-dataflow/node-c-api/main.cc",
    "template": f"{TEMPLATES}/node/node-template.c",
    "talker": f"{TEMPLATES}/talker/talker-template.c",
    "listener": f"{TEMPLATES}/listener/listener-template.c",
    "sender": f"{DYNAMIC}/sender.cc",
    "filter": f"{DYNAMIC}/filter.cc",
    "receiver": f"{DYNAMIC}/receiver.cc",
    "linked": "tests/cmake-find-package-c/main.c",
    # These include the header that dora generates.
    "cxx": "examples/c++-dataflow/node-rust-api/main.cc",
    "cxx-cmake": "examples/cmake-dataflow/node-rust-api/main.cc",
    "cxx-linked": "tests/cmake-find-package-cxx/main.cc",
    "cxx-template": f"{CXX}/node-template.cc",
    "cxx-talker": f"{CXX}/talker-template.cc",
    "cxx-listener": f"{CXX}/listener-template.cc",
    "cxx-service-client": f"{EXCHANGE}/service-client.cc",
    "cxx-service-server": f"{EXCHANGE}/service-server.cc",
    "cxx-action-client": f"{EXCHANGE}/action-client.cc",
    "cxx-action-server": f"{EXCHANGE}/action-server.cc",
}


def built(compile_node: Compile, name: str, folder: Path) -> Path:
    file = Path(SOURCES or "") / NODES[name]
    cpp = file.suffix == ".cc"
    flags = ["-w", *(() if cpp else ("-std=gnu11",)), f"-I{SOURCES}/apis/c"]
    if "template" in NODES[name] or "tests/" in NODES[name] or name.startswith("cxx"):
        flags.append(f"-I{PREFIX}/include/dora")
    if name.startswith("cxx"):
        # One of them looks for the header in a folder `build` beside, where dora puts it.
        (folder / "build").mkdir(exist_ok=True)
        (folder / "build" / "dora-node-api.h").write_text("#include <dora/dora-node-api.h>\n")
        (folder / "source").mkdir(exist_ok=True)
        flags += ["-std=c++20", f"-I{folder}/source"]
    return compile_node(name, file, flags=tuple(flags), language="c++" if cpp else "c")


TICK = "dora/timer/millis/20"

SHOW = """
from dora import Node
from probe import report

for event in Node():
    if event["type"] == "INPUT":
        report([event["id"], event["value"].to_numpy().tobytes().decode("latin1")])
"""


@pytest.mark.parametrize("name", NODES)
def test_it_compiles_without_a_change(compile_node: Compile, tmp_path: Path, name: str) -> None:
    assert built(compile_node, name, tmp_path).exists()


def test_its_dataflow_in_c_runs(flow: Flow, compile_node: Compile) -> None:
    add(
        flow,
        "node",
        built(compile_node, "node", flow.folder),
        inputs={"tick": TICK},
        outputs=["message"],
    )
    add(flow, "sink", built(compile_node, "sink", flow.folder), inputs={"message": "node/message"})
    flow.node("show", SHOW, inputs={"message": "node/message"})
    outcome = flow.run(deadline=60)
    assert "received input `message` with data: loop iteration 1" in outcome.output
    assert ["message", "loop iteration 2"] in flow.reports("show")


@pytest.mark.parametrize("name", ["cpp", "cmake"])
def test_its_nodes_in_cpp_run(flow: Flow, compile_node: Compile, name: str) -> None:
    add(
        flow,
        "counter",
        built(compile_node, name, flow.folder),
        inputs={"tick": TICK},
        outputs=["counter"],
    )
    flow.node("show", SHOW, inputs={"counter": "counter/counter"})
    outcome = flow.run(stop_after=12, deadline=60)
    assert "Received input" in outcome.output
    assert ["counter", "\x02"] in flow.reports("show")


def test_its_templates_run(flow: Flow, compile_node: Compile) -> None:
    inputs: dict[str, Any] = {"tick": TICK}
    add(
        flow,
        "talker",
        built(compile_node, "talker", flow.folder),
        inputs=inputs,
        outputs=["speech"],
    )
    add(flow, "node", built(compile_node, "template", flow.folder), inputs=inputs, outputs=["foo"])
    heard = {"speech": "talker/speech"}
    add(flow, "listener", built(compile_node, "listener", flow.folder), inputs=heard)
    flow.node("show", SHOW, inputs={"foo": "node/foo"})
    outcome = flow.run(stop_after=12, deadline=60)
    assert "Hello World" in outcome.output
    assert ["foo", "bar"] in flow.reports("show")


def test_its_calls_and_goals_in_cpp_run(flow: Flow, compile_node: Compile) -> None:
    def node(name: str, **fields: Any) -> None:
        add(flow, name, built(compile_node, name, flow.folder), **fields)

    asks = {"tick": TICK, "response": "cxx-service-server/response"}
    node("cxx-service-client", inputs=asks, outputs=["request"])
    asked = {"request": "cxx-service-client/request"}
    node("cxx-service-server", inputs=asked, outputs=["response"])
    replies = {name: f"cxx-action-server/{name}" for name in ("feedback", "result")}
    node("cxx-action-client", inputs={"tick": TICK, **replies}, outputs=["goal"])
    goals = {"goal": "cxx-action-client/goal"}
    node("cxx-action-server", inputs=goals, outputs=["feedback", "result"])
    outcome = flow.run(deadline=60).expect(0)
    assert "completed 5 request(s)" in outcome.output
    assert "completed 3 goal(s)" in outcome.output
    assert "succeeded" in outcome.output
