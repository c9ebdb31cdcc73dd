"""What does not get through between ROS 2 and a dataflow is counted, and its reason named."""

import json
import re
from pathlib import Path
from typing import Any

from .conftest import Peer, line_of
from .test_classes import RosFlow
from .test_classes import flow as flow
from .test_topics import LOG, WAIT, Bridged

END = """
    node.send_output("done", pa.array([{"data": 1}]))
"""

COLLECT = """
    from pathlib import Path

    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    numbers = []
    for event in node:
        if event["type"] == "INPUT":
            number = event["value"].field("data")[0].as_py()
            if number == 0:
                Path("started").touch()
                continue
            numbers.append(number)
            if number == 29_999:
                break
    report([len(numbers), numbers == sorted(set(numbers))])
"""

DONE = {"topic": "/done", "message_type": "std_msgs/UInt64", "direction": "publish"}


def test_of_a_flood_each_message_is_received_or_counted_as_lost(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    flow = Bridged(tmp_path)
    topic = {"topic": "/numbers", "message_type": "std_msgs/UInt64", "output": "number"}
    flow.bridge(
        ros,
        domain,
        [{**topic, "qos": {"reliable": True, "keep_last": 5}}, DONE],
        inputs={"done": "collect/done"},
        outputs=["number"],
    )
    slow = {"source": "bridge/number", "queue_size": 10, "queue_policy": "backpressure"}
    flow.node("collect", COLLECT + END, inputs={"number": slow}, outputs=["done"])
    peer("peer", "publish", "/numbers", 30_000, 1e9)
    text = flow.run(deadline=90).expect(0).output
    ((received, ordered),) = flow.reports("collect")
    note = r"(\d+) messages of bridge/number -> collect/number were lost before bridge had them"
    match = re.search(note, text)
    lost = 0 if match is None else int(match[1])
    assert ordered
    assert lost > 0
    assert received + lost == 29_999


SEND_WRONG = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for value in (1, "text", 3):
        node.send_output("number", pa.array([{"data": value}]))
"""


def test_a_message_that_ros_cannot_have_is_counted_and_fails_the_run(
    tmp_path: Path, ros: Path, domain: int
) -> None:
    flow = Bridged(tmp_path)
    topic = {"topic": "/numbers", "message_type": "std_msgs/UInt64", "direction": "publish"}
    flow.bridge(ros, domain, [{**topic, "input": "number"}], inputs={"number": "send/number"})
    flow.node("send", SEND_WRONG, outputs=["number"])
    text = flow.run(deadline=90).expect(1).output
    assert "1 messages not published on /numbers: data must be uint64, not string" in text, text
    assert "1 of 3 messages on send/number -> bridge/number could not be read" in text
    assert "node bridge exited with code 1" in text


LOOP = """
    import json

    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    first, second = [], []
    warned = set()
    number = 0
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "tick":
            number += 1
            node.send_output("positive", pa.array([{"data": number}]))
            node.send_output("negative", pa.array([{"data": -number}]))
        elif event["type"] == "INPUT" and event["id"] == "log":
            line = json.loads(event["value"][0].as_py())
            if "another node of this domain has the name /robot" in line["message"]:
                warned.add(line["node_id"])
        elif event["type"] == "INPUT":
            numbers = first if event["id"] == "first" else second
            numbers.append(event["value"].field("data")[0].as_py())
        if len(warned) == 2 and min(len(first), len(second)) > 20:
            break
    report([all(each < 0 for each in first), all(each > 0 for each in second)])
"""


def test_two_bridges_of_one_name_on_a_topic_receive_each_other_and_not_themselves(
    tmp_path: Path, ros: Path, domain: int
) -> None:
    flow = Bridged(tmp_path)
    loop = {"topic": "/loop", "message_type": "std_msgs/Int64"}
    both = [{**loop, "output": "number"}, {**loop, "direction": "publish", "input": "number"}]
    for sent in ("positive", "negative"):
        flow.bridge(ros, domain, both, inputs={"number": f"loop/{sent}"}, outputs=["number"])
    flow.nodes[1]["id"] = "second"
    for each in flow.nodes:
        each["ros2"]["node_name"] = "robot"
    flow.node(
        "loop",
        LOOP,
        inputs={
            "first": {"source": "bridge/number", "queue_size": 1000},
            "second": {"source": "second/number", "queue_size": 1000},
            "tick": "dora/timer/millis/20",
            "log": LOG,
        },
        outputs=["positive", "negative"],
    )
    flow.run(deadline=90).expect(0)
    assert flow.reports("loop") == [[True, True]]


ROBOTS = """
    import sys
    import time
    from pathlib import Path

    import dora  # finds dorad
    import pyarrow as pa
    import rclpy
    from dorad.ros2.definitions import Definitions
    from dorad.ros2.topics import TopicReader, TopicWriter
    from probe import report
    from rclpy.executors import SingleThreadedExecutor
    from std_msgs.msg import UInt64


    def robot():
        context = rclpy.Context()
        rclpy.init(context=context)
        return rclpy.create_node("robot", context=context)


    definitions = Definitions([Path(sys.prefix)])
    endpoint = {"name": "/loop", "type": "std_msgs/UInt64", "qos": {}, "outputs": ["number"]}
    node, twin = robot(), robot()
"""
"""Two nodes of one name in one process, for the endpoints of a bridge."""

TWIN = """
    def publishers():
        infos = node.get_publishers_info_by_topic("/loop")
        return {bytes(each.endpoint_gid) for each in infos if each.node_name == "robot"}


    def create_late(kind, topic, *arguments, **keys):
        node.create_publisher = create
        twin.create_publisher(kind, topic, 10)
        while not publishers():
            time.sleep(0.01)
        theirs.update(publishers())
        return create(kind, topic, *arguments, **keys)


    theirs = set()
    create, node.create_publisher = node.create_publisher, create_late
    writer = TopicWriter(node, endpoint, definitions, None)
    report([len(theirs), writer.gid in publishers() - theirs, len(publishers())])
"""


def test_a_bridge_knows_its_publisher_from_that_of_a_node_of_its_name_that_appears_meanwhile(
    flow: RosFlow,
) -> None:
    flow.program("writer", ROBOTS + TWIN)
    flow.run(deadline=90).expect(0)
    assert flow.reports("writer") == [[1, True, 2]]


ANONYMOUS = """
    class Dataflow:
        received, lost = [], 0

        def send(self, output, array, metadata):
            self.received.append(array.field("data")[0].as_py())

        def count_lost(self, outputs, number, failed=True):
            self.lost += number


    dataflow = Dataflow()
    writer = TopicWriter(node, endpoint, definitions, dataflow)
    reader = TopicReader(node, endpoint, definitions, dataflow, {"/loop": [writer]})
    pass_on = reader._pass_on
    reader._pass_on = lambda cdr, info: pass_on(cdr, {**info, "publisher_gid": None})
    reader.open()
    other = twin.create_publisher(UInt64, "/loop", 100)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    while len(dataflow.received) < 50:
        writer.take({"id": "own", "value": pa.array([{"data": 1}]), "metadata": {}})
        other.publish(UInt64(data=2))
        executor.spin_once(timeout_sec=0.01)
    report([sorted(set(dataflow.received)), dataflow.lost])
"""


def test_a_bridge_knows_its_own_messages_where_ros_does_not_tell_their_publisher(
    flow: RosFlow,
) -> None:
    flow.program("bridge", ROBOTS + ANONYMOUS)
    flow.run(deadline=90).expect(0)
    assert flow.reports("bridge") == [[[2], 0]]


def test_another_type_and_another_version_of_it_are_named_with_both_hashes(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    (file,) = ros.glob("share/std_msgs/msg/UInt64.json")
    text = file.read_text()
    name, wanted = "std_msgs/msg/UInt64", "std_msgs/msg/String"
    hashes = {each["type_name"]: each["hash_string"] for each in json.loads(text)["type_hashes"]}
    changed = f"RIHS01_{'5' * 64}"
    overlay = tmp_path / "overlay" / "share" / "std_msgs" / "msg"
    overlay.mkdir(parents=True)
    (overlay / "UInt64.json").write_text(text.replace(hashes[name], changed))
    (packages,) = ros.glob("lib/python3.*/site-packages")
    libraries = ":".join(map(str, (ros / "lib", *packages.glob("*.libs"))))
    (tmp_path / "setup.bash").write_text(
        f"export AMENT_PREFIX_PATH={tmp_path / 'overlay'}:{ros}\n"
        f"export PYTHONPATH={packages}:$PYTHONPATH LD_LIBRARY_PATH={libraries}\n"
    )
    flow = Bridged(tmp_path)
    topics = [
        {"topic": "/numbers", "message_type": "std_msgs/UInt64", "output": "number"},
        {"topic": "/texts", "message_type": "std_msgs/String", "output": "text"},
        {"topic": "/images", "message_type": "sensor_msgs/Image", "output": "image"},
        {"topic": "/done", "message_type": "std_msgs/UInt64", "direction": "publish"},
    ]
    outputs = ["number", "text", "image"]
    flow.bridge(
        tmp_path / "setup.bash", domain, topics, inputs={"done": "collect/done"}, outputs=outputs
    )
    versions = f" has {name} with the hash {hashes[name]}, the bridge {changed}"
    texts = [
        f"1 publishers of /numbers with another type: /peer{versions}",
        "messages refused on /numbers: ",
        f"1 publishers of /texts with another type: /peer has {name}, the bridge {wanted}",
    ]
    inputs: dict[str, Any] = {each: f"bridge/{each}" for each in outputs}
    flow.node("collect", WAIT.format(texts=texts), inputs={**inputs, "log": LOG}, outputs=["done"])
    for topic in ("/numbers", "/texts"):
        assert line_of(peer("peer", "publish", topic, 100_000, 50)) == "ready"
    peer("peer", "image", "/images", 100_000, 2, 100)
    output = flow.run(deadline=90).expect(1).output
    assert "node bridge exited with code 1" in output
    assert flow.reports("collect") == [["image"]]
    for text in texts:
        assert text in output
    assert re.search(f"messages refused on /numbers: [^ ]+( node)?{versions}", output), output
    assert "bridge/number -> collect/number were lost before bridge had them" in output
