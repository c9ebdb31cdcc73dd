"""The time of a simulation: bridges and dora's classes follow /clock, a replay publishes it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from tests.harness.dataflow import clean_environment
from tests.record.files import START
from tests.record.test_ros2 import COUNT, write_bag

from .conftest import Peer, line_of
from .test_classes import HEAD, RosFlow
from .test_classes import flow as flow
from .test_topics import Bridged

FIRST_NS = 1_000_000_000_000
"""Of the clock that a peer publishes."""
LAST_NS = 10 * FIRST_NS
"""Much later than any test takes, much earlier than now."""

FOLLOW = """
    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    stamp_ns = None
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "done" and stamp_ns:
            break
        if event["type"] == "INPUT" and event["id"] == "number":
            stamp_ns = event["metadata"].get("stamp_ns")
            report(stamp_ns)
            node.send_output("image", pa.array([{"height": 1}]))
"""


def test_messages_without_a_stamp_have_that_of_the_simulation_both_ways(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    number = {"message_type": "std_msgs/UInt64"}
    image = {"topic": "/image", "message_type": "sensor_msgs/Image", "direction": "publish"}
    topics = [
        {"topic": "/numbers", "output": "number", **number},
        {"topic": "/done", "output": "done", **number},
        image,
    ]
    flow = Bridged(tmp_path)
    ports = {"inputs": {"image": "follow/image"}, "outputs": ["number", "done"]}
    flow.bridge(ros, domain, topics, **ports)
    flow.nodes[0]["ros2"]["use_sim_time"] = True
    inputs = {"number": "bridge/number", "done": "bridge/done"}
    flow.node("follow", FOLLOW, inputs=inputs, outputs=["image"])
    peer("clock", "publish")
    peer("peer", "publish", "/numbers", 100_000, 20)
    listener = peer("clock", "stamp", "/image", "/done")
    flow.run(deadline=90).expect(0)
    (published,) = json.loads(line_of(listener))
    assert FIRST_NS <= published < LAST_NS
    # Without one before the first message of /clock.
    received = [each for each in flow.reports("follow") if each is not None]
    assert received
    assert received == sorted(received)
    assert FIRST_NS <= received[0] <= received[-1] < LAST_NS


def test_a_node_of_doras_classes_has_the_time_of_the_simulation(flow: RosFlow, peer: Peer) -> None:
    flow.program(
        "follower",
        HEAD
        + """
parameters = {"use_sim_time": True}
simulated = context.new_node("simulated", "/", Ros2NodeOptions(), parameters=parameters)
assert simulated.get_parameter("use_sim_time") is True
while not simulated.now_ns():
    time.sleep(0.02)
report([simulated.now_ns(), ros.now_ns()])
""",
    )
    peer("clock", "publish")
    flow.run(deadline=90).expect(0)
    ((simulated, real),) = flow.reports("follower")
    assert FIRST_NS <= simulated < LAST_NS < real


def test_a_replay_publishes_its_recorded_time(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    write_bag(tmp_path / "drive.mcap")
    topic = {"topic": "/imu", "message_type": "sensor_msgs/Imu"}
    block = {"setup": str(ros), "domain_id": domain, **topic}
    nodes = [
        {"id": "bridge", "ros2": block, "outputs": ["imu"]},
        {"id": "planner", "path": "planner.py", "inputs": {"imu": "bridge/imu"}},
    ]
    (tmp_path / "flow.yml").write_text(yaml.safe_dump({"nodes": nodes}))
    (tmp_path / "planner.py").write_text("from dora import Node\nfor event in Node():\n    pass\n")
    folder = Path(sys.executable).parent
    listener = peer("clock", "listen")
    assert line_of(listener) == "ready"
    command = [folder / "dora", "replay", "drive.mcap", "--dataflow", "flow.yml"]
    replay = subprocess.Popen(
        [*command, "--ros-clock", "--loop", "--speed", "0.1"],
        cwd=tmp_path,
        env=clean_environment(folder, {"XDG_RUNTIME_DIR": str(tmp_path)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        times = json.loads(line_of(listener))
    finally:
        replay.send_signal(signal.SIGINT)
        output, _ = replay.communicate(timeout=60)
    assert replay.returncode == 0, output
    assert "replayed nodes: bridge; running nodes: planner" in output
    assert START <= min(times) < max(times) <= START + COUNT * 10_000_000
