"""Recordings of ROS 2: read, cut, exported, replayed into a dataflow; and written of one."""

import json
import re
import shutil
import struct
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mcap.reader import make_reader
from mcap.writer import Writer

from dorad.record.mcap.reader import RecordingReader
from dorad.record.recorder.session import attachments_of
from dorad.ros2.decode import decoder
from dorad.ros2.messagetext import parse_definition
from tests.record import files
from tests.record.files import START

POSE = "float32 x\nfloat32 y\nfloat64[2] covariance\n"
IMU = f"""\
std_msgs/Header header
float64[3] acceleration
{"=" * 80}
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
"""
QOS = {"offered_qos_profiles": "- history: 1"}
COUNT = 20


def pose(number):
    """Return the CDR of a pose."""
    return b"\0\1\0\0" + struct.pack("<ffdd", number, -number, 0.5, number)


def imu(number):
    """Return the CDR of a message with a header, whose stamp is `number` seconds and 3 ns."""
    head = struct.pack("<iII", number, 3, 4) + b"map\0"
    return b"\0\1\0\0" + head + struct.pack("<3d", number, 0, 9.81)


def write_bag(path, damaged=()):
    """Write a recording as ROS 2 does, of COUNT messages of /turtle1/pose and /imu, and one of /tf.

    The numbers in `damaged` are those of messages of /imu that end too early.
    """
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2", "rosbag2_storage_mcap 0.26.1")
        channels = {
            topic: writer.register_channel(
                topic, "cdr", writer.register_schema(name, encoding, text.encode()), QOS
            )
            for topic, name, encoding, text in (
                ("/turtle1/pose", "turtlesim/msg/Pose", "ros2msg", POSE),
                ("/imu", "sensor_msgs/msg/Imu", "ros2msg", IMU),
                ("/tf", "tf2_msgs/msg/TFMessage", "ros2idl", "module tf2_msgs {};"),
            )
        }

        def add(topic, number, data):
            time = START + number * 10_000_000
            writer.add_message(channels[topic], time, data, time, number)

        for number in range(COUNT):
            add("/turtle1/pose", number, pose(number))
            add("/imu", number, imu(number)[: -1 if number in damaged else None])
        add("/tf", COUNT, b"\0\1\0\0")
        writer.add_metadata("rosbag2", {"serialized_metadata": "version: 9"})
        writer.finish()
    return path


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / "drive.mcap")


@pytest.fixture
def run(tmp_path, runtime, monkeypatch, capsys):
    """Run a command of dora in this process; return its exit code, stdout and stderr."""
    from dorad.cli.main import run_command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    def run(*arguments):
        code = run_command(arguments)
        return code, *capsys.readouterr()

    return run


def test_info_shows_topics_with_their_types(bag, run):
    code, out, _ = run("record", "info", "drive.mcap", "--check")
    assert code == 0
    assert re.search(r"status +FOREIGN: a recording of ROS 2 \(rosbag2_storage_mcap", out)
    assert re.search(r"/imu +20 .* sensor_msgs/msg/Imu", out)
    code, out, _ = run("record", "list")
    assert code == 0
    assert re.search(r"drive\.mcap +FOREIGN +41 ", out)


