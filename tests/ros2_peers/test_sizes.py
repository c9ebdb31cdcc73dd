"""Images, many and large ones, through a bridge."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.harness.waiting import until

from .conftest import Peer, distinct, line_of
from .test_topics import Bridged, bridges

MB = 1_000_000
CAMERA = {"topic": "/camera", "message_type": "sensor_msgs/Image", "output": "image"}
SEEN = {"topic": "/seen", "message_type": "sensor_msgs/Image", "direction": "publish"}
DONE = {"topic": "/done", "message_type": "std_msgs/UInt64"}

PASS = """
    from dora import Node
    from probe import report

    node = Node()
    heights = []
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "done":
            break
        if event["type"] == "INPUT":
            image = event["value"]
            heights.append(image.field("height")[0].as_py())
            node.send_output("seen", image)
    report(heights)
"""


def passing(folder: Path, ros: Path, domain: int, queue_size: int) -> Bridged:
    """Return a dataflow that publishes the images of /camera on /seen, until /done."""
    flow = Bridged(folder)
    seen = {"source": "pass/seen", "queue_size": queue_size}
    outputs = ["image", "done"]
    topics: list[dict[str, Any]] = [CAMERA, SEEN, {**DONE, "output": "done"}]
    flow.bridge(ros, domain, topics, inputs={"seen": seen}, outputs=outputs)
    image = {"source": "bridge/image", "queue_size": queue_size}
    flow.node("pass", PASS, inputs={"image": image, "done": "bridge/done"}, outputs=["seen"])
    return flow


def test_of_images_at_30_hz_none_is_lost_either_way(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    count = 90
    flow = passing(tmp_path, ros, domain, count)
    listener = peer("peer", "see", "/seen", count - 1, "/done")
    assert line_of(listener) == "ready"
    peer("peer", "image", "/camera", count, 30, MB)
    text = flow.run(deadline=120).expect(0).output
    (passed,) = flow.reports("pass")
    assert distinct(passed) == list(range(count))
    assert seen_by(listener) == (list(range(count)), MB)
    assert "lost" not in text


def test_a_message_of_300_mb_gets_through_both_ways(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = passing(tmp_path, ros, domain, 1)
    listener = peer("peer", "see", "/seen", 1, "/done")
    assert line_of(listener) == "ready"
    peer("peer", "image", "/camera", 2, 1, 300 * MB)
    flow.run(deadline=300).expect(0)
    (passed,) = flow.reports("pass")
    assert distinct(passed) == [0, 1]
    assert seen_by(listener) == ([0, 1], 300 * MB)


def seen_by(listener: "subprocess.Popen[str]") -> tuple[list[int], int]:
    """Return the numbers of the images that `peer.py see` has received, and the largest size."""
    stamps, sizes = json.loads(line_of(listener))
    return distinct(stamps), sizes[-1]


SLOW = """
    import time
    from pathlib import Path

    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    received = 0
    for event in node:
        if event["type"] == "INPUT":
            stamp = event["metadata"]["stamp_ns"] // 1_000_000_000
            if stamp == 0:
                Path("started").touch()
                continue
            received += 1
            time.sleep(0.05)
            if stamp == {last}:
                break
    report(received)
    while not Path("measured").exists():
        time.sleep(0.02)
    node.send_output("done", pa.array([{{"data": 1}}]))
"""


async def test_the_memory_of_a_bridge_does_not_grow_while_its_node_is_slower_than_the_camera(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    count = 500
    flow = Bridged(tmp_path)
    flow.bridge(
        ros,
        domain,
        [{**CAMERA, "qos": {"reliable": True, "keep_last": 5}}, {**DONE, "direction": "publish"}],
        inputs={"done": "slow/done"},
        outputs=["image"],
    )
    image = {"source": "bridge/image", "queue_size": 2, "queue_policy": "backpressure"}
    flow.node("slow", SLOW.format(last=count - 1), inputs={"image": image}, outputs=["done"])
    peer("peer", "image", "/camera", count, 1e9, MB)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=120)
        await until(lambda: bool(flow.reports("slow")) or running.done())
        (bridge,) = bridges(domain)
        peak = peak_bytes(bridge)
        (tmp_path / "measured").touch()
        text = running.result().expect(0).output
    lost = re.search(r"(\d+) messages of bridge/image -> slow/image were lost", text)
    assert lost is not None, text
    (received,) = flow.reports("slow")
    assert received + int(lost[1]) == count - 1
    assert peak < 0.8 * count * MB


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process had."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024
