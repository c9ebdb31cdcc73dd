"""A dataflow that is recorded beside real nodes of ROS 2, and replayed without any."""

import itertools
import sys
import textwrap
from pathlib import Path

import yaml
from mcap.reader import make_reader

from tests.harness.commands import run_command
from tests.harness.dataflow import clean_environment, json_lines

from .conftest import Peer

COUNT = 10
SIZE = 200_000

DETECTOR = f"""
    import json
    from pathlib import Path

    import pyarrow as pa
    from dora import Node

    node = Node()
    with open("seen.jsonl", "a") as file:
        for event in node:
            if event["type"] == "INPUT":
                Path("started").touch()
                image = event["value"]
                number = image.field("height")[0].as_py()
                file.write(json.dumps([number, event["metadata"]["stamp_ns"]]) + "\\n")
                found = pa.array([{{"height": number, "encoding": "found"}}])
                node.send_output("found", found, event["metadata"])
                if number == {COUNT - 1}:
                    break
"""


def test_images_are_recorded_exported_as_ros_2_and_replayed_with_their_stamps(
    tmp_path: Path, ros: Path, domain: int, peer: Peer
) -> None:
    image = {"message_type": "sensor_msgs/Image"}
    block = {
        "setup": str(ros),
        "domain_id": domain,
        "topics": [
            {"topic": "/camera", "output": "image", **image},
            {"topic": "/found", "direction": "publish", "input": "found", **image},
        ],
    }
    nodes = [
        {
            "id": "bridge",
            "ros2": block,
            "inputs": {"found": "detector/found"},
            "outputs": ["image"],
        },
        {
            "id": "detector",
            "path": "detector.py",
            "inputs": {"image": {"source": "bridge/image", "queue_size": COUNT}},
            "outputs": ["found"],
        },
    ]
    (tmp_path / "dataflow.yml").write_text(yaml.safe_dump({"nodes": nodes}))
    (tmp_path / "detector.py").write_text(textwrap.dedent(DETECTOR))
    env = clean_environment(Path(sys.executable).parent, {"XDG_RUNTIME_DIR": str(tmp_path)})

    def dora(*arguments: str) -> str:
        done = run_command("dora", arguments, cwd=tmp_path, env=env, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout + done.stderr)

    peer("peer", "image", "/camera", COUNT, 20, SIZE)
    dora("record", "dataflow.yml", "-o", "day.mcap")
    stamps = [[number, number * 1_000_000_000 + 5] for number in range(COUNT)]
    seen = json_lines(tmp_path / "seen.jsonl")
    assert [each for each, _ in itertools.groupby(seen)] == stamps

    dora("record", "export", "day.mcap", "--to", "ros2", "-o", "ros.mcap")
    with (tmp_path / "ros.mcap").open("rb") as file:
        messages = list(make_reader(file).iter_messages())
    for schema, _, _ in messages:
        assert (schema.name, schema.encoding) == ("sensor_msgs/msg/Image", "ros2msg")
    sent = {
        topic: [m.data for _, c, m in messages if c.topic == topic]
        for topic in ("/camera", "/found")
    }
    assert len(sent["/camera"]) == len(sent["/found"]) == len(seen)
    assert sum(len(each) > SIZE for each in sent["/camera"]) == COUNT - 1  # the first has no pixels
    # Sequence of a header's stamp, frame, and the height.
    for received, published in zip(sent["/camera"], sent["/found"], strict=True):
        assert received[:12] == published[:12], "the detector has passed the stamp on"

    (tmp_path / "seen.jsonl").unlink()
    text = dora("replay", "ros.mcap", "--dataflow", "dataflow.yml", "--speed", "0")
    assert "replayed nodes: bridge; running nodes: detector" in text
    assert json_lines(tmp_path / "seen.jsonl") == seen
