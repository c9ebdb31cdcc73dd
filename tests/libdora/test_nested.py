"""Structs, lists, maps, texts, dictionaries and extension types travel as bare buffers, whatever
carries them: calls and goals, `sync`, `max_rate_hz`, backpressure, `latched`, operators; between
nodes in C, C++ and Python.

Nodes in C cannot read an Arrow stream, and those in Python are not allowed to here.
"""

import functools
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.commands import run_command, succeeds
from tests.harness.daemon import Daemon, daemon
from tests.harness.dataflow import PROBE, Flow, clean_environment, json_lines
from tests.harness.flows import write_flow
from tests.harness.waiting import wait_until
from tests.libdora.conftest import Compile, add

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
LANGUAGES = ("c", "python")

ARRAYS = """
import pyarrow as pa
import zoo
from dorad.shm import arrow


def refuse(*_, **__):
    raise AssertionError("an Arrow stream was used")


arrow.encode_stream = arrow.decode_stream = refuse
ARRAYS = [
    *zoo.messages(),
    *zoo.dictionaries(),
    pa.array(["x" * 100, None, "ü"]),
    pa.array([[("k", 1), ("l", None)], None, []], pa.map_(pa.string(), pa.int32())),
]


def check(array, event):
    value = event["value"]
    value.validate(full=True)
    assert value.type.equals(array.type, check_metadata=True), (array.type, value.type)
    assert value.equals(array), (array, value)


def next_input(node):
    while (event := node.next(30))["type"] != "INPUT":
        assert event["type"] != "ERROR", event
    return event
"""

DRIVER = """
from arrays import ARRAYS, check, next_input
from dora import Node
from probe import report

node = Node()
for array in ARRAYS:
    node.send_output("array", array)
    for _ in range({copies}):
        check(array, next_input(node))
report(len(ARRAYS))
"""
"""Sends each array, and waits until so many copies have come back."""


@pytest.fixture
def passer(compile_node: Compile, tmp_path: Path) -> Path:
    """The program in C that passes arrays on."""
    (tmp_path / "zoo.py").write_text((HERE.parent / "shm" / "zoo.py").read_text())
    (tmp_path / "arrays.py").write_text(ARRAYS)
    return compile_node("passer", HERE / "nested.c")


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


@pytest.fixture
def runtime() -> Iterator[dict[str, str]]:
    """The environment of commands, with a short folder for sockets."""
    with tempfile.TemporaryDirectory(prefix="dora-test-") as folder:
        yield clean_environment(
            Path(sys.executable).parent, {"XDG_RUNTIME_DIR": folder, "PROBE": "checks"}
        )


def all_came_back(flow: Flow, deadline: float = 90) -> None:
    outcome = flow.run(deadline=deadline).expect(0)
    (count,) = flow.reports("driver")
    assert count > 20
    assert "failed:" not in outcome.output
    assert "rror" not in outcome.output


