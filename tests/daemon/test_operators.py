"""Operator nodes under the daemon: restarted, watched, replaced, inspected, adopted."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from dorad.procinfo import is_alive
from tests.harness.commands import fails
from tests.harness.daemon import Daemon
from tests.harness.flows import SINK, seen, write_flow
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

COUNTER = """
    import pyarrow as pa
    from dora import DoraStatus

    class Operator:
        def __init__(self):
            self.count = 0

        def on_event(self, dora_event, send_output):
            if dora_event["type"] == "INPUT":
                self.count += 1
                send_output("number", pa.array([self.count]))
            return DoraStatus.CONTINUE
"""
RELAY = """
    from dora import DoraStatus

    class Operator:
        def on_event(self, dora_event, send_output):
            if dora_event["type"] == "INPUT":
                send_output("number", dora_event["value"])
            return DoraStatus.CONTINUE
"""
HANGS = """
    import time
    from dora import DoraStatus

    class Operator:
        def on_event(self, dora_event, send_output):
            if dora_event["type"] == "INPUT":
                print("hangs")
                time.sleep(1000)
            return DoraStatus.CONTINUE
"""


def operators() -> list[dict[str, Any]]:
    return [
        {
            "id": "counter",
            "python": "counter.py",
            "inputs": {"tick": "dora/timer/hz/50"},
            "outputs": ["number"],
        },
        {
            "id": "relay",
            "python": "relay.py",
            "inputs": {"number": {"source": "ops/counter/number", "queue_size": 100}},
            "outputs": ["number"],
        },
    ]


def write(folder: Path, **keys: Any) -> Path:
    number = {"number": {"source": "ops/relay/number", "queue_size": 1000}}
    nodes = [
        {"id": "ops", "operators": operators(), **keys},
        {"id": "sink", "path": "sink.py", "inputs": number, "env": {"SEEN": str(folder / "seen")}},
    ]
    return write_flow(folder, nodes, counter=COUNTER, relay=RELAY, hangs=HANGS, sink=SINK)


def start(found: Daemon, folder: Path, **keys: Any) -> None:
    found.dora_ok("start", write(folder, **keys), "--name", "flow", "--detach")
    wait_until(lambda: len(seen(folder)) > 5)


def pid_of(found: Daemon, name: str) -> int:
    with found.client() as client:
        (pid,) = [node.pid for node in client.nodes() if node.node == name]
    return pid or 0


def test_a_killed_operator_node_is_restarted_and_its_consumer_continues(
    dorad: Daemon, tmp_path: Path
) -> None:
    start(dorad, tmp_path, restart_policy="on-failure")
    pid = pid_of(dorad, "ops")
    mark = len(seen(tmp_path))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(seen(tmp_path)) > mark + 20)
    wait_until(lambda: not is_alive(pid))
    numbers = seen(tmp_path)
    again = numbers.index(1, 1)
    assert numbers[:again] == list(range(1, again + 1))
    assert numbers[again:] == list(range(1, len(numbers) - again + 1))
    dorad.dora_ok("node", "restart", "ops")
    wait_until(lambda: seen(tmp_path).count(1) == 3)
    dorad.dora_ok("stop", "flow")


def test_one_hanging_operator_is_detected_though_the_others_work(
    dorad: Daemon, tmp_path: Path
) -> None:
    hangs = {"id": "hangs", "python": "hangs.py", "inputs": {"tick": "dora/timer/millis/600"}}
    file = write(tmp_path, restart_policy="on-failure", health_check_timeout=2)
    flow = yaml.safe_load(file.read_text(encoding="utf-8"))
    flow["nodes"][0]["operators"].append(hangs)
    file.write_text(yaml.safe_dump(flow), encoding="utf-8")
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    text = "was killed because it had not called dora for 2 s"
    wait_until(lambda: text in dorad.dora_ok("logs", "flow"))
    dorad.dora("stop", "flow", "--force")


def test_idle_and_busy_operators_are_healthy(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, tmp_path, health_check_timeout=1.5)
    pid = pid_of(dorad, "ops")
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 100)  # in two seconds or more
    assert pid_of(dorad, "ops") == pid
    dorad.dora_ok("stop", "flow")


def test_replacing_an_operator_node_loses_no_queued_message(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, tmp_path)
    pid = pid_of(dorad, "ops")
    file = tmp_path / "new.yml"
    body = {"id": "ops", "operators": operators(), "description": "the second"}
    file.write_text(yaml.safe_dump(body), encoding="utf-8")
    dorad.dora_ok("node", "replace", "ops", "--from-yaml", file)
    assert pid_of(dorad, "ops") != pid
    wait_until(lambda: seen(tmp_path).count(1) == 2)
    (tmp_path / "relay.py").write_text("def broken(", encoding="utf-8")
    fails(dorad.dora("node", "replace", "ops", "--from-yaml", file), 1, "before it called Node()")
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 5)
    dorad.dora_ok("stop", "flow")


def test_the_edge_between_operators_is_listed_and_can_be_subscribed_to(
    dorad: Daemon, tmp_path: Path
) -> None:
    start(dorad, tmp_path)
    listed = [
        json.loads(line) for line in dorad.dora_ok("topic", "list", "-f", "json").splitlines()
    ]
    assert listed == [
        {"node": "ops", "name": "counter/number", "subscribers": ["ops/relay/number"]},
        {"node": "ops", "name": "relay/number", "subscribers": ["sink/number"]},
    ]
    echoed = dorad.dora_ok("topic", "echo", "ops/counter/number", "--count", "3", "-f", "json")
    values = [json.loads(line)["data"] for line in echoed.splitlines()]
    assert len(values) == 3
    with dorad.client() as client:
        # The first check is a second after the start, however many messages have come by then.
        wait_until(
            lambda: any(e.target == "ops/relay/number" and e.sent > 5 for e in client.top().edges)
        )
        edges = {edge.target: edge for edge in client.top().edges}
    inner = edges["ops/relay/number"]
    assert inner.sent > 5
    assert inner.sent == inner.received + inner.dropped + inner.queued
    assert inner.dropped == 0
    info = dorad.dora_ok("node", "info", "ops")
    assert "relay/number" in info
    dorad.dora_ok("node", "connect", "ops/counter/number", "sink/more")
    wait_until(lambda: len(seen(tmp_path)) != len(set(seen(tmp_path))))
    dorad.dora_ok("stop", "flow")


def test_operators_run_without_a_daemon_and_the_next_daemon_learns_their_exits(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    start(own_daemon, tmp_path)
    (tmp_path / "counter.py").write_text("raise RuntimeError('is not loaded twice')")
    pid = pid_of(own_daemon, "ops")
    own_daemon.kill()
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 20)
    own_daemon.start()
    assert pid_of(own_daemon, "ops") == pid
    with own_daemon.client() as client:
        assert client.stop("flow").status == "finished"
    numbers = seen(tmp_path)
    assert numbers == list(range(1, len(numbers) + 1))
