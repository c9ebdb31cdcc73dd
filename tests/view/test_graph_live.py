"""`dora graph --live` of real dataflows: what a page is told, and what the server answers."""

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from tests.cli import running
from tests.harness.commands import fails
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import write_flow

pytestmark = pytest.mark.timeout(200)

SOURCE = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "STOP":
            break
        node.send_output("image", pa.array([number]))
"""
SLOW = """
    import time
    from dora import Node

    for event in Node():
        if event["type"] == "STOP":
            break
        time.sleep(0.5)
"""
FAST = """
    from dora import Node

    for event in Node():
        pass
"""
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/#\S+")


def flow(folder: Path) -> Path:
    """Write a dataflow whose `logger` is too slow for its queue."""
    nodes = [
        {"id": "camera", "path": "camera.py", "inputs": {"tick": "dora/timer/hz/20"},
         "outputs": ["image"]},
        {"id": "detector", "path": "fast.py", "inputs": {"image": "camera/image"}},
        {"id": "logger", "path": "slow.py",
         "inputs": {"image": {"source": "camera/image", "queue_size": 2}}},
    ]  # fmt: skip
    return write_flow(folder, nodes, camera=SOURCE, fast=FAST, slow=SLOW)


class Viewer:
    """What the page of an address is told, by the kind of message."""

    def __init__(self, connection):
        self._connection = connection
        self.latest = {}
        self.answers = {}

    def until(self, holds):
        """Read until a condition holds."""
        while not holds():
            message = json.loads(self._connection.recv(timeout=60))
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.latest[message["type"]] = message

    def ask(self, what, id_, **request):
        """Return the answer to a request."""
        self._connection.send(json.dumps({"ask": what, "id": id_, **request}))
        self.until(lambda: id_ in self.answers)
        return self.answers[id_]

    def state(self):
        return self.latest.get("state", {}).get("state")

    def edge(self, target):
        edges = self.latest.get("figures", {"edges": []})["edges"]
        return next((each for each in edges if each["target"] == target), None)

    def nodes(self):
        return {each["node"]: each for each in self.latest.get("figures", {"nodes": []})["nodes"]}


@contextmanager
def viewing(*words, env, cwd):
    """Run `dora graph --live`, and connect as its page does."""
    program = Path(sys.executable).parent / "dora"
    with subprocess.Popen(
        [program, "graph", "--live", "--port", "0", *words],
        env=env,
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            found = next(filter(None, map(ADDRESS.search, process.stderr)), None)
            assert found, "it ended without an address"
            address = urlsplit(found[0])
            names = ["dora.graph", f"token.{address.fragment}"]
            with connect(f"ws://{address.netloc}/live", subprotocols=names, max_size=None) as each:
                yield Viewer(each)
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err


def look(viewer: Viewer) -> None:
    """Check the graph, and wait for figures that are true of `flow`."""
    viewer.until(lambda: (viewer.edge("logger/image") or {"drop_rate": 0})["drop_rate"] > 5)
    graph = viewer.latest["graph"]
    assert {box["key"] for box in graph["boxes"]} == {
        "dora/timer/millis/50",
        "camera",
        "detector",
        "logger",
    }
    assert {wire["target"] for each in graph["bundles"] for wire in each["wires"]} == {
        "camera/tick", "detector/image", "logger/image"
    }  # fmt: skip
    assert {name: each["status"] for name, each in viewer.nodes().items()} == dict.fromkeys(
        ("camera", "detector", "logger"), "running"
    )
    detector = viewer.edge("detector/image")
    assert detector["dropped"] == 0
    assert detector["rate"] > 5
    assert 0 < detector["p50"] <= detector["p99"] <= detector["worst"]
    problems = [each["text"] for each in viewer.latest["figures"]["problems"]]
    assert any(text.startswith("logger/image drops") for text in problems)
    assert not any("detector" in text for text in problems)


def test_a_page_shows_the_figures_that_the_daemon_answers(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    with viewing(env=dorad.env, cwd=tmp_path) as viewer, dorad.client() as client:
        look(viewer)
        assert viewer.latest["graph"]["name"] == "demo"
        before = {each.target: each for each in client.top().edges}
        seen = viewer.latest.pop("figures")
        viewer.until(lambda: viewer.latest.get("figures", seen)["at"] > seen["at"])
        after = {each.target: each for each in client.top().edges}
        for edge in viewer.latest["figures"]["edges"]:
            first, last = before[edge["target"]], after[edge["target"]]
            for name in ("sent", "received", "dropped"):
                assert getattr(first, name) <= edge[name] <= getattr(last, name)

        node = client.node_info("logger").info
        assert viewer.nodes()["logger"]["pid"] == node.pid
        history = viewer.ask("history", 1, node="logger")
        assert history["step"] == 5
        assert [each["target"] for each in history["edges"]] in ([], ["logger/image"])
        traces = viewer.ask("traces", 2, through=["logger"])["traces"]
        assert traces
        assert all("logger" in trace["path"] or trace["troubles"] for trace in traces)
        assert {row["kind"] for trace in traces for row in trace["rows"]} >= {"process"}


def test_a_page_follows_changes_the_end_and_the_next_run(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    with viewing("demo", env=dorad.env, cwd=tmp_path) as viewer, dorad.client() as client:
        viewer.until(viewer.nodes)
        added = {"id": "late", "path": "fast.py", "inputs": {"image": "camera/image"}}
        client.add_node(added, dataflow="demo")
        viewer.until(lambda: "late" in {box["key"] for box in viewer.latest["graph"]["boxes"]})
        viewer.until(lambda: viewer.nodes().get("late", {}).get("status") == "running")
        client.stop("demo")
        viewer.latest.clear()
        viewer.until(lambda: viewer.state() == "ended")
        dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
        viewer.latest.clear()
        viewer.until(viewer.nodes)
        assert "late" not in {box["key"] for box in viewer.latest["graph"]["boxes"]}


@pytest.mark.long
def test_while_the_daemon_is_away_nothing_is_shown_as_live(tmp_path: Path) -> None:
    with daemon() as own:
        own.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
        with viewing("demo", env=own.env, cwd=tmp_path) as viewer:
            viewer.until(viewer.nodes)
            own.kill()
            viewer.latest.clear()
            viewer.until(lambda: viewer.state() == "lost")
            assert "figures" not in viewer.latest or viewer.latest["state"]
            own.start()
            viewer.latest.clear()
            viewer.until(viewer.nodes)
            assert viewer.nodes()["camera"]["status"] == "running"
        own.dora_ok("stop", "demo")


def test_a_dataflow_of_dora_run_is_followed_to_its_end(tmp_path: Path) -> None:
    file = flow(tmp_path)
    with running.dora(tmp_path, "dataflow.yml") as started:
        with viewing(file.name, env=started.environ, cwd=tmp_path) as viewer:
            look(viewer)
            assert viewer.ask("history", 1, node="camera")["step"] == 5
            assert viewer.ask("traces", 2, through=["camera"])["traces"]
            started.signal(signal.SIGINT)
            viewer.latest.clear()
            viewer.until(lambda: viewer.state() == "ended")


def test_a_dataflow_that_does_not_run_yet_is_waited_for(dorad: Daemon, tmp_path: Path) -> None:
    file = flow(tmp_path)
    with viewing(file, env=dorad.env, cwd=tmp_path) as viewer:
        viewer.until(lambda: viewer.state() == "waiting")
        dorad.dora_ok("start", file, "--detach")
        viewer.until(viewer.nodes)


def test_without_a_running_dataflow_the_command_says_what_to_name(dorad: Daemon) -> None:
    fails(dorad.dora("graph", "--live"), 1, "no dataflow is running")


def test_options_that_do_not_go_together_are_refused(dorad: Daemon) -> None:
    for words in (
        ("--live", "--mermaid"),
        ("--live", "-o", "x.html"),
        ("--port", "1", "x.yml"),
        ("--live", "a", "-d", "b"),
    ):
        assert dorad.dora("graph", *words).returncode == 2, words
