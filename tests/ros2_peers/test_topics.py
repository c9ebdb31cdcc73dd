"""A dataflow whose `ros2` block talks to real nodes of ROS 2."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.harness.dataflow import Flow
from tests.harness.process import Outcome, marked
from tests.harness.waiting import until

from .conftest import Peer, distinct, line_of, listened

COLLECT = """
    from pathlib import Path

    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    numbers = []
    for event in node:
        if event["type"] == "INPUT":
            numbers.append(event["value"].field("data")[0].as_py())
            Path("started").touch()
            if numbers[-1] >= {last}:
                break
    report(numbers)
    node.send_output("done", pa.array([{{"data": 1}}]))
"""
"""Ends the dataflow: the bridge ends when its input closes."""

SEND = """
    import time

    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    report(time.monotonic())
    for number, event in zip(range({count}), node):
        node.send_output("number", pa.array([{{"data": number}}]))
"""

WAIT = """
    import json

    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    missing = {texts!r}
    seen = set()
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "log":
            text = json.loads(event["value"][0].as_py())["message"]
            missing = [each for each in missing if each not in text]
        elif event["type"] == "INPUT":
            seen.add(event["id"])
        if seen and not missing:
            break
    report(sorted(seen))
    node.send_output("done", pa.array([{{"data": 1}}]))
"""
"""Receives until the bridge has said everything that the test is about, however late."""
LOG = {"source": "dora/logs", "queue_size": 1000}


class Bridged(Flow):
    """A dataflow with a node `bridge` in the ROS 2 domain of a test."""

    def bridge(self, ros: Path, domain: int, topics: list[dict[str, Any]], **keys: Any) -> None:
        block = {"setup": str(ros), "domain_id": domain, "topics": topics}
        self.nodes.append({"id": "bridge", "ros2": block, **keys})


def bridged(folder: Path, ros: Path, domain: int, **qos: Any) -> Bridged:
    """Return a dataflow that reads /numbers until it has what `collect` wants."""
    flow = Bridged(folder)
    topic: dict[str, Any] = {"topic": "/numbers", "message_type": "std_msgs/UInt64"}
    if qos:
        topic["qos"] = qos
    flow.bridge(
        ros,
        domain,
        [
            {**topic, "output": "number"},
            {"topic": "/done", "message_type": "std_msgs/UInt64", "direction": "publish"},
        ],
        inputs={"done": "collect/done"},
        outputs=["number"],
    )
    return flow


def test_all_messages_at_1_khz_arrive_in_order(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = bridged(tmp_path, ros, domain, keep_last=10_000)
    flow.node(
        "collect",
        COLLECT.format(last=4999),
        inputs={"number": {"source": "bridge/number", "queue_size": 10_000}},
        outputs=["done"],
    )
    peer("peer", "publish", "/numbers", 5000, 1000)
    flow.run(deadline=90).expect(0)
    (numbers,) = flow.reports("collect")
    assert distinct(numbers) == list(range(5000))


@pytest.mark.parametrize("qos", ["best_effort", "transient_local"])
def test_the_subscription_takes_what_its_publisher_offers(
    tmp_path: Path, ros: Path, domain: int, peer: Peer, qos: str
) -> None:
    flow = bridged(tmp_path, ros, domain)
    flow.node(
        "collect", COLLECT.format(last=5), inputs={"number": "bridge/number"}, outputs=["done"]
    )
    peer("peer", "publish", "/numbers", 1000, 20, qos)
    flow.run(deadline=90).expect(0)
    (numbers,) = flow.reports("collect")
    assert distinct(numbers) == sorted(set(numbers))


def test_an_incompatible_qos_is_named_with_both_sides(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = bridged(tmp_path, ros, domain, reliable=True)
    inputs = {"number": "bridge/number", "log": LOG}
    warning = "publishers of /numbers with an incompatible QoS: reliability"
    flow.node("collect", WAIT.format(texts=[warning]), inputs=inputs, outputs=["done"])
    other = peer("peer", "publish", "/numbers", 1, 1, "best_effort")
    assert line_of(other) == "ready"
    peer("peer", "publish", "/numbers", 100_000, 10)
    text = flow.run(deadline=90).expect(0).output
    assert warning in text
    assert re.search("they offer .*best effort, volatile", text), text
    assert "the bridge requests reliable, volatile" in text


def test_the_dataflow_publishes_from_its_first_message_on(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    listener = peer("peer", "listen", "/numbers", 199)
    assert line_of(listener) == "ready"
    flow = Bridged(tmp_path)
    topic = {
        "topic": "/numbers",
        "message_type": "std_msgs/UInt64",
        "direction": "publish",
        "input": "number",
    }
    queued = {"source": "send/number", "queue_size": 200}
    flow.bridge(ros, domain, [topic], inputs={"number": queued})
    flow.node(
        "send",
        SEND.format(count=200),
        inputs={"tick": "dora/timer/millis/5"},
        outputs=["number"],
    )
    text = flow.run(deadline=90).expect(0).output
    numbers, matched_s = listened(listener)
    (started_s,) = flow.reports("send")
    # On a busy machine the two may need longer than the bridge waits to know each other.
    is_late = matched_s is None or matched_s > started_s or "/numbers has no peer yet" in text
    assert ("published on /numbers before anyone subscribed" in text) <= is_late, text
    first, last = (numbers[0], numbers[-1]) if numbers else (0, -1)
    assert numbers == list(range(first, last + 1)), text
    assert first == 0 or is_late, text
    is_short = "/numbers: peers may lack what was sent last" in text
    to_nobody = "200 messages published on /numbers before anyone subscribed" in text
    assert last == 199 or is_short or to_nobody, text


def test_messages_that_nobody_subscribes_to_are_counted(
    tmp_path: Path, ros: Path, domain: int
) -> None:
    flow = Bridged(tmp_path)
    topic = {"topic": "/numbers", "message_type": "std_msgs/UInt64", "direction": "publish"}
    queued = {"source": "send/number", "queue_size": 20}
    flow.bridge(ros, domain, [{**topic, "input": "number"}], inputs={"number": queued})
    flow.node(
        "send", SEND.format(count=20), inputs={"tick": "dora/timer/millis/5"}, outputs=["number"]
    )
    text = flow.run(deadline=90).expect(0).output
    assert "20 messages published on /numbers before anyone subscribed" in text, text


def fails(tmp_path: Path, setup: str, **topic: str) -> Outcome:
    flow = Flow(tmp_path)
    block = {"setup": setup, "topic": "/t", "message_type": "std_msgs/UInt64", **topic}
    flow.nodes.append({"id": "bridge", "ros2": block, "outputs": ["number"]})
    return flow.run(deadline=90).expect(1)


def test_a_type_that_is_not_installed_is_named(tmp_path: Path, ros: Path) -> None:
    text = fails(tmp_path, str(ros), message_type="nav_msgs/Path").output
    assert "the ROS 2 package nav_msgs is not installed (apt install ros-DISTRO-nav-msgs)" in text


def test_a_setup_that_is_missing_is_named_before_anything_starts(tmp_path: Path) -> None:
    text = fails(tmp_path, "nowhere").output
    assert f"`setup: nowhere`: there is no {tmp_path / 'nowhere'}" in text


COUNT = """
    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    restarted = 0
    for event in node:
        if event["type"] == "NODE_RESTARTED":
            restarted = 1
        if event["type"] == "INPUT":
            report(event["value"].field("data")[0].as_py())
            restarted += bool(restarted)
            if restarted > 20:
                break