def test_columns_that_are_moved_away_outlive_their_array(compile_node: Compile) -> None:
    done = subprocess.run(
        [compile_node("moved", HERE / "moved.c")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# -- calls and goals

CLIENTS = {
    "call": """
import arrays
from dora import Node

node = Node()
for event in node:
    if event["type"] == "INPUT_CLOSED" and event["id"] == "array":
        break
    if event["type"] == "INPUT":
        node.send_output("out", node.call("request", event["value"], timeout=30)["value"])
""",
    "goal": """
import arrays
from dora import Node

node = Node()
for event in node:
    if event["type"] == "INPUT_CLOSED" and event["id"] == "array":
        break
    if event["type"] == "INPUT":
        goal = node.send_goal("request", event["value"], timeout=30)
        for feedback in goal:
            node.send_output("out", feedback["value"])
        node.send_output("out", goal.result()["value"])
        assert goal.status == "succeeded"
""",
}
SERVERS = {
    "call": """
import arrays
from dora import Node

node = Node()


@node.serve("request", "answer")
def answer(event):
    return event["value"]


node.serve()
""",
    "goal": """
import arrays
from dora import Node

node = Node()


@node.serve_goals("request", "answer", feedback="feedback")
def act(goal):
    goal.feedback(goal.value)
    return goal.value


node.serve()
""",
}


PAIRS = [*itertools.product(LANGUAGES, LANGUAGES), ("cpp", "cpp")]


@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_in_calls_and_goals(
    flow: Flow, compile_node: Compile, passer: Path, kind: str, client: str, server: str
) -> None:
    if client == "cpp":
        passer = compile_node("passer", HERE / "nested.cc", language="c++")
    driver = DRIVER.format(copies=1 if kind == "call" else 2)
    flow.node("driver", driver, inputs={"back": "client/out"}, outputs=["array"])
    replies = ["answer"] if kind == "call" else ["answer", "feedback"]
    asks: dict[str, Any] = {"array": "driver/array", **{each: f"server/{each}" for each in replies}}
    asked = {"request": "client/request"}
    if client == "python":
        flow.node("client", CLIENTS[kind], inputs=asks, outputs=["request", "out"])
    else:
        add(flow, "client", passer, args=kind, inputs=asks, outputs=["request", "out"])
    if server == "python":
        flow.node("server", SERVERS[kind], inputs=asked, outputs=replies)
    else:
        way = "serve" if kind == "call" else "act"
        add(flow, "server", passer, args=way, inputs=asked, outputs=replies)
    all_came_back(flow)


# -- inputs that choose, wait, or remember

PASSER = """
import os
import arrays
from dora import Node

node = Node()
left = 2 if node.is_restart() else 1
for event in node:
    if event["type"] == "INPUT":
        members = event["value"] if isinstance(event["value"], dict) else {"": event["value"]}
        for value in members.values():
            node.send_output("out", value)
        left -= 1
        if MORTAL and left == 0:
            os._exit(6)
"""


def passing(flow: Flow, passer: Path, language: str, way: str = "", **fields: Any) -> None:
    if language == "c":
        add(flow, "passer", passer, args=way, outputs=["out"], **fields)
        return
    flow.node("passer", PASSER.replace("MORTAL", str(way == "mortal")), outputs=["out"])
    flow.nodes[-1].update(fields)


@pytest.mark.parametrize("language", LANGUAGES)
def test_on_an_input_with_a_rate(flow: Flow, passer: Path, language: str) -> None:
    source = {"source": "passer/out", "max_rate_hz": 200}
    flow.node("driver", DRIVER.format(copies=1), inputs={"back": source}, outputs=["array"])
    passing(flow, passer, language, inputs={"in": {"source": "driver/array", "max_rate_hz": 200}})
    all_came_back(flow)


@pytest.mark.parametrize("language", LANGUAGES)
def test_in_synchronised_sets(flow: Flow, passer: Path, language: str) -> None:
    driver = """
    from arrays import ARRAYS, check, next_input
    from dora import Node
    from probe import report
    node = Node()
    for left, right in zip(ARRAYS, reversed(ARRAYS)):
        node.send_output("left", left)
        node.send_output("right", right)
        for array in (left, right):
            check(array, next_input(node))
    report(len(ARRAYS))
    """
    flow.node("driver", driver, inputs={"back": "passer/out"}, outputs=["left", "right"])
    inputs = {"left": "driver/left", "right": "driver/right"}
    sync = {"inputs": ["left", "right"], "tolerance_ms": 5000}
    passing(flow, passer, language, inputs=inputs, sync=sync)
    all_came_back(flow)


@pytest.mark.parametrize("language", LANGUAGES)
def test_behind_backpressure(flow: Flow, passer: Path, language: str) -> None:
    driver = """
    import threading
    from arrays import ARRAYS, check, next_input
    from dora import Node
    from probe import report
    node = Node()
    def send():
        for array in ARRAYS * 3:
            node.send_output("array", array)
    thread = threading.Thread(target=send)
    thread.start()
    for array in ARRAYS * 3:
        check(array, next_input(node))
    thread.join()
    report(len(ARRAYS))
    """
    back = {"source": "passer/out", "queue_size": 100}
    waits = {"source": "driver/array", "queue_size": 1, "queue_policy": "backpressure"}
    flow.node("driver", driver, inputs={"back": back}, outputs=["array"])
    passing(flow, passer, language, inputs={"in": waits})
    all_came_back(flow)


@pytest.mark.parametrize("language", LANGUAGES)
def test_to_a_latched_input_whose_node_is_restarted(
    flow: Flow, passer: Path, language: str
) -> None:
    # Its node dies with each message, and gets it again in its next life.
    driver = DRIVER.format(copies=2).replace("in ARRAYS", "in ARRAYS[:14:4]")
    flow.node("driver", driver, inputs={"back": "passer/out"}, outputs=["array"])
    inputs = {"in": {"source": "driver/array", "latched": True}}
    again = {"restart_policy": "on-failure", "max_restarts": 100, "restart_delay": 0.01}
    passing(flow, passer, language, "mortal", inputs=inputs, **again)
    all_came_back(flow)


def test_between_operators_and_nodes(flow: Flow, passer: Path, tmp_path: Path) -> None:
    operator = """
    import arrays
    from dora import DoraStatus

    class Operator:
        def on_event(self, dora_event, send_output):
            if dora_event["type"] == "INPUT":
                send_output("out", dora_event["value"], {})
            return DoraStatus.CONTINUE
    """
    flow.node("driver", DRIVER.format(copies=1), inputs={"back": "last/out"}, outputs=["array"])
    passing(flow, passer, "c", inputs={"in": "driver/array"})
    flow.node("operators", operator)
    flow.nodes[-1] = {
        "id": "operators",
        "operators": [
            {"id": name, "python": "operators.py", "inputs": {"in": source}, "outputs": ["out"]}
            for name, source in (("one", "passer/out"), ("two", "operators/one/out"))
        ],
    }
    add(flow, "last", passer, inputs={"in": "operators/two/out"}, outputs=["out"])
    all_came_back(flow)


# -- what reads a running dataflow, and recordings

SENDING = """
import sys
from arrays import ARRAYS
from dora import Node

node = Node()
for number, array in enumerate(ARRAYS):
    node.send_output("array", array, {"number": number})
for event in node:
    pass
"""

CHECKING = """
from arrays import ARRAYS, check
from dora import Node
from probe import report

numbers = []
for event in Node():
    assert event["type"] != "ERROR", event
    if event["type"] == "INPUT":
        numbers.append(event["metadata"]["number"])
        check(ARRAYS[numbers[-1]], event)
        report(numbers[-1])
"""


def test_a_recording_is_replayed_to_nodes_in_both_languages(
    flow: Flow, passer: Path, runtime: dict[str, str]
) -> None:
    many = {"queue_size": 100}
    # Without the dictionary of dictionaries, which no recording can have.
    sending = SENDING.partition("for event")[0].replace("(ARRAYS)", "(ARRAYS[:-3])")
    flow.node("sender", sending, outputs=["array"])
    inputs = {"in": {"source": "sender/array", **many}}
    add(flow, "passer", passer, inputs=inputs, outputs=["out"])
    flow.node("checks", CHECKING, inputs={"in": {"source": "passer/out", **many}})
    flow.run(deadline=60).expect(0)
    numbers = flow.reports("checks")
    assert len(numbers) >= 20
    dora = functools.partial(run_command, "dora", cwd=flow.folder, env=runtime, timeout=90)
    out = succeeds(dora(["record", "dataflow.yml", "-o", "a.mcap", "--exit-when-nodes-finish"]))
    assert f"COMPLETE: {2 * len(numbers)} messages of 2 topics" in out
    # Only the source is replayed; the node in C takes its messages, and sends all of them on.
    succeeds(dora(["replay", "a.mcap", "--speed", "0", "--assert", "--step"]))
    assert flow.reports("checks") == numbers * 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_to_an_input_that_is_added_late(
    dorad: Daemon, tmp_path: Path, passer: Path, language: str
) -> None:
    # Nobody receives what the node sends before: it keeps the last message.
    (tmp_path / "probe.py").write_text(PROBE.lstrip())
    once = SENDING.replace("enumerate(ARRAYS)", "[(3, ARRAYS[3])]")
    inputs = {"in": {"source": "sender/array", "queue_size": 100}}
    node: dict[str, Any] = {"id": "passer", "inputs": inputs, "outputs": ["out"]}
    passing = PASSER.replace("MORTAL", "False").replace("value)", 'value, {"number": 3})')
    node |= {"path": f"./{passer.name}"} if language == "c" else {"path": "passing.py"}
    nodes = [{"id": "sender", "path": "sender.py", "outputs": ["array"]}, node]
    file = write_flow(tmp_path, nodes, sender=once, passing=passing, late=CHECKING)
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    with dorad.client() as client:
        wait_until(lambda: any(e.target == "passer/in" and e.received for e in client.top().edges))
    late = {"id": "late", "path": "late.py", "env": {"PROBE": "late"}}
    late["inputs"] = {"in": {"source": "passer/out", "latched": True}}
    (tmp_path / "late.yml").write_text(yaml.safe_dump(late))
    dorad.dora_ok("node", "add", "-d", "flow", "--from-yaml", tmp_path / "late.yml")
    wait_until(lambda: json_lines(tmp_path / "late.jsonl") == [3])
    dorad.dora_ok("stop", "flow")


def test_in_topics_that_are_echoed(dorad: Daemon, tmp_path: Path, passer: Path) -> None:
    ticking = """
        from arrays import ARRAYS
        from dora import Node

        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("array", ARRAYS[1])
    """
    tick = {"tick": "dora/timer/hz/20"}
    sender = {"id": "sender", "path": "sender.py", "inputs": tick, "outputs": ["array"]}
    node = {"id": "passer", "path": f"./{passer.name}", "outputs": ["out"]}
    node["inputs"] = {"in": "sender/array"}
    file = write_flow(tmp_path, [sender, node], sender=ticking)
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    box = {"x": 1.0, "y": 2.0, "w": 3.0, "h": 4.0, "label": "person"}
    echoed = dorad.dora_ok("topic", "echo", "passer/out", "--count", "2", "-f", "json")
    for line in echoed.splitlines():
        assert json.loads(line)["data"] == [[box] * 3, [], None, [box]]
    told = dorad.dora_ok("topic", "info", "passer/out", "--duration", "1s", "-f", "json")
    assert json.loads(told)["stream"] is False
    assert json.loads(told)["type"].startswith("list<")
    dorad.dora_ok("stop", "flow")
