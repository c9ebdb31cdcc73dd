"""`dora node restart` of a node that has ended: it runs again, and so do its edges."""

import os
import signal
from pathlib import Path

import pytest

from dorad.control.errors import ControlError
from tests.harness.commands import fails, succeeds
from tests.harness.daemon import Daemon
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

SOURCE = """\
import pathlib
import pyarrow as pa
from dora import Node
node, number, crash = Node(), 0, pathlib.Path("crash")
for event in node:
    if event["type"] == "INPUT":
        if crash.exists():
            crash.unlink()
            raise SystemExit(3)
        node.send_output("number", pa.array([number]))
        number += 1
"""
MIDDLE = """\
from dora import Node
node = Node()
for event in node:
    print(event["type"], event.get("id"), event.get("reason"), flush=True)
    if event["type"] == "INPUT":
        node.send_output("twice", event["value"])
"""
SINK = """\
from dora import Node
for event in Node():
    print(event["type"], event.get("id"), flush=True)
    if event["type"] == "INPUT" and event["id"] == "twice":
        with open("seen", "a") as file:
            file.write(f"{event['value'][0].as_py()}\\n")
"""
FLOW = """\
nodes:
  - {id: source, path: source.py, inputs: {tick: dora/timer/millis/20}, outputs: [number]}
  - {id: middle, path: middle.py, inputs: {number: source/number}, outputs: [twice]}
  - id: sink
    path: sink.py
    inputs: {twice: {source: middle/twice, queue_size: 1000}, tick: dora/timer/millis/500}
  # Without one of the others this node would not be valid.
  - id: pairs
    path: sink.py
    inputs: {number: source/number, other: middle/twice}
    sync: {tolerance_ms: 1000, inputs: [number, other]}
"""


@pytest.fixture
def flow(dorad: Daemon, tmp_path: Path) -> Daemon:
    begin(dorad, tmp_path)
    return dorad


def begin(daemon: Daemon, folder: Path) -> None:
    """Start the dataflow, and wait until messages reach its end."""
    for name, text in (("source", SOURCE), ("middle", MIDDLE), ("sink", SINK)):
        (folder / f"{name}.py").write_text(text)
    (folder / "flow.yml").write_text(FLOW)
    daemon.dora_ok("start", folder / "flow.yml", "--name", "flow", "--detach")
    wait_until(lambda: len(numbers(folder)) > 5)


def numbers(folder: Path) -> list[int]:
    file = folder / "seen"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def status(daemon: Daemon, node: str) -> str:
    with daemon.client() as client:
        return next(each.status for each in client.nodes("flow") if each.node == node)


def test_a_node_that_was_stopped_receives_and_sends_again(flow: Daemon, tmp_path: Path) -> None:
    flow.dora_ok("node", "stop", "middle", "-d", "flow")
    with flow.client() as client:
        (middle,) = (each for each in client.nodes("flow") if each.node == "middle")
    assert (middle.status, middle.ended_by) == ("stopped", "command")
    mark = len(numbers(tmp_path))
    flow.dora_ok("node", "restart", "middle", "-d", "flow")
    wait_until(lambda: len(numbers(tmp_path)) > mark + 10)
    tail = numbers(tmp_path)[mark:]
    assert tail == list(range(tail[0], tail[0] + len(tail)))
    with flow.client() as client:
        (middle,) = (each for each in client.nodes("flow") if each.node == "middle")
    assert (middle.status, middle.restarts) == ("running", 1)
    assert middle.last_exit == "was restarted by a command"
    said = flow.dora_ok("logs", "flow", "--node", "sink")
    assert said.index("INPUT_CLOSED twice") < said.index("NODE_RESTARTED middle")


def test_a_node_that_has_failed_runs_again_and_its_dataflow_does_not_fail(
    flow: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "crash").touch()
    wait_until(lambda: status(flow, "source") == "failed")
    # All inputs of `middle` have closed, so it has ended, too.
    wait_until(lambda: status(flow, "middle") == "stopped")
    refused = flow.dora("node", "restart", "middle", "-d", "flow")
    assert refused.returncode == 1
    assert "node middle is not restarted: all its inputs have closed" in refused.stderr
    mark = len(numbers(tmp_path))
    flow.dora_ok("node", "restart", "source", "-d", "flow")
    with flow.client() as client, client.watch_fleet() as rows:
        # It stays away although it could receive again: only a command brings it back.
        left = "node middle ended with its source source, which runs again"
        row = next(row for event in rows for row in event.rows if row.why == left)
        assert (row.state, row.running, row.nodes) == ("warn", 2, 4)
        flow.dora_ok("node", "restart", "middle", "-d", "flow")
        flow.dora_ok("node", "restart", "pairs", "-d", "flow")
        well = (row for event in rows for row in event.rows if row.state == "ok")
        assert next(row.nodes for row in well if row.running == 4) == 4
    wait_until(lambda: len(numbers(tmp_path)) > mark + 10)
    # It ends as any other.
    flow.dora_ok("node", "stop", "source", "-d", "flow")
    wait_until(lambda: status(flow, "middle") == "stopped")
    succeeds(flow.dora("stop", "flow"))
    with flow.client() as client:
        (state,) = (each for each in client.list() if each.name == "flow")
    assert state.status == "finished"


def test_a_node_whose_program_is_gone_stays_ended(flow: Daemon, tmp_path: Path) -> None:
    flow.dora_ok("node", "stop", "middle", "-d", "flow")
    (tmp_path / "middle.py").rename(tmp_path / "away.py")
    fails(flow.dora("node", "restart", "middle", "-d", "flow"), 1, "middle.py")
    assert status(flow, "middle") == "stopped"
    (tmp_path / "away.py").rename(tmp_path / "middle.py")
    mark = len(numbers(tmp_path))
    flow.dora_ok("node", "restart", "middle", "-d", "flow")
    wait_until(lambda: len(numbers(tmp_path)) > mark + 3)


def test_a_node_that_was_started_again_outlives_a_daemon(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    begin(own_daemon, tmp_path)
    own_daemon.dora_ok("node", "stop", "middle")
    own_daemon.dora_ok("node", "restart", "middle")
    own_daemon.kill()
    own_daemon.start()
    mark = len(numbers(tmp_path))
    wait_until(lambda: len(numbers(tmp_path)) > mark + 10)
    assert status(own_daemon, "middle") == "running"
    own_daemon.dora_ok("stop", "flow")


def test_a_consumer_without_room_for_a_new_queue_gets_it_when_it_has_read_the_old_ones(
    flow: Daemon, tmp_path: Path
) -> None:
    with flow.client() as client:
        (sink,) = (each.pid for each in client.nodes("flow") if each.node == "sink")
        assert sink is not None
        os.kill(sink, signal.SIGSTOP)
        try:
            with pytest.raises(ControlError, match="sink/twice cannot be opened again"):
                for _ in range(20):
                    client.stop_node("middle", dataflow="flow")
                    client.restart_node("middle", dataflow="flow")
            with pytest.raises(ControlError, match="sink/twice cannot be opened again"):
                client.restart_node("middle", dataflow="flow")
        finally:
            os.kill(sink, signal.SIGCONT)

        def restarted() -> bool:
            try:
                client.restart_node("middle", dataflow="flow")
            except ControlError as error:
                assert "sink/twice cannot be opened again" in error.message
                return False
            return True

        wait_until(restarted)
    mark = len(numbers(tmp_path))
    wait_until(lambda: len(numbers(tmp_path)) > mark + 3)