"""


async def test_a_killed_bridge_starts_again_and_leaves_no_shared_memory(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = Bridged(tmp_path)
    topics = [
        {"topic": "/numbers", "message_type": "std_msgs/UInt64", "output": "number"},
        {"topic": "/done", "message_type": "std_msgs/UInt64", "direction": "publish"},
    ]
    flow.bridge(
        ros,
        domain,
        topics,
        inputs={"done": "count/done"},
        outputs=["number"],
        restart_policy="on-failure",
    )
    flow.node("count", COUNT, inputs={"number": "bridge/number"}, outputs=["done"])
    peer("peer", "publish", "/numbers", 100_000, 50)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=90)
        await until(lambda: len(flow.reports("count")) > 10 or running.done())
        (bridge,) = bridges(domain)
        segments = own_segments(bridge)
        assert segments
        os.kill(bridge, signal.SIGKILL)
        running.result().expect(0)
    assert not [each for each in segments if each.exists()]


def bridges(domain: int) -> list[int]:
    """Return the processes of bridges in a domain."""
    return [
        each
        for each in marked("ROS_DOMAIN_ID", str(domain))
        if b"dorad.ros2.bridge" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


def own_segments(pid: int) -> list[Path]:
    """Return the segments of Fast DDS that a bridge has made: those of others are smaller."""
    text = Path(f"/proc/{pid}/maps").read_text()
    names = re.findall(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}$", text, re.MULTILINE)
    files = [Path(each) for each in dict.fromkeys(names)]
    return [each for each in files if each.stat().st_size > 32 << 20]
