"""dora's ROS 2 classes in a node of a dataflow, beside real nodes of ROS 2."""

import itertools
import json
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from dorad.ros2.lastsent import SENT_S
from tests.harness.dataflow import Flow

from .conftest import Peer, distinct, line_of, listened

HEAD = """
import time
from pathlib import Path

import pyarrow as pa
from dora import Node, Ros2Context, Ros2NodeOptions, Ros2QosPolicies
from probe import report

context = Ros2Context()
ros = context.new_node("tested", "/demo", Ros2NodeOptions(rosout=True))
"""


AT_END = """
import atexit

atexit.register(lambda: report(time.monotonic()))
"""
"""Before HEAD, it reports when dora's classes have ended, too."""


class RosFlow(Flow):
    """A dataflow whose nodes run in the Python of ROS 2, beside our pyarrow."""

    python: Path
    domain: int

    def program(self, name: str, source: str, **keys: Any) -> None:
        """Add a node with this source."""
        packages = str(Path(pyarrow.__file__).parents[1])
        env = {"PYTHONPATH": packages, "ROS_DOMAIN_ID": str(self.domain)}
        self.node(name, textwrap.dedent(source), env=env, **keys)
        self.nodes[-1] |= {"path": str(self.python), "args": f"{name}.py"}


@pytest.fixture
def flow(tmp_path: Path, ros: Path, domain: int) -> RosFlow:
    made = RosFlow(tmp_path)
    made.python, made.domain = ros / "bin/python", domain
    return made


def test_merged_messages_come_complete_and_in_order_beside_inputs(
    flow: RosFlow, peer: Peer
) -> None:
    flow.program(
        "reader",
        HEAD
        + """
qos = Ros2QosPolicies(reliable=True, keep_last=2000)
topic = ros.create_topic("/numbers", "std_msgs/UInt64", qos)
subscription = ros.create_subscription(topic)
node = Node()
node.merge_external_events(subscription)
numbers, ticks = [], 0
while numbers[-1:] != [1999] or ticks < 5:
    event = node.next()
    if event["kind"] == "external":
        numbers.append(event["value"][0].as_py()["data"])
        Path("started").touch()
    elif event["type"] == "INPUT":
        ticks += 1
report(numbers)
try:
    subscription.next()
except RuntimeError as error:
    report(str(error))
""",
        inputs={"tick": "dora/timer/millis/20"},
    )
    peer("peer", "publish", "/numbers", 2000, 1000)
    text = flow.run(deadline=90).expect(0).output
    numbers, refusal = flow.reports("reader")
    assert distinct(numbers) == list(range(2000))
    assert "already used" in refusal
    assert "lost" not in text
    assert "dropped" not in text


def test_the_messages_of_a_publisher_arrive_up_to_the_last_one(flow: RosFlow, peer: Peer) -> None:
    listener = peer("peer", "listen", "/numbers", 99)
    assert line_of(listener) == "ready"
    flow.program(
        "sender",
        HEAD
        + """
qos = Ros2QosPolicies(reliable=True, keep_last=1000)
topic = ros.create_topic("/numbers", "std_msgs::UInt64", qos)
publisher = ros.create_publisher(topic)
kinds = [
    lambda number: {"data": number},
    lambda number: pa.array([{"data": number}]),
    lambda number: pa.scalar({"data": number}),
]
for number in range(99):
    publisher.publish(kinds[number % 3](number))
for wrong in (pa.array([{"date": 1}]), pa.array([{"data": -1}]), pa.array([{"data": 1}] * 2), 5):
    try:
        publisher.publish(wrong)
    except (RuntimeError, TypeError) as error:
        report(f"{type(error).__name__}: {error}")
# From when on the listener knows the publisher, on a busy machine, no publisher can tell.
while not Path("started").exists():
    publisher.publish({"data": 98})
    time.sleep(0.05)
publisher.publish({"data": 99})
""",
    )
    text = flow.run(deadline=90).expect(0).output
    numbers, _ = listened(listener)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[-1] == 99 or "/numbers: peers may lack what was sent last" in text, text
    refused = flow.reports("sender")
    assert "RuntimeError: std_msgs/msg/UInt64 has no field `date`" in refused
    assert len(refused) == 4
    assert refused[3].startswith("TypeError: a message is a pyarrow array")


