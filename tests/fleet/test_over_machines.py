"""A dataflow over two machines by the commands of `dora`: real daemons, agents, links, TLS."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.dora import DORA
from tests.fleet.fakerobot import DEADLINE_S
from tests.fleet.tworobots import TwoRobots
from tests.harness.commands import succeeds
from tests.harness.daemon import emptied
from tests.harness.flows import SINK, SOURCE, write_flow
from tests.view.test_graph_live import viewing as live_graph
from tests.view.test_view import command as viewed
from tests.view.viewer import viewing

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


class Over(TwoRobots):
    """With a dataflow over both of them."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.seen = self.folder / "seen"
        nodes = [
            {
                "id": "source",
                "path": "source.py",
                "inputs": {"tick": "dora/timer/millis/20"},
                "outputs": ["number"],
                "deploy": {"machine": "arm1"},
            },
            {
                "id": "sink",
                "path": "sink.py",
                "inputs": {"number": {"source": "source/number", "queue_size": 1000}},
                "env": {"SEEN": str(self.seen)},
                "deploy": {"machine": "arm2"},
            },
        ]
        self.flow = write_flow(self.folder / "flow", nodes, source=SOURCE, sink=SINK)

    def dora(self, *words: str):
        return succeeds(super().dora(*words))

    def numbers(self) -> list[int]:
        return [int(line) for line in self.seen.read_text().splitlines()]


@pytest.fixture
def over(site, stack, tmp_path, daemons):
    for each in daemons:
        stack.enter_context(emptied(each))
    return Over(site, stack, tmp_path, daemons)


async def see_numbers(address: str) -> None:
    async with viewing(address) as viewer:
        await viewer.read(lambda: "source/number" in viewer.topics)
        await viewer.subscribe("source/number", "dora/log")
        await viewer.read(lambda: viewer.of("source/number") and viewer.of("dora/log"))


def assert_traces_are_whole(over) -> None:
    path = "source/tick → source → sink"

    def whole() -> list[dict]:
        lines = over.dora("trace", "list", "-d", "demo", "-n", "200", "-f", "json").splitlines()
        return [row for line in lines if (row := json.loads(line))["path"] == path]

    over.until(lambda: any(row["clocks_ms"] for row in whole()))
    row = next(row for row in whole() if row["clocks_ms"])
    assert row["machine"] is None
    # Both have the clock of this machine.
    assert abs(row["clocks_ms"]["arm2"]) < 1000
    shown = over.dora("trace", "view", row["trace_id"], "-d", "demo")
    assert path in shown
    assert "clock of arm2: " in shown
    assert "on arm2" in shown
    paths = [
        json.loads(line)
        for line in over.dora("trace", "paths", "-d", "demo", "-f", "json").splitlines()
    ]
    (figures,) = (each for each in paths if each["path"] == path and each["kept_only"])
    assert figures["count"] > 0
    assert "source/tick → source → dora.link" in {each["path"] for each in paths}


def test_a_dataflow_starts_runs_and_stops_over_two_machines(over):
    out = over.dora("start", str(over.flow), "--name", "demo", "--detach")
    assert "dataflow started: " in out
    over.until(lambda: over.seen.exists() and len(over.numbers()) > 20)
    (row,) = [json.loads(line) for line in over.dora("list", "--format", "json").splitlines()]
    assert (row["name"], row["status"]) == ("demo", "Running")
    rows = [json.loads(line) for line in over.dora("node", "list", "-f", "json").splitlines()]
    assert {(row["node"], row["machine"]) for row in rows} >= {("source", "arm1"), ("sink", "arm2")}
    found = json.loads(over.dora("top", "--once", "--machine", "arm1"))
    assert {each["daemon_id"]["machine_id"] for each in found} == {"arm1"}
    assert "source" in {each["node_id"] for each in found}
    over.until(lambda: "sent 3" in over.dora("logs", "demo", "--node", "source"))
    lines = over.dora("logs", "demo", "--node", "dora.link", "--log-format", "json").splitlines()
    assert {json.loads(line)["level"] for line in lines} == {"INFO"}
    assert "source.py" in over.dora("node", "info", "source", "-d", "demo")
    assert "machine arm2 (" in over.dora("topic", "info", "source/number", "-d", "demo")
    echoed = over.dora("topic", "echo", "source/number", "-d", "demo", "--count", "2")
    assert len(echoed.splitlines()) >= 2
    with viewed("view", "-d", "demo", env=os.environ, cwd=over.folder) as (_, address):
        asyncio.run(see_numbers(address))
    with live_graph("demo", env=os.environ, cwd=over.folder) as graph:
        graph.until(lambda: (graph.edge("sink/number") or {"rate": 0.0})["rate"] > 5)
        edge = graph.edge("sink/number")
        assert (edge["source"], edge["machine"]) == ("source/number", "arm2")
        machines = {name: each["machine"] for name, each in graph.nodes().items()}
        assert machines == {"source": "arm1", "sink": "arm2"}
        assert graph.ask("history", 1, node="sink")["missing"] == {}
        assert "error" not in graph.ask("traces", 2, through=["sink"])
    assert_traces_are_whole(over)
    over.dora("param", "set", "source", "speed", "7", "-d", "demo")
    assert over.dora("param", "get", "source", "speed", "-d", "demo").strip() == "7"
    _, robots = over.site.until("status", "--json", holds=lambda found: found[0]["shares"])
    assert [share["dataflow"] for each in robots for share in each["shares"]] == ["demo", "demo"]
    over.dora("stop", "demo")
    numbers = over.numbers()
    assert numbers == [*range(len(numbers))]
    (row,) = [json.loads(line) for line in over.dora("list", "--format", "json").splitlines()]
    assert row["status"] == "Finished"
    over.dora("restart", row["uuid"])  # by its UUID also one that has ended begins again
    over.until(lambda: over.numbers().count(0) == 2)
    assert over.dora("param", "get", "source", "speed", "-d", "demo").strip() == "7"
    over.dora("stop", "demo")