def test_a_file_that_its_recorder_has_not_finished_is_not_complete(bag, run):
    content = bag.read_bytes()
    bag.write_bytes(content[: len(content) // 2])
    code, out, _ = run("record", "info", "drive.mcap")
    assert code != 0
    assert "UNFINISHED" in out


def test_a_cut_stays_a_recording_of_ros_2(bag, run, tmp_path):
    cut = ("record", "cut", "drive.mcap", "--start", "0.05s", "--topics", "/imu", "-o", "cut.mcap")
    assert run(*cut)[0] == 0
    with (tmp_path / "cut.mcap").open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        copied = [
            (schema.name, schema.encoding, channel.topic, channel.metadata, message.data)
            for schema, channel, message in reader.iter_messages()
        ]
    assert copied == [
        ("sensor_msgs/msg/Imu", "ros2msg", "/imu", QOS, imu(number)) for number in range(5, COUNT)
    ]
    code, out, _ = run("record", "info", "cut.mcap")
    assert (code, "FOREIGN" in out) == (0, True)


def test_messages_become_rows_and_those_that_cannot_be_read_are_named(run, tmp_path):
    write_bag(tmp_path / "bad.mcap", damaged=(3, 7))
    code, _, err = run("record", "export", "bad.mcap", "--to", "parquet", "-o", "out")
    assert code == 3
    assert "2 messages of /imu: the message ends after 39 bytes, within a value of 24" in err
    assert "1 message of /tf: the schema of tf2_msgs/msg/TFMessage is 'ros2idl'" in err
    poses = tmp_path / "out" / "turtle1.pose.parquet"
    assert pq.read_table(poses)["data"].to_pylist()[4] == [
        {"x": 4.0, "y": -4.0, "covariance": [0.5, 4.0]}
    ]


FLOW = """
    nodes:
      - id: turtle
        ros2:
          namespace: /turtle1
          setup: nowhere
          topics:
            - {topic: pose, message_type: turtlesim/Pose, output: pose}
            - {topic: /imu, message_type: sensor_msgs/Imu, output: imu}
            - {topic: /imu, message_type: sensor_msgs/Imu, output: copy}
            - {topic: cmd, message_type: geometry_msgs/Twist, direction: publish, input: cmd}
        inputs: {cmd: planner/cmd}
        outputs: [pose, imu, copy]
      - id: planner
        path: planner.py
        inputs: {pose: turtle/pose, imu: turtle/imu, copy: turtle/copy}
        outputs: [cmd]
"""
PLANNER = """
    from collections import Counter
    from dora import Node

    counts, last = Counter(), {}
    for event in Node():
        if event["type"] == "INPUT":
            counts[event["id"]] += 1
            last[event["id"]] = (event["value"].to_pylist(), event["metadata"].get("stamp_ns"))
    print("seen", sorted(counts.items()), flush=True)
    print("last", sorted(last.items()), flush=True)
"""


@pytest.fixture
def flow(tmp_path):
    (tmp_path / "flow.yml").write_text(textwrap.dedent(FLOW))
    (tmp_path / "planner.py").write_text(textwrap.dedent(PLANNER))
    return tmp_path


def test_a_replay_sends_what_the_bridge_would_have_sent_without_any_ros(flow, dora):
    write_bag(flow / "drive.mcap", damaged=(3, 7))
    done = dora(flow, "replay", "drive.mcap", "--dataflow", "flow.yml", "--speed", "0")
    text = done.stdout + done.stderr
    assert f"seen [('copy', {COUNT - 2}), ('imu', {COUNT - 2}), ('pose', {COUNT})]" in text
    row = {"x": 19.0, "y": -19.0, "covariance": [0.5, 19.0]}
    header = {"stamp": {"sec": 19, "nanosec": 3}, "frame_id": "map"}
    sample = {"header": header, "acceleration": [19.0, 0.0, 9.81]}
    last = [
        *((name, ([sample], 19_000_000_003)) for name in ("copy", "imu")),
        ("pose", ([row], None)),
    ]
    assert f"last {last}" in text
    assert "replayed nodes: turtle; running nodes: planner" in text
    assert "recorded, but not an output of this dataflow: /tf" in text
    assert "a message of turtle/imu is skipped: the message ends after 39 bytes" in text
    assert "2 messages of turtle/imu could not be decoded" in text
    assert done.returncode == 1, text


def test_a_topic_of_ros_2_is_sent_as_the_output_of_any_node(bag, flow, dora):
    text = """
        nodes:
          - {id: driver, path: driver.py, outputs: [pose]}
          - {id: planner, path: planner.py, inputs: {pose: driver/pose}}
    """
    (flow / "other.yml").write_text(textwrap.dedent(text))
    names = ("--remap", "/turtle1/pose=driver/pose")
    done = dora(flow, "replay", "drive.mcap", "--dataflow", "other.yml", *names, "--speed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"seen [('pose', {COUNT})]" in done.stdout


def test_a_replay_needs_a_dataflow_with_the_same_types(bag, flow, run):
    code, _, err = run("replay", "drive.mcap")
    assert code == 1
    assert "holds no dataflow: it is a recording of ROS 2" in err
    (flow / "flow.yml").write_text(textwrap.dedent(FLOW).replace("turtlesim/Pose", "a_msgs/Pose"))
    code, _, err = run("replay", "drive.mcap", "--dataflow", "flow.yml")
    assert code == 1
    assert (
        "has /turtle1/pose with the type turtlesim/msg/Pose, the dataflow with a_msgs/Pose" in err
    )


def described(name, *fields):
    """Return the type description of a message as a package installs it; fields of three items."""
    numbers = {"float32": 10, "float64": 11, "float64[2]": 11 + 48}
    made = [
        {
            "name": field,
            "type": {
                "type_id": numbers[kind],
                "capacity": 2 if "[" in kind else 0,
                "string_capacity": 0,
                "nested_type_name": "",
            },
            "default_value": "",
        }
        for field, kind in fields
    ]
    top = {"type_description": {"type_name": name, "fields": made}}
    return {
        "type_description_msg": {**top, "referenced_type_descriptions": []},
        "type_hashes": [{"type_name": name, "hash_string": f"RIHS01_{name}"}],
    }


@pytest.fixture
def prefix(tmp_path):
    """An installation with the types of FLOW, as a venv has it; without rclpy."""
    types = {
        "turtlesim/msg/Pose": [("x", "float32"), ("y", "float32"), ("covariance", "float64[2]")],
        "geometry_msgs/msg/Twist": [("speed", "float64")],
        "sensor_msgs/msg/Imu": [("acceleration", "float64")],
    }
    for name, fields in types.items():
        file = tmp_path / "ros" / "share" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(described(name, *fields)))
    (tmp_path / "ros" / "bin").mkdir()
    (tmp_path / "ros" / "bin" / "python").touch()
    return "ros"


def test_a_recording_of_a_dataflow_becomes_one_of_ros_2(tmp_path, prefix, run):
    row = {"x": 1.0, "y": 2.0, "covariance": [3.0, 4.0]}
    kind = pa.struct(
        [("x", pa.float32()), ("y", pa.float32()), ("covariance", pa.list_(pa.float64()))]
    )
    lines = [
        ("turtle/pose", 0, pa.array([row], kind), {}),
        ("planner/cmd", 5, pa.array([{"speed": 2}]), {}),
        ("planner/cmd", 6, pa.array(["fast"]), {}),
        ("planner/state", 7, pa.array([1]), {}),
    ]
    flow = textwrap.dedent(FLOW).replace("[cmd]", "[cmd, state]").encode()
    files.write(tmp_path / "day.mcap", lines, dataflow=flow)
    export = ("record", "export", "day.mcap", "--to", "ros2", "--ros", prefix, "-o", "ros.mcap")
    code, out, err = run(*export)
    assert code == 3
    assert "ros.mcap: 2 messages" in out
    assert "1 message of planner/cmd (geometry_msgs/msg/Twist): geometry_msgs/msg/Twist must" in err
    assert "no topics of ROS 2, so not exported: planner/state" in err
    with (tmp_path / "ros.mcap").open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        written = [
            (channel.topic, schema, message.log_time, message.data)
            for schema, channel, message in reader.iter_messages()
        ]
    assert [(topic, time) for topic, _, time, _ in written] == [
        ("/turtle1/pose", START),
        ("/turtle1/cmd", START + 5_000_000),
    ]
    assert [(schema.name, schema.encoding) for _, schema, _, _ in written] == [
        ("turtlesim/msg/Pose", "ros2msg"),
        ("geometry_msgs/msg/Twist", "ros2msg"),
    ]
    assert written[0][1].data.decode() == POSE
    assert written[0][3] == b"\0\1\0\0" + struct.pack("<ffdd", 1, 2, 3, 4)
    _, schema, _, cdr = written[1]
    twist = parse_definition(schema.name, schema.data.decode())
    assert decoder(twist)(cdr).to_pylist() == [{"speed": 2.0}]


def test_a_recording_has_the_types_itself(tmp_path, prefix, run, caplog):
    descriptor = yaml.safe_load(FLOW.replace("nowhere", prefix))
    shutil.rmtree(tmp_path / "ros/share/sensor_msgs")
    config = {"descriptor": descriptor, "node_id": "__dora_record__"}
    dataflow, *types = attachments_of(config, {}, tmp_path)
    assert [each.name for each in types] == [
        "ros2/turtlesim/msg/Pose.msg",
        "ros2/geometry_msgs/msg/Twist.msg",
    ]
    assert (
        "does not have the type sensor_msgs/Imu: the ROS 2 package sensor_msgs is not"
        in caplog.text
    )
    shutil.rmtree(tmp_path / "ros")
    lines = [("planner/cmd", 5, pa.array([{"speed": 2}]), {})]
    files.write(tmp_path / "day.mcap", lines, dataflow=dataflow.data, attachments=types)
    code, _, err = run("record", "export", "day.mcap", "--to", "ros2", "-o", "ros.mcap")
    assert code == 0, err
    with RecordingReader(tmp_path / "ros.mcap") as reader:
        (message,) = reader.messages()
        assert message.decode().array.to_pylist() == [{"speed": 2.0}]


def test_an_export_without_the_types_names_what_helps(tmp_path, prefix, run):
    lines = [("turtle/pose", 0, pa.array([{"x": 1.0}]), {})]
    flow = textwrap.dedent(FLOW).encode()
    files.write(tmp_path / "day.mcap", lines, dataflow=flow)
    export = ("record", "export", "day.mcap", "--to", "ros2", "-o", "ros.mcap")
    code, _, err = run(*export)
    assert code == 1
    assert "`setup: nowhere`" in err
    assert "--ros SETUP names a ROS 2 with it" in err
    (tmp_path / "ros/share/turtlesim/msg/Pose.json").unlink()
    code, _, err = run(*export, "--ros", prefix)
    assert code == 1
    assert (
        "the type of /turtle1/pose is unknown: the ROS 2 package turtlesim has no msg/Pose" in err
    )
    assert not (tmp_path / "ros.mcap").exists()
