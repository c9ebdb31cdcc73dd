"""Latched inputs: a late subscriber gets the last value first, even when its sender has exited."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

import dorad as dorad_package
from tests.harness.daemon import Daemon
from tests.harness.dataflow import json_lines
from tests.harness.flows import logged, write_flow
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.long]

MAP = """
    import os
    import numpy as np
    import pyarrow as pa
    from dora import Node

    node = Node()
    size = int(os.environ["SIZE"])
    def send(number):
        node.send_output("map", pa.array(np.full(size, number)), {"number": number})
        print(f"sent {number}")
    if not node.is_restart():
        send(1)
    for event in node:
        if event["type"] == "PARAM_UPDATE":
            send(event["value"])
"""

NOTE = """
    import json
    import os
    from dora import Node

    with open(os.environ["SEEN"], "a", buffering=1) as seen:
        for event in Node():
            if event["type"] == "INPUT":
                value = event["value"]
                number = event["metadata"]["number"]
                assert value[0].as_py() == value[-1].as_py() == number
                seen.write(json.dumps([number, event["metadata"]["timestamp"].timestamp()]) + "\\n")
"""

AWAKE = """
    from dora import Node

    for event in Node():
        pass
"""

LARGE = 100_000
SMALL = 3


class Flow:
    """A source called `map`, and receivers that record their messages."""

    def __init__(self, dorad: Daemon, folder: Path, size: int, *receivers: dict[str, Any]) -> None:
        self.dorad = dorad
        self.folder = folder
        source = {
            "id": "map",
            "path": "map.py",
            "outputs": ["map"],
            "env": {"SIZE": size},
            "restart_policy": "on-failure",
            "params": {"number": 1},
            "inputs": {"tick": "dora/timer/secs/1"},
        }
        awake = {"id": "awake", "path": "awake.py", "inputs": {"tick": "dora/timer/secs/1"}}
        file = write_flow(folder, [source, awake, *receivers], map=MAP, note=NOTE, awake=AWAKE)
        dorad.dora_ok("start", file, "--name", "flow", "--detach")

    def receiver(self, name: str, **options: Any) -> dict[str, Any]:
        return receiver(self.folder, name, **options)

    def add(self, name: str, **options: Any) -> None:
        file = self.folder / f"node-{uuid.uuid4().hex}.yml"
        file.write_text(yaml.safe_dump(self.receiver(name, **options)), encoding="utf-8")
        self.dorad.dora_ok("node", "add", "-d", "flow", "--from-yaml", file)

    def send(self, number: int) -> None:
        with self.dorad.client() as client:
            client.set_param("map", "number", number)

    def sent(self, number: int) -> None:
        """Wait until the source has sent a number."""
        wait_until(lambda: f"sent {number}" in logged(self.folder, "map"))

    def seen(self, name: str) -> list[int]:
        return [number for number, _ in json_lines(self.folder / f"{name}.jsonl")]

    def times(self, name: str) -> set[float]:
        return {stamp for _, stamp in json_lines(self.folder / f"{name}.jsonl")}

    def until(self, name: str, numbers: list[int]) -> None:
        wait_until(
            lambda: len(self.seen(name)) >= len(numbers),
            why=f"{name} has seen {self.seen(name)}, not {numbers}\n{self.dorad.log}",
        )
        assert self.seen(name) == numbers

    def kill(self, name: str) -> None:
        """Kill a node's process, and wait until the next one runs."""
        old = self.pid(name)
        assert old is not None
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: self.pid(name) not in (None, old))

    def pid(self, name: str) -> int | None:
        with self.dorad.client() as client:
            return next(each.pid for each in client.nodes() if each.node == name)

    def settled(self) -> None:
        """On every edge, what was sent was received or dropped."""
        with self.dorad.client() as client:
            # The first check is a second after the start.
            wait_until(lambda: client.top().edges)
            for edge in client.top().edges:
                assert edge.sent == edge.received + edge.dropped + edge.queued, edge