def test_a_subscription_of_one_message_has_the_newest(flow: RosFlow, peer: Peer) -> None:
    flow.program(
        "reader",
        HEAD
        + """
topic = ros.create_topic("numbers", "std_msgs/UInt64", Ros2QosPolicies(reliable=True))
subscription = ros.create_subscription(topic)
assert subscription.next() is None
numbers = []
while len(numbers) < 5:
    time.sleep(0.2)
    if (value := subscription.next()) is not None:
        numbers.append(value[0].as_py()["data"])
        Path("started").touch()
report(numbers)
""",
    )
    # A relative name belongs to the namespace of its node.
    peer("peer", "publish", "/demo/numbers", 100_000, 100)
    text = flow.run(deadline=90).expect(0).output
    (numbers,) = flow.reports("reader")
    # At least one of five is not just the next one, however unevenly the machine works.
    assert numbers == sorted(numbers)
    assert any(later - earlier > 5 for earlier, later in itertools.pairwise(numbers))
    assert "dropped" not in text  # it is what was asked for


def test_an_incompatible_quality_of_service_is_reported_with_both_sides(
    flow: RosFlow, peer: Peer
) -> None:
    flow.program(
        "reader",
        HEAD
        + """
topic = ros.create_topic("/numbers", "std_msgs/UInt64", Ros2QosPolicies(reliable=True))
while not ros._ros.count_publishers("/numbers"):
    time.sleep(0.02)
subscription = ros.create_subscription(topic)
for event in Node():
    if subscription._incompatible.total:
        break
report(subscription.next())
""",
        inputs={"tick": "dora/timer/millis/20"},
    )
    peer("peer", "publish", "/numbers", 1, 1, "best_effort")
    text = flow.run(deadline=90).expect(0).output
    assert flow.reports("reader") == [None]
    assert "publishers of /numbers with an incompatible QoS: reliability" in text, text
    assert "they have best effort, volatile" in text
    assert "the node reliable, volatile, keep_last 1" in text


def test_parameters_are_served_to_other_nodes_and_keep_their_types(
    flow: RosFlow, peer: Peer
) -> None:
    flow.program(
        "server",
        AT_END
        + HEAD
        + """
given = {
    "speed": 1.5,
    "name": "robot",
    "gain": 7,
    "waypoints": [1.0, 2.0, 3.0],
    "flags": [True, False],
    "key": b"ab",
}
ros = context.new_node("params", "/", Ros2NodeOptions(), parameters=given)
assert {name: ros.get_parameter(name) for name in given} == given
assert set(given) < set(ros.list_parameters())
assert ros.has_parameter("speed") and not ros.has_parameter("missing")
assert ros.get_parameter("missing") is None
ros.set_parameter("gain", 8)
ros.set_parameter("key", b"cd")
assert (ros.get_parameter("gain"), ros.get_parameter("key")) == (8, b"cd")


def refused(call):
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return None


for number, wrong in enumerate(
    ({"use_sim_time": 1}, {"x": [1, "two"]}, {"x": [1, True]}, {"x": []}, {"x": 1 << 63})
):
    made = lambda: context.new_node(f"wrong{number}", "/", Ros2NodeOptions(), parameters=wrong)
    report(refused(made))
report(refused(lambda: ros.set_parameter("gain", "text")))
report(refused(lambda: ros.set_parameter("missing", 1)))
# A process that ends takes an answer with it that its reader, on a busy machine, does not have yet.
while not Path("answered").exists():
    time.sleep(0.02)
report(time.monotonic())
ros.set_parameter("gain", 9)
""",
    )
    reader = peer("parameters", "params")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, deadline=90)
        answer = line_of(reader)
        (flow.folder / "answered").touch()
        running.result().expect(0)
    read, successful = json.loads(answer)
    assert read == [1.5, [1.0, 2.0, 3.0], "6364", "robot"]
    assert successful == [True, False]
    words = ["use_sim_time", "one type", "one type", "empty list", "64 bits", "gain", "missing"]
    *refusals, set_s, ended_s = flow.reports("server")
    for text, word in zip(refusals, words, strict=True):
        assert text is not None and word in text
    assert ended_s - set_s > SENT_S  # until the answer to who has set it is there


