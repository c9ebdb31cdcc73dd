"""Nodes and edges are added, removed and replaced while a dataflow runs."""

import subprocess
import uuid
from functools import partial
from pathlib import Path

import pytest
import yaml

from dorad.control.errors import ControlError
from dorad.daemon.api import nodes
from dorad.dataflow.load import load
from tests.daemon.test_nothing_blocks import daemon as in_process
from tests.harness.daemon import Daemon
from tests.harness.flows import SINK, SOURCE, counting, seen, until_more_seen, write_flow
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


def definition(folder: Path, **entry: object) -> Path:
    file = folder / f"node-{uuid.uuid4().hex}.yml"
    file.write_text(yaml.safe_dump(entry), encoding="utf-8")
    return file


def test_an_added_node_receives_and_a_removed_one_does_not_exist(
    dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 5)
    other = tmp_path / "other"
    other.mkdir()
    file = definition(
        tmp_path,
        id="second",
        path="sink.py",
        inputs={"number": {"source": "source/number", "queue_size": 1000}},
        env={"SEEN": str(other / "seen")},
    )
    dorad.dora_ok("node", "add", "-d", "flow", "--from-yaml", file)
    wait_until(lambda: len(seen(other)) > 20)
    numbers = seen(other)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    dorad.dora_ok("node", "remove", "second")
    with dorad.client() as client:
        assert {node.node for node in client.nodes()} == {"source", "sink"}
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 10)
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))


def test_an_edge_is_removed_and_added_again(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 5)
    assert "-x-" in dorad.dora_ok("node", "disconnect", "source/number", "sink/number")

    def quiet() -> bool:
        before = len(seen(tmp_path))
        try:
            wait_until(lambda: len(seen(tmp_path)) > before, deadline_s=0.5)
        except AssertionError:
            return True
        return False

    wait_until(quiet)
    mark = len(seen(tmp_path))
    assert "->" in dorad.dora_ok("node", "connect", "source/number", "sink/number")
    wait_until(lambda: len(seen(tmp_path)) > mark + 20)
    tail = seen(tmp_path)[mark:]
    assert tail == list(range(tail[0], tail[0] + len(tail)))


def prints(dorad: Daemon, node: str) -> bool:
    """Return whether the log has a line of the present process of a node."""
    with dorad.client() as client:
        pid = next(each.pid for each in client.nodes("flow") if each.node == node)
    return f"process {pid}\n" in dorad.dora_ok("logs", "flow", "--node", node)


@pytest.mark.long
def test_replacing_a_node_loses_and_doubles_no_message_and_no_line(
    dorad: Daemon, tmp_path: Path
) -> None:
    relay = """
        import os
        from dora import Node
        node = Node()
        for number, event in enumerate(node):
            if event["type"] == "STOP":
                break
            if event["type"] == "INPUT":
                node.send_output("number", event["value"])
            if number % 20 == 0:
                print("process", os.getpid())
    """
    file = write_flow(
        tmp_path,
        [
            {
                "id": "source",
                "path": "source.py",
                "inputs": {"tick": "dora/timer/hz/200"},
                "outputs": ["number"],
            },
            {
                "id": "relay",
                "path": "relay.py",
                "inputs": {"number": {"source": "source/number", "queue_size": 100}},
                "outputs": ["number"],
            },
            {
                "id": "sink",
                "path": "sink.py",
                "inputs": {"number": {"source": "relay/number", "queue_size": 1000}},
                "env": {"SEEN": str(tmp_path / "seen")},
            },
        ],
        source=SOURCE,
        relay=relay,
        relay2=relay,
        sink=SINK,
    )
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 50)
    for script in ("relay2.py", "relay.py", "relay2.py"):
        new = definition(
            tmp_path,
            id="relay",
            path=script,
            inputs={"number": {"source": "source/number", "queue_size": 100}},
            outputs=["number"],
        )
        dorad.dora_ok("node", "replace", "relay", "-d", "flow", "--from-yaml", new)
        until_more_seen(tmp_path, 50)
        wait_until(partial(prints, dorad, "relay"))
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))
    restarted = dorad.dora("restart", "flow")
    assert (restarted.returncode, "replaced node relay" in restarted.stderr) == (0, True)


SLOW = """
    import os, time
    from dora import Node

    while not os.path.exists("go"):
        time.sleep(0.02)
    for event in Node():
        pass
"""