def test_a_dataflow_is_restarted_and_changed_while_it_runs(over):
    over.dora("start", str(over.flow), "--name", "demo", "--detach")
    over.until(lambda: over.seen.exists() and len(over.numbers()) > 5)
    over.dora("param", "set", "sink", "gain", "[2.5]", "-d", "demo")
    code, out, err = over.site.run("restart", str(over.file), "demo")
    assert (code, "dataflow restarted: " in out) == (0, True), err
    assert json.loads(over.dora("param", "get", "sink", "gain", "-d", "demo")) == [2.5]
    before = len(over.numbers())
    over.until(lambda: len(over.numbers()) > before + 5)
    definition = over.folder / "late.yml"
    definition.write_text(
        f"id: late\npath: sink.py\ninputs: {{number: source/number}}\n"
        f"env: {{SEEN: {over.folder}/late}}\ndeploy: {{machine: arm2}}\n"
    )
    assert "added node `late`" in over.dora(
        "node", "add", "-d", "demo", "--from-yaml", str(definition)
    )
    late = over.folder / "late"
    over.until(lambda: late.exists() and len(late.read_text().splitlines()) > 5)
    over.dora("node", "disconnect", "source/number", "late/number", "-d", "demo")
    over.dora("node", "remove", "late", "-d", "demo")
    assert "late" not in over.dora("node", "list", "-q", "-d", "demo").split()
    over.dora("stop", "demo")


def test_attached_it_shows_the_lines_of_both_machines_and_ctrl_c_stops_all(over):
    words = [*DORA, "start", str(over.flow), "--name", "demo", "--attach"]
    with subprocess.Popen(
        words, cwd=over.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "sent 20" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=2 * DEADLINE_S)
        assert process.returncode == 0, err
    for each in over.daemons:
        with each.client() as client:
            assert [info.status for info in client.list()] == ["finished"]


def test_down_stops_the_dataflows_on_all_machines(over):
    over.dora("start", str(over.flow), "--name", "demo", "--detach")
    code, out, err = over.site.run("down")
    assert code == 0, err
    assert "demo: stopped" in out
    for each in over.daemons:
        with each.client() as client:
            assert [info.status for info in client.list()] == ["finished"]


WATCHER = """\
from dora import Node
for event in Node():
    print(event["type"], event["id"], flush=True)
    if event["type"] == "INPUT" and event["id"] == "number":
        print("got", event["value"][0], flush=True)
"""


def test_a_node_that_sends_to_another_machine_starts_alone_after_it_has_ended(over):
    definition = over.flow.read_text() + (
        "- {id: keeper, path: watcher.py, inputs: {tick: dora/timer/secs/5},"
        " deploy: {machine: arm1}}\n"
        "- {id: watcher, path: watcher.py, deploy: {machine: arm2},"
        " inputs: {number: source/number, tick: dora/timer/secs/5}}\n"
    )
    over.flow.write_text(definition)
    (over.flow.parent / "watcher.py").write_text(WATCHER)
    over.dora("start", str(over.flow), "--name", "demo", "--detach")
    over.until(lambda: "got 5" in over.dora("logs", "demo", "--node", "watcher"))
    over.dora("node", "stop", "source", "-d", "demo")
    over.until(lambda: "INPUT_CLOSED number" in over.dora("logs", "demo", "--node", "watcher"))
    over.dora("node", "restart", "source", "-d", "demo")

    def since_the_restart():
        return over.dora("logs", "demo", "--node", "watcher").partition("NODE_RESTARTED source")[2]

    over.until(lambda: "got 5" in since_the_restart())
    assert "INPUT_CLOSED number" not in since_the_restart()
    # Its only input had closed, so it has ended, and receives again once it is asked for.
    before = len(over.numbers())
    over.dora("node", "restart", "sink", "-d", "demo")
    over.until(lambda: len(over.numbers()) > before + 3)
    # It is open like any other: its end is known there again.
    over.dora("node", "stop", "source", "-d", "demo")
    over.until(lambda: "INPUT_CLOSED number" in since_the_restart())
    over.dora("stop", "demo")


def test_the_example_calls_and_moves_an_arm_on_the_other_machine(over):
    example = Path(__file__).parents[2] / "docs" / "examples" / "two-machines"
    flow = shutil.copytree(example, over.folder / "example") / "dataflow.yml"
    over.dora("start", str(flow), "--name", "pair", "--detach")
    over.until(lambda: "the second goal" in over.dora("logs", "pair", "--node", "planner"))
    lines = over.dora("logs", "pair", "--node", "planner", "--machine", "arm1")
    for line in (
        "the arm is at 0.0",
        "moved to 1.0, progress in order: True",
        "the second goal was canceled, before 9.0: True",
    ):
        assert line in lines
    assert "moving to 9.0" in over.dora("logs", "pair", "--node", "arm", "--machine", "arm2")