def test_mistakes_are_errors_of_one_line(flow: RosFlow) -> None:
    flow.program(
        "node",
        HEAD
        + """
qos = Ros2QosPolicies()
for name, call in {
    "type": lambda: ros.create_topic("/t", "nav_msgs/Path", qos),
    "form": lambda: ros.create_topic("/t", "UInt8", qos),
    "topic": lambda: ros.create_topic("/a b", "std_msgs/UInt8", qos),
    "node": lambda: context.new_node("a b", "/", Ros2NodeOptions()),
    "namespace": lambda: context.new_node("a", "/a b", Ros2NodeOptions()),
    "domain": lambda: Ros2Context(domain_id=1000),
    "qos": lambda: ros.create_topic("/t", "std_msgs/UInt8", None),
}.items():
    try:
        call()
    except (RuntimeError, TypeError) as error:
        assert "\\n" not in str(error), error
        report([name, type(error).__name__, str(error)])
""",
    )
    flow.run(deadline=90).expect(0)
    reports = {name: (kind, text) for name, kind, text in flow.reports("node")}
    assert len(reports) == 7
    assert reports.pop("qos") == ("TypeError", "qos must be a Ros2QosPolicies, got NoneType")
    assert {kind for kind, _ in reports.values()} == {"RuntimeError"}
    assert "nav_msgs is not installed" in reports["type"][1]
    assert "write `package/Name`" in reports["form"][1]
    assert "a number from 0 to 232" in reports["domain"][1]


@pytest.mark.parametrize(
    ("executor", "spin"),
    [("SingleThreadedExecutor", "executor.spin"), ("MultiThreadedExecutor", "spin_in_turns")],
)
def test_a_node_may_run_an_executor_of_rclpy_in_a_thread(
    flow: RosFlow, peer: Peer, executor: str, spin: str
) -> None:
    listener = peer("peer", "listen", "/doubled", 98)
    assert line_of(listener) == "ready"
    flow.program(
        "robot",
        f"""
import threading
import time

import pyarrow as pa
import rclpy
from dora import Node
from rclpy.executors import {executor}
from rclpy.node import Node as RosNode
from std_msgs.msg import UInt64


class Robot(RosNode):
    def __init__(self):
        super().__init__("robot")
        self.numbers = []
        self.changed = threading.Condition()
        self.create_subscription(UInt64, "/numbers", self.receive, 1000)
        self.publisher = self.create_publisher(UInt64, "/doubled", 1000)

    def receive(self, message):
        with self.changed:
            self.numbers.append(message.data)


def spin_in_turns():
    while rclpy.ok() and not ended.is_set():
        executor.spin_once(timeout_sec=0.01)


rclpy.init()
ended = threading.Event()
robot = Robot()
executor = {executor}()
executor.add_node(robot)
thread = threading.Thread(target={spin}, daemon=True)
thread.start()
while not robot.publisher.get_subscription_count():
    time.sleep(0.02)
node = Node()
for event in node:
    if event["type"] == "INPUT" and event["id"] == "tick":
        with robot.changed:
            numbers, robot.numbers = robot.numbers, []
        for number in numbers:
            node.send_output("number", pa.array([number]))
    elif event["type"] == "INPUT":
        number = event["value"][0].as_py()
        robot.publisher.publish(UInt64(data=2 * number))
        if number == 49:
            break
robot.publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=30))
ended.set()
executor.shutdown()
thread.join()
robot.destroy_node()
rclpy.shutdown()
""",
        inputs={
            "tick": "dora/timer/millis/10",
            "back": {"source": "pass/number", "queue_size": 1000},
        },
        outputs=["number"],
    )
    flow.node(
        "pass",
        """
from dora import Node

node = Node()
for event in node:
    if event["type"] == "INPUT":
        node.send_output("number", event["value"])
""",
        inputs={"number": {"source": "robot/number", "queue_size": 1000}},
        outputs=["number"],
    )
    peer("peer", "publish", "/numbers", 50, 100)
    flow.run(deadline=90).expect(0)
    assert listened(listener)[0] == list(range(0, 100, 2))
