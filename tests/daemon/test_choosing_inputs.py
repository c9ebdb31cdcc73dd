"""Inputs with a rate and synchronised inputs under a daemon: watched, replaced, adopted."""

import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.daemon import Daemon
from tests.harness.dataflow import json_lines
from tests.harness.flows import write_flow
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

CAMERA = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    number = 0
    on = node.param("on")
    for event in node:
        if event["type"] == "PARAM_UPDATE":
            on = event["value"]
        elif event["type"] == "INPUT" and on:
            node.send_output("image", pa.array([number] * 1000))
            number += 1
"""

NOTE = """
    import json
    import os
    import time
    from dora import Node

    with open(os.environ["SEEN"], "a", buffering=1) as seen:
        for event in Node():
            if event["type"] != "INPUT":
                continue
            stamps = []
            if event["id"] == "both":
                assert event["value"].keys() == {"left", "right"}
                stamps = [about["timestamp"].timestamp() for about in event["metadata"].values()]
            seen.write(json.dumps([event["id"], time.monotonic(), os.getpid(), stamps]) + "\\n")
"""

TOLERANCE_MS = 8
RATE_HZ = 20
QUIET_S = 2.5


def camera(name: str, *, on: bool = True, hz: int = 50) -> dict[str, Any]:
    return {
        "id": name,
        "path": "camera.py",
        "inputs": {"tick": f"dora/timer/hz/{hz}"},
        "outputs": ["image"],
        "params": {"on": on},
    }


def pair(folder: Path, **keys: Any) -> dict[str, Any]:
    return {
        "id": "pair",
        "path": "note.py",
        "inputs": {"left": "left/image", "right": "right/image"},
        "sync": {"inputs": ["left", "right"], "tolerance_ms": TOLERANCE_MS, "name": "both"},
        "env": {"SEEN": str(folder / "pair.jsonl")},
        **keys,
    }


def slow(folder: Path, **keys: Any) -> dict[str, Any]:
    return {
        "id": "slow",
        "path": "note.py",
        "inputs": {"image": {"source": "fast/image", "max_rate_hz": RATE_HZ}},
        "env": {"SEEN": str(folder / "slow.jsonl")},
        **keys,
    }


def replace(dorad: Daemon, folder: Path, node: dict[str, Any]) -> None:
    file = folder / f"node-{uuid.uuid4().hex}.yml"
    file.write_text(yaml.safe_dump(node), encoding="utf-8")
    dorad.dora_ok("node", "replace", node["id"], "-d", "flow", "--from-yaml", file)


def more(dorad: Daemon, file: Path, count: int) -> list[Any]:
    """Wait for `count` further lines, and return them."""
    before = len(json_lines(file))
    wait_until(lambda: len(json_lines(file)) >= before + count)
    return json_lines(file)[before:]


def test_pairs_arrive_despite_restarts_of_node_and_daemon(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    nodes = [camera("left"), camera("right"), pair(tmp_path)]
    file = write_flow(tmp_path, nodes, camera=CAMERA, note=NOTE)
    own_daemon.dora_ok("start", file, "--name", "flow", "--detach")
    seen = tmp_path / "pair.jsonl"
    lines = more(own_daemon, seen, 20)
    replace(own_daemon, tmp_path, pair(tmp_path, description="another"))
    lines += more(own_daemon, seen, 20)
    own_daemon.kill()
    own_daemon.start()
    own_daemon.dora_ok("node", "restart", "pair")
    lines += more(own_daemon, seen, 20)
    assert len({pid for _, _, pid, _ in lines}) == 3
    assert {name for name, _, _, _ in lines} == {"both"}
    assert all(max(stamps) - min(stamps) <= TOLERANCE_MS / 1e3 + 1e-5 for *_, stamps in lines)
    refused = own_daemon.dora("node", "disconnect", "left/image", "pair/left")
    assert (refused.returncode, "the node has no input `left`" in refused.stderr) == (1, True)
    with own_daemon.client() as client:
        edges = client.top().edges
        assert {edge.target for edge in edges} == {"pair/left", "pair/right"}
        for edge in edges:
            assert edge.sent == edge.received + edge.dropped + edge.queued


def test_a_node_that_waits_for_partners_is_healthy(dorad: Daemon, tmp_path: Path) -> None:
    nodes = [camera("left"), camera("right", on=False), pair(tmp_path, health_check_timeout=2)]
    file = write_flow(tmp_path, nodes, camera=CAMERA, note=NOTE)
    dorad.dora_ok("start", file, "--name", "flow", "--detach")

    def left_alone() -> bool:
        with dorad.client() as client:
            edges = {edge.target: edge for edge in client.top().edges}
        left = edges.get("pair/left")
        return left is not None and left.queued == 10 and left.dropped > 50 * QUIET_S

    wait_until(left_alone)
    dorad.dora_ok("param", "set", "right", "on", "true")
    lines = more(dorad, tmp_path / "pair.jsonl", 10)
    assert len({pid for _, _, pid, _ in lines}) == 1
    with dorad.client() as client:
        assert all(node.status == "running" and not node.restarts for node in client.nodes())


def test_a_rate_holds_and_delays_no_replacement(dorad: Daemon, tmp_path: Path) -> None:
    fast = camera("fast", hz=200)
    file = write_flow(tmp_path, [fast, slow(tmp_path)], camera=CAMERA, note=NOTE)
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    seen = tmp_path / "slow.jsonl"
    lines = more(dorad, seen, 10)
    replace(dorad, tmp_path, slow(tmp_path, description="another", health_check_timeout=1.5))
    lines += more(dorad, seen, 20)
    last = [time for _, time, pid, _ in lines if pid == lines[-1][2]]
    # A busy machine writes a line later than it has received the message: tolerate three more.
    assert 5 < len(last) <= RATE_HZ * (last[-1] - last[0]) + 4
    with dorad.client() as client:
        (edge,) = client.top().edges
        assert edge.dropped > 0
        assert edge.sent == edge.received + edge.dropped + edge.queued
