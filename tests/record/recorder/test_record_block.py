"""The key `record` of a dataflow: its checks, and the node that it becomes."""

import shlex
import sys
from pathlib import Path

import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import from_descriptor, parse
from dorad.dataflow.recording import NODE_ID, keep_recorder, recorded
from dorad.dataflow.topology import remove_node
from dorad.record.mcap.reader import RecordingReader
from dorad.record.recorder.leftovers import recover_left
from tests.record.files import numbers, write

NODES = """
nodes:
  - id: camera
    path: camera.py
    outputs: [image, meta]
  - id: arm
    path: arm.py
    inputs: {image: camera/image}
    outputs: [pose]
"""


def flow(block):
    return parse(NODES + block, path=Path("robot.yml"), environ={})


def recorder(dataflow):
    return next(node for node in recorded(dataflow).nodes if node.id == NODE_ID)


def topics(node):
    *inputs, hops = node.inputs
    assert str(hops.source) == "dora/hops"
    return [str(each.source) for each in inputs]


def test_a_dataflow_without_the_key_has_no_recorder():
    dataflow = flow("")
    assert recorded(dataflow) is dataflow


def test_everything_is_recorded_into_a_folder():
    node = recorder(flow("record: {}"))
    assert topics(node) == ["camera/image", "camera/meta", "arm/pose", "dora/logs"]
    assert shlex.split(node.args)[:4] == ["--folder", "recordings", "--name", "robot"]


def test_only_what_records_gets_hop_records():
    recorders = """
  - {id: marks, path: dora-record-node, args: --mark}
  - id: records
    path: dora-record-node
    args: --folder x
    inputs: {a: camera/image, dora___logs: dora/logs}
"""
    dataflow = flow(recorders)
    assert topics(dataflow.node("records")) == ["camera/image", "dora/logs"]
    assert dataflow.node("marks").inputs == ()
    assert topics(parse_again(dataflow).node("records")) == ["camera/image", "dora/logs"]
    # No file can ask for them.
    with pytest.raises(DataflowError, match="`dora/hops` does not exist"):
        flow("  - {id: spy, path: spy.py, inputs: {hops: dora/hops}}")


def parse_again(dataflow):
    return from_descriptor(dataflow.descriptor, path=dataflow.path)


def test_topics_and_exclude_choose():
    assert topics(recorder(flow("record: {topics: [camera]}")))[:-1] == [
        "camera/image",
        "camera/meta",
    ]
    assert topics(recorder(flow("record: {exclude: [camera/image, arm]}")))[:-1] == ["camera/meta"]


def test_a_single_operator_needs_no_name():
    nodes = NODES + "  - {id: find, operator: {python: f.py, outputs: [box, boxes]}}\n"
    for block, expected in (
        ("topics: [find/box]", ["find/op/box"]),
        ("topics: [find]", ["find/op/box", "find/op/boxes"]),
        ("topics: [find/op/box]", ["find/op/box"]),
        ("topics: [find], exclude: [find/box]", ["find/op/boxes"]),
    ):
        found = parse(f"{nodes}record: {{{block}}}", path=Path("robot.yml"), environ={})
        assert topics(recorder(found)) == [*expected, "dora/logs"]


def test_all_settings_reach_the_recorder():
    block = """
record:
  folder: /data/my recordings
  split: 10m
  max_size: 2GB
  min_free: 100MB
  compression: lz4
  queue_size: 50
  user: recorder
"""
    node = recorder(flow(block))
    words = shlex.split(node.args)
    assert words[words.index("--folder") + 1] == "/data/my recordings"
    assert words[words.index("--split-time") + 1] == "600"
    assert words[words.index("--max-size") + 1] == str(2 << 30)
    assert words[words.index("--min-free") + 1] == str(100 << 20)
    assert node.inputs[0].queue_size == 50
    assert node.user == "recorder"


@pytest.mark.parametrize(
    ("block", "line", "text"),
    [
        ("record: 5", 10, "mapping"),
        ("record: {keep: 0s}", 10, "a second or more"),
        ("record: {keep: soon}", 10, "not a time"),
        ("record: {split: often}", 10, "neither a size nor a time"),
        ("record: {split: 100}", 10, "less than 1MB"),
        ("record: {keep: 60s, split: 5m}", 10, "goes not with `keep`"),
        ("record: {topics: [camera/imge]}", 10, "camera/image"),
        ("record: {compression: gzip}", 10, "must be one of"),
        ("record: {queue_size: 0}", 10, "from 1 to 65536"),
        ("record:\n  output: x", 11, "write `folder`"),
        ("record:\n  topic: [camera]", 11, "topics"),
    ],
)
def test_mistakes_have_a_place_and_a_reason(block, line, text):
    with pytest.raises(DataflowError) as caught:
        flow(block)
    (problem,) = caught.value.problems
    assert problem.line == line
    assert text in str(problem)


def test_the_descriptor_records_again():
    dataflow = flow("record: {keep: 60s, topics: [arm]}")
    again = from_descriptor(dataflow.descriptor, path=Path("robot.yml"))
    assert recorder(again) == recorder(dataflow)


def test_a_change_of_the_dataflow_keeps_the_recorder():
    before = recorded(flow("record: {}"))
    after = remove_node(before, "arm")
    node = next(each for each in after.nodes if each.id == NODE_ID)
    assert topics(node) == ["camera/image", "camera/meta", "dora/logs"]
    assert keep_recorder(before, after) is after


def test_files_that_a_crash_has_left_are_recovered_at_the_next_start(tmp_path):
    whole = write(tmp_path / "whole.mcap", numbers(30)).read_bytes()
    (tmp_path / "crashed.mcap").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mcap").write_bytes(b"")
    lines = [line for _, line in recover_left(sorted(tmp_path.iterdir()))]
    assert (tmp_path / "whole.mcap").read_bytes() == whole
    with RecordingReader(tmp_path / "crashed.mcap") as reader:
        assert reader.status == "RECOVERED"
    (line,) = lines
    assert "crashed.mcap after a crash" in line


def test_the_recorder_runs_in_dora_s_own_environment():
    from dorad.launch.command import LaunchContext, command_for

    dataflow = recorded(flow("record: {}"))
    context = LaunchContext(dataflow, {"VIRTUAL_ENV": "/nowhere", "PATH": "/usr/bin"})
    argv = command_for(recorder(dataflow), context, "").argv
    assert argv[:4] == (sys.executable, "-P", "-m", "dorad.record.recorder.node")
    assert "--folder" in argv
