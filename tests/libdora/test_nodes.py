"""Nodes in C among nodes in Python: queues, calls, waiting, restarts, hostile neighbours."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import ROOT, Compile, add

HERE = Path(__file__).parent


@pytest.fixture
def tool(compile_node: Compile) -> Path:
    return compile_node("tool", HERE / "tool.c")


PYTHON_CHECK = """
from dora import Node
from probe import report
node = Node()
expected = 0
for event in node:
    if event["type"] == "INPUT":
        values = event["value"].to_numpy().view("int64")
        assert (values == expected).all(), (values, expected)
        expected += 1
    assert event["type"] != "ERROR", event
report(expected)
"""

PYTHON_COUNT = """
import numpy as np
from dora import Node
node = Node()
for number in range({count}):
    node.send_output("out", np.full({size}, number, "int64").tobytes())
"""

BACKPRESSURE = {"source": "count/out", "queue_size": 4, "queue_policy": "backpressure"}


@pytest.mark.parametrize(("count", "size"), [(5000, 8), (500, 40_000)])
@pytest.mark.parametrize("languages", ["c-c", "c-python", "python-c"])
def test_backpressure_loses_nothing(
    flow: Flow, tool: Path, languages: str, count: int, size: int
) -> None:
    sender, receiver = languages.split("-")
    if sender == "c":
        add(flow, "count", tool, args=f"count {count} {size}", outputs=["out"])
    else:
        source = PYTHON_COUNT.format(count=count, size=size // 8)
        flow.node("count", source, outputs=["out"])
    if receiver == "c":
        add(flow, "check", tool, args="check", inputs={"in": BACKPRESSURE})
    else:
        flow.node("check", PYTHON_CHECK, inputs={"in": BACKPRESSURE})
    outcome = flow.run(deadline=60)
    outcome.expect(0)
    if receiver == "c":
        assert f"checked {count}" in outcome.output
    else:
        assert flow.reports("check") == [count]


def test_a_slow_receiver_in_c_drops_the_oldest_and_reads_none_torn(flow: Flow, tool: Path) -> None:
    source = PYTHON_COUNT.format(count=3000, size=2000)
    flow.node("count", source, outputs=["out"])
    add(
        flow, "check", tool, args="check 1", inputs={"in": {"source": "count/out", "queue_size": 2}}
    )
    outcome = flow.run(deadline=60)
    outcome.expect(0)
    assert "checked " in outcome.output


def test_a_service_in_c_answers_a_client_in_python(flow: Flow, tool: Path) -> None:
    source = """
    import pyarrow as pa
    from dora import Node
    from probe import report
    node = Node()
    answers = 0
    for number in range(50):
        request = node.send_service_request("request", pa.array([number], pa.uint8()))
        while (event := node.next(20))["type"] != "INPUT":
            assert event["type"] != "ERROR", event
        assert event["metadata"]["request_id"] == request
        answers += event["value"].to_pylist() == [number]
    report(answers)
    """
    flow.node("client", source, inputs={"reply": "service/reply"}, outputs=["request"])
    add(
        flow, "service", tool, args="serve", inputs={"request": "client/request"}, outputs=["reply"]
    )
    flow.run(deadline=60).expect(0)
    assert flow.reports("client") == [50]


def test_a_client_in_c_calls_a_service_in_python(flow: Flow, tool: Path) -> None:
    source = """
    from dora import Node
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_service_response("reply", event["value"], event["metadata"])
    """
    flow.node("service", source, inputs={"request": "client/request"}, outputs=["reply"])
    add(
        flow, "client", tool, args="call 50", inputs={"reply": "service/reply"}, outputs=["request"]
    )
    outcome = flow.run(deadline=60)
    outcome.expect(0)
    assert "matched 50" in outcome.output


def test_requests_survive_a_flood_of_ordinary_messages_in_order(flow: Flow, tool: Path) -> None:
    source = """
    import time
    import pyarrow as pa
    from dora import Node
    from probe import report
    node = Node()
    ids = []
    for number in range(400):
        node.send_output("request", pa.array([1], pa.uint8()))
        if number % 100 == 0:
            ids.append(node.send_service_request("request", pa.array([2], pa.uint8())))
    got = []
    while len(got) < len(ids):
        event = node.next(20)
        assert event["type"] != "ERROR", event
        if event["type"] == "INPUT" and "request_id" in event["metadata"]:
            got.append(event["metadata"]["request_id"])
    report(got == ids)
    """
    reply = {"source": "service/reply", "queue_size": 2000}
    flow.node("client", source, inputs={"reply": reply}, outputs=["request"])
    request = {"source": "client/request", "queue_size": 8}
    add(flow, "service", tool, args="serve", inputs={"request": request}, outputs=["reply"])
    flow.run(deadline=60).expect(0)
    assert flow.reports("client") == [True]


def test_a_wait_ends_after_its_timeout(flow: Flow, tool: Path) -> None:
    source = """
    import time
    from dora import Node
    node = Node()
    time.sleep(1.5)
    node.send_output("out", b"late")
    node.next()
    """
    flow.node("late", source, inputs={"never": "waits/out"}, outputs=["out"])
    add(flow, "waits", tool, args="timeout", inputs={"in": "late/out"}, outputs=["out"])
    outcome = flow.run(deadline=60)
    outcome.expect(0)
    for line in ("first 0 none", "second 0 none", "third 0 INPUT"):
        assert line in outcome.output


def test_a_signal_ends_a_wait(flow: Flow, tool: Path) -> None:
    source = "from dora import Node\nNode().next()\n"
    flow.node("other", source, inputs={"in": "waits/out"}, outputs=["out"])
    add(flow, "waits", tool, args="signal", inputs={"in": "other/out"}, outputs=["out"])
    outcome = flow.run(deadline=60)
    outcome.expect(0)
    assert "signal 0 none" in outcome.output


def test_the_event_descriptor_tells_of_messages_and_ticks(flow: Flow, tool: Path) -> None:
    source = """
    import time
    from dora import Node
    node = Node()
    for number in range(20):
        node.send_output("out", b"x")
        time.sleep(0.02)
    """
    flow.node("sender", source, outputs=["out"])
    inputs = {"in": "sender/out", "tick": "dora/timer/millis/20"}
    add(flow, "polls", tool, args="poll", inputs=inputs)
    outcome = flow.run(stop_after=20, deadline=60)
    outcome.expect(0)
    assert "polled inputs often" in outcome.output


def test_a_dynamic_node_in_c_joins_by_its_id(flow: Flow, tool: Path) -> None:
    start = f"""
    import os, subprocess
    from dora import Node
    from probe import report
    environ = {{k: v for k, v in os.environ.items() if k != "DORA_NODE_CONFIG"}}
    child = subprocess.Popen([{str(tool)!r}, "serve"], env={{**environ, "TEST_NODE_ID": "joins"}})
    node = Node()
    for event in node:
        if event["id"] == "tick":
            # It receives what is sent after it has attached.
            node.send_output("out", b"hello")
        elif event["type"] == "INPUT":
            report(bytes(event["value"].to_pylist()).decode())
            break
    child.kill()
    """
    inputs = {"back": "joins/reply", "tick": "dora/timer/millis/50"}
    flow.node("starts", start, inputs=inputs, outputs=["out"])
    flow.nodes.append(
        {"id": "joins", "path": "dynamic", "inputs": {"in": "starts/out"}, "outputs": ["reply"]}
    )
    flow.run(stop_after=10, deadline=60)
    assert flow.reports("starts") == ["hello"]


def test_a_killed_node_in_c_is_restarted_and_goes_on(flow: Flow, tool: Path) -> None:
    source = """
    import os, signal
    import psutil
    from dora import Node
    from probe import report
    node = Node()
    pids = []
    def server():
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[:2] == [TOOL, "serve"]:
                found.append(process)
        return found
    for number in range(60):
        node.send_service_request("request", bytes([number]))
        event = node.next(20)
        while event["type"] != "INPUT":
            assert event["type"] != "ERROR", event
            event = node.next(20)
        if number in (20, 40):
            (victim,) = server()
            victim.kill()
            event = node.next(20)
            while event["type"] != "NODE_RESTARTED":
                event = node.next(20)
    report("done")
    """.replace("TOOL", repr(str(tool)))
    flow.node("client", source, inputs={"reply": "service/reply"}, outputs=["request"])
    fields = {"restart_policy": "always", "restart_delay": 0.05}
    request = {"request": "client/request"}
    add(flow, "service", tool, args="serve", inputs=request, outputs=["reply"], **fields)
    outcome = flow.run(stop_after=20, deadline=60)
    assert flow.reports("client") == ["done"], outcome.output


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_node_in_c_that_writes_nonsense_harms_no_neighbour(
    flow: Flow, tool: Path, seed: int
) -> None:
    source = """
    from dora import Node
    from probe import report
    node = Node()
    ticks = 0
    for event in node:
        ticks += event.get("id") == "tick"
        if ticks == 20:
            break
    report(ticks)
    """
    inputs = {"in": "hostile/out", "tick": "dora/timer/millis/50"}
    flow.node("python", source, inputs=inputs)
    add(flow, "c", tool, args="show", inputs=inputs)
    paced = {"in": {"source": "hostile/out", "max_rate_hz": 50}, "tick": inputs["tick"]}
    add(flow, "paced", tool, args="show", inputs=paced)
    pair = {"in": "hostile/out", "other": "hostile/out", "tick": inputs["tick"]}
    both = {"name": "both", "inputs": ["in", "other"], "tolerance_ms": 5}
    add(flow, "synchronised", tool, args="show", inputs=pair, sync=both)
    add(
        flow,
        "hostile",
        tool,
        args=f"nonsense {seed}",
        outputs=["out"],
        inputs={"t": inputs["tick"]},
    )
    # Each of them may wait once for a segment that the nonsense names, for five seconds.
    outcome = flow.run(stop_after=15, deadline=60)
    assert flow.reports("python") == [20], outcome.output
    assert "INPUT tick" in outcome.output
    for node in ("c", "paced", "synchronised"):
        assert f"{node}: end" in outcome.output, outcome.output


@pytest.mark.long
def test_a_node_in_c_that_takes_nothing_delays_no_other(flow: Flow, tool: Path) -> None:
    add(flow, "count", tool, args="count 2000 8", outputs=["out"])
    add(flow, "idle", tool, args="idle", inputs={"in": "count/out"})
    add(
        flow,
        "check",
        tool,
        args="check",
        inputs={"in": {"source": "count/out", "queue_size": 2000}},
    )
    outcome = flow.run(stop_after=4, deadline=60)
    assert "checked 2000" in outcome.output
    assert "idle: sleeping" in outcome.output


@pytest.mark.long
def test_a_library_of_another_version_is_refused_with_words(
    flow: Flow, compile_node: Compile, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    code = (
        "import sys, runpy; sys.path[:0] = ['packaging', '.']; "
        "from dorad.shm import layout; layout.PROTOCOL_VERSION = layout.OLDEST_PROTOCOL = 99; "
        f"sys.argv = ['nodelib.py', '--output', {str(other)!r}]; "
        "runpy.run_path('packaging/nodelib.py', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    add(flow, "other", compile_node("tool", HERE / "tool.c", prefix=other), args="show")
    outcome = flow.run()
    assert outcome.code == 1
    assert "have different versions of the node API" in outcome.output
    assert "this is libdora_node " in outcome.output


def test_a_library_that_is_missing_at_the_start_is_named(flow: Flow, compile_node: Compile) -> None:
    add(flow, "alone", compile_node("tool", HERE / "tool.c", rpath=False), args="show")
    outcome = flow.run()
    assert outcome.code == 1
    assert "libdora_node.so.1" in outcome.output
    assert "alone" in outcome.output
    assert "hint: install the package libdora-node1, of the version of dorad" in outcome.output


def test_without_a_dataflow_the_program_says_how_to_start_it(tool: Path) -> None:
    done = subprocess.run([tool, "show"], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "start it with `dora run`" in done.stderr