def slow_to_start(folder: Path) -> Path:
    """A dataflow whose start waits, until there is a file `go`, for the node `slow`."""
    entries: list[dict[str, object]] = [
        {"id": "source", "path": "source.py", "inputs": {"tick": "dora/timer/hz/50"}},
        {"id": "spare", "path": "sink.py", "inputs": {"number": "source/number"}},
        {"id": "other", "path": "sink.py", "inputs": {"number": "source/number"}},
        {"id": "slow", "path": "slow.py"},
    ]
    entries[0]["outputs"] = ["number"]
    for node in entries:
        node["env"] = {"SEEN": str(folder / f"seen by {node['id']}")}
    return write_flow(folder, entries, source=SOURCE, sink=SINK, slow=SLOW)


def test_changes_wait_for_the_end_of_the_start(dorad: Daemon, tmp_path: Path) -> None:
    started = dorad.dora_ok("start", slow_to_start(tmp_path), "--name", "flow", "--detach")
    assert "dataflow started" in started
    new = definition(tmp_path, id="new", path="sink.py", env={"SEEN": str(tmp_path / "new")})
    commands = [
        ("add", "--from-yaml", new),
        ("connect", "source/number", "slow/number"),
        ("disconnect", "source/number", "other/number"),
        ("remove", "spare"),
    ]
    begun = [dorad.begin("node", *words) for words in commands]
    try:
        for process in begun:  # all wait
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
    finally:
        (tmp_path / "go").touch()
        output = [process.communicate(timeout=60) for process in begun]
    assert [process.returncode for process in begun] == [0, 0, 0, 0], output
    with dorad.client() as client:
        assert {node.node for node in client.nodes()} == {"source", "other", "slow", "new"}
        (flow,) = client.list()
        assert len(client.info(flow.uuid).changes) == 4


async def test_a_change_of_a_dataflow_that_does_not_start_names_the_missing_node(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("d")
    monkeypatch.setattr(nodes, "MAX_START_WAIT_S", 2.0)
    flow = load(slow_to_start(folder), environ={})
    async with in_process(folder) as client:
        started = await client.start(flow, name="flow")
        await client.wait(started.uuid, until="spawned")
        with pytest.raises(ControlError) as caught:
            await client.disconnect("source/number", "other/number", dataflow="flow")
        assert caught.value.code == "deadline"
        assert "dataflow flow is still starting after 2 s: it waits for Node() in: " in str(
            caught.value
        )
        assert "slow" in caught.value.message
        await client.stop("flow", grace=0)


def test_invalid_changes_are_refused_and_change_nothing(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 5)
    missing = definition(tmp_path, id="third", path="missing.py", inputs={"n": "source/number"})
    library = definition(tmp_path, id="third", operator={"shared-library": "sink"})
    broken = definition(tmp_path, id="third", path="sink.py", inputs={"n": "source/nothing"})
    twice = definition(tmp_path, id="sink", path="sink.py", inputs={"n": "source/number"})
    for words, output in (
        (("node", "add", "-d", "flow", "--from-yaml", missing), "missing.py"),
        (("node", "add", "-d", "flow", "--from-yaml", library), "shared-library"),
        (("node", "add", "-d", "flow", "--from-yaml", broken), "nothing"),
        (("node", "add", "-d", "flow", "--from-yaml", twice), "sink"),
        (("node", "remove", "nobody"), "nobody"),
        (("node", "connect", "source/number", "sink/number"), "sink/number"),
        (("node", "disconnect", "source/number", "sink/other"), "other"),
    ):
        done = dorad.dora(*words)
        assert (done.returncode, output in done.stderr) == (1, True), f"{words}: {done.stderr}"
    with dorad.client() as client:
        assert client.info("flow").changes == []
        assert {node.node for node in client.nodes()} == {"source", "sink"}
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))


def test_subscribers_get_each_change_once(dorad: Daemon, tmp_path: Path) -> None:
    with dorad.client() as watcher, watcher.watch() as events:
        dorad.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
        wait_until(lambda: len(seen(tmp_path)) > 5)
        dorad.dora_ok("node", "disconnect", "source/number", "sink/number")
        dorad.dora_ok("node", "remove", "sink")
        dorad.dora_ok("stop", "flow")
        reported = []
        for event in events:
            reported.append((event.what, event.text))
            if event.what == "dataflow-ended":
                break
    assert [each for each in reported if each[0].startswith(("dataflow", "topology"))] == [
        ("dataflow-starting", ""),
        ("dataflow-running", ""),
        ("topology-changed", "disconnected source/number -> sink/number"),
        ("topology-changed", "removed node sink"),
        ("dataflow-ended", "finished"),
    ]
