"""Nodes in C outlive their daemon, take a mailbox over, and are killed without harm to others.

That nothing is left in shared memory, `nothing_leaks` checks after each test.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.harness.daemon import Daemon, daemon
from tests.harness.dataflow import Flow
from tests.harness.flows import SINK, SOURCE, seen, until_more_seen, write_flow
from tests.harness.waiting import wait_until
from tests.libdora.conftest import SANITIZE, Compile, add

HERE = Path(__file__).parent
under_a_daemon = pytest.mark.skipif(
    bool(SANITIZE), reason="a daemon gives its nodes no LD_PRELOAD, which the sanitizer needs"
)
QUEUE = {"queue_size": 1000}

PYTHON_RELAY = """
from dora import Node

for event in (node := Node()):
    if event["type"] == "INPUT":
        node.send_output("reply", event["value"], event["metadata"])
"""


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


def relayed(folder: Path, relay: dict[str, str]) -> Path:
    """Write a dataflow in which `relay` passes numbers on to `sink`, which notes them in `seen`."""
    inputs = {"number": {"source": "source/number", **QUEUE}}
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": "dora/timer/hz/200"},
            "outputs": ["number"],
        },
        {"id": "relay", "inputs": inputs, "outputs": ["reply"], **relay},
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"number": {"source": "relay/reply", **QUEUE}},
            "env": {"SEEN": str(folder / "seen")},
        },
    ]
    return write_flow(folder, nodes, source=SOURCE, sink=SINK, relay=PYTHON_RELAY)


@under_a_daemon
@pytest.mark.timeout(120)
def test_a_daemon_that_is_killed_costs_a_node_in_c_no_message(
    dorad: Daemon, compile_node: Compile, tmp_path: Path
) -> None:
    source = (HERE / "echo.c").read_text().replace('"out"', '"reply"')
    program = compile_node("relay", source)
    file = relayed(tmp_path, {"path": f"./{program.name}"})
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    until_more_seen(tmp_path, 20)
    for _ in range(3):
        dorad.kill()
        until_more_seen(tmp_path, 20)
        dorad.start()
        until_more_seen(tmp_path, 20)
    dorad.dora_ok("stop", "flow")
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))


@under_a_daemon
@pytest.mark.timeout(120)
def test_a_program_that_is_built_again_is_restarted_and_no_message_is_lost(
    dorad: Daemon, compile_node: Compile, tmp_path: Path
) -> None:
    source = (HERE / "echo.c").read_text().replace('"out"', '"reply"')
    program = compile_node("relay", source)
    file = relayed(tmp_path, {"path": f"./{program.name}"})
    dorad.dora_ok("start", file, "--name", "flow", "--detach", "--hot-reload")
    until_more_seen(tmp_path, 20)
    second = source.replace("void *event;", 'void *event; printf("the second one\\n");', 1)
    compile_node("relay", second)
    wait_until(lambda: "the second one" in dorad.dora_ok("logs", "flow"))
    until_more_seen(tmp_path, 20)
    compile_node("broken", source).rename(tmp_path / "other")
    (tmp_path / "other").chmod(0o644)
    (tmp_path / "other").rename(program)
    text = "has changed but cannot run; the node runs on unchanged: it is not executable"
    wait_until(lambda: text in dorad.dora_ok("logs", "flow"))
    until_more_seen(tmp_path, 20)
    dorad.dora_ok("stop", "flow")
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))


@under_a_daemon
@pytest.mark.timeout(120)
def test_a_node_in_python_is_replaced_by_one_in_c_and_back(
    dorad: Daemon, compile_node: Compile, tmp_path: Path
) -> None:
    source = (HERE / "echo.c").read_text().replace('"out"', '"reply"')
    program = compile_node("crelay", source)
    file = relayed(tmp_path, {"path": "relay.py"})
    document = yaml.safe_load(file.read_text())
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    until_more_seen(tmp_path, 20)
    for path in (f"./{program.name}", "relay.py", f"./{program.name}"):
        node = {**document["nodes"][1], "path": path}
        (tmp_path / "other.yml").write_text(yaml.safe_dump(node))
        dorad.dora_ok("node", "replace", "relay", "--from-yaml", tmp_path / "other.yml")
        until_more_seen(tmp_path, 20)
    dorad.dora_ok("stop", "flow")
    numbers = seen(tmp_path)
    assert numbers == sorted(set(numbers))


@pytest.mark.long
@pytest.mark.timeout(120)
def test_nodes_of_both_languages_that_are_killed_at_random_tear_nothing(
    flow: Flow, compile_node: Compile
) -> None:
    tool = compile_node("tool", HERE / "tool.c")
    killer = f"""
    import random, time
    import psutil
    from dora import Node
    from probe import report
    node = Node()
    random.seed(28)
    killed = 0
    while killed < 25:
        time.sleep(random.uniform(0.02, 0.2))
        victims = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if process.info["cwd"] == {str(tool.parent)!r} and "victim" in words:
                victims.append(process)
        if victims:
            random.choice(victims).kill()
            killed += 1
    report(killed)
    """
    python = """
    from dora import Node
    from probe import report
    node = Node()
    for event in node:
        assert event["type"] != "ERROR", event
        if event["type"] == "INPUT":
            values = event["value"].to_numpy().view("int64")
            if not (values == values[0]).all():
                report("torn")
    """
    again = {"restart_policy": "always", "restart_delay": 0.01}
    inputs = {"in": {"source": "count/out", "queue_size": 3}}
    add(flow, "count", tool, args="count 1000000000 20000 victim", outputs=["out"], **again)
    add(flow, "check", tool, args="check 2 victim", inputs=inputs, **again)
    flow.node("python", python, inputs=inputs)
    flow.nodes[-1] |= {"args": "victim", **again}
    flow.node("killer", killer)
    outcome = flow.run(stop_after=25, deadline=60)
    assert flow.reports("killer") == [25], outcome.output
    assert flow.reports("python") == []
    assert "torn" not in outcome.output
    assert "checked " in outcome.output