def receiver(folder: Path, name: str, **options: Any) -> dict[str, Any]:
    return {
        "id": name,
        "path": "note.py",
        "inputs": {"map": {"source": "map/map", **options}},
        "env": {"SEEN": str(folder / f"{name}.jsonl")},
    }


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_late_subscribers_get_the_last_value(dorad: Daemon, tmp_path: Path, size: int) -> None:
    flow = Flow(dorad, tmp_path, size, receiver(tmp_path, "first", latched=True))
    flow.until("first", [1])
    dorad.dora_ok("node", "restart", "first")
    flow.until("first", [1, 1])
    flow.send(2)
    flow.until("first", [1, 1, 2])
    flow.add("second", latched=True)
    flow.until("second", [2])
    # Its source is killed; the process that follows has sent nothing.
    flow.kill("map")
    dorad.dora_ok("node", "restart", "second")
    flow.until("second", [2, 2])
    flow.add("third", latched=True)
    flow.until("third", [2])
    assert len(flow.times("third") | flow.times("second")) == 1, "the time of sending has changed"
    # Its source has ended.
    dorad.dora_ok("node", "stop", "map")
    flow.add("fourth", latched=True)
    flow.until("fourth", [2])
    flow.settled()
    assert flow.seen("first") == [1, 1, 2]


def test_another_daemon_keeps_the_last_value(own_daemon: Daemon, tmp_path: Path) -> None:
    flow = Flow(own_daemon, tmp_path, LARGE, receiver(tmp_path, "first", latched=True))
    flow.until("first", [1])
    own_daemon.kill()
    own_daemon.start()
    flow.kill("map")
    own_daemon.dora_ok("node", "restart", "first")
    flow.until("first", [1, 1])
    flow.add("second", latched=True)
    flow.until("second", [1])


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_first_latched_input_gets_the_value_that_others_have_received(
    dorad: Daemon, tmp_path: Path, size: int
) -> None:
    flow = Flow(dorad, tmp_path, size, receiver(tmp_path, "plain"))
    flow.until("plain", [1])
    flow.add("second", latched=True)
    flow.until("second", [1])
    dorad.dora_ok("node", "restart", "plain")
    flow.send(2)
    flow.until("plain", [1, 2])


def test_the_first_receiver_of_all_gets_a_small_value(dorad: Daemon, tmp_path: Path) -> None:
    flow = Flow(dorad, tmp_path, 1000)
    flow.sent(1)
    flow.send(2)
    flow.sent(2)
    flow.add("first", latched=True)
    flow.until("first", [2])


def test_a_queued_value_is_not_delivered_twice(dorad: Daemon, tmp_path: Path) -> None:
    node = receiver(tmp_path, "first", latched=True)
    node |= {"restart_policy": "on-failure", "restart_delay": 3.0}
    flow = Flow(dorad, tmp_path, LARGE, node)
    flow.until("first", [1])
    pid = flow.pid("first")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    flow.send(2)
    flow.send(3)
    assert flow.pid("first") in (None, pid), "the next process was there before the messages"
    flow.until("first", [1, 2, 3])
    flow.send(4)
    flow.until("first", [1, 2, 3, 4])
    flow.settled()


def test_an_edge_that_is_connected_begins_with_the_last_value(
    dorad: Daemon, tmp_path: Path
) -> None:
    flow = Flow(dorad, tmp_path, LARGE, receiver(tmp_path, "first", latched=True))
    flow.until("first", [1])
    dorad.dora_ok("node", "connect", "map/map", "first/again", "--latched", "--max-rate-hz", "2")
    flow.until("first", [1, 1])
    flow.send(2)
    flow.until("first", [1, 1, 2, 2])
    dorad.dora_ok("node", "restart", "first")
    flow.until("first", [1, 1, 2, 2, 2, 2])
    refused = dorad.dora("node", "connect", "map/map", "first/third", "--queue-policy", "latst")
    assert refused.returncode == 1
    assert "did you mean `latest`?" in refused.stderr


def test_a_manually_started_node_begins_with_the_last_value(dorad: Daemon, tmp_path: Path) -> None:
    node = receiver(tmp_path, "viewer", latched=True) | {"path": "dynamic"}
    del node["env"]
    flow = Flow(dorad, tmp_path, LARGE, node, receiver(tmp_path, "other"))
    flow.until("other", [1])
    script = (tmp_path / "note.py").read_text().replace("Node()", 'Node("viewer")')
    (tmp_path / "by_hand.py").write_text(script)
    for life in (1, 2):
        command = [sys.executable, tmp_path / "by_hand.py"]
        env = dorad.env | {"SEEN": str(tmp_path / "viewer.jsonl")}
        env["PYTHONPATH"] = str(Path(dorad_package.__file__).parent / "compat")
        with subprocess.Popen(command, env=env) as process:
            flow.until("viewer", [1] * life)
            process.kill()
    flow.settled()
