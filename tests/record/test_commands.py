"""`dora record`, `dora replay` and `dora diff` as a user calls them, with real nodes."""

import json
import os
import re
import signal
import subprocess
import textwrap

import pytest
from mcap.writer import Writer

from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.recovery import recover
from dorad.record.replay.client import ReplayControl
from tests.cli.running import write
from tests.harness.commands import succeeds
from tests.harness.waiting import wait_until
from tests.record.conftest import BIN, DEADLINE_S

FLOW = """
    nodes:
      - id: source
        path: source.py
        env: {TOKEN: a-secret}
        inputs: {tick: dora/timer/millis/5}
        outputs: [number, picture]
      - id: worker
        path: worker.py
        inputs:
          number: {source: source/number, queue_size: 1000}
          tick: dora/timer/millis/20
        outputs: [sum]
      - id: sink
        path: sink.py
        inputs:
          sum: {source: worker/sum, queue_size: 1000}
          picture: {source: source/picture, queue_size: 1000}
"""
SOURCE = """
    import os
    import pyarrow as pa
    from dora import Node

    node = Node()
    number, last = 0, int(os.environ.get("LAST", "60"))
    for event in node:
        if event["type"] == "STOP":
            node.send_output("number", pa.array([-1]), {"n": -1})
            break
        node.send_output("number", pa.array([number]), {"n": number})
        shape = {"width": 8, "height": 4, "encoding": "mono8"}
        node.send_output("picture", bytes([number % 256] * 32), shape)
        number += 1
        if number == last:
            break
"""
WORKER = """
    import pyarrow as pa
    from dora import Node

    total = 0
    node = Node()
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "number":
            total += event["value"][0].as_py()
            node.send_output("sum", pa.array([{"total": total}]), {"n": event["metadata"]["n"]})
"""
SINK = """
    from dora import Node

    seen = {"sum": 0, "picture": 0}
    for event in Node():
        if event["type"] == "INPUT":
            seen[event["id"]] += 1
    print("seen", seen["sum"], seen["picture"], flush=True)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, dora):
    """A folder with a dataflow, and its recording `a.mcap` of 60 messages."""
    folder = tmp_path_factory.mktemp("recorded")
    write(folder, FLOW, source=SOURCE, worker=WORKER, sink=SINK)
    done = dora(folder, "record", "dataflow.yml", "-o", "a.mcap", "--exit-when-nodes-finish")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "COMPLETE: 180 messages of 3 topics" in done.stdout
    return folder


def values(path, topic):
    with RecordingReader(path) as reader:
        return [each.decode().array[0].as_py() for each in reader.messages(topics={topic})]


def test_a_recording_has_every_message_from_the_first_to_the_last(recorded):
    assert values(recorded / "a.mcap", "source/number") == list(range(60))
    assert len(values(recorded / "a.mcap", "source/picture")) == 60
    with RecordingReader(recorded / "a.mcap") as reader:
        assert b"worker.py" in reader.attachment("dataflow.yml")
        assert b"a-secret" not in reader.attachment("dataflow.yml")
        assert b"__dora_record__" not in reader.attachment("dataflow.yml")


def test_info_shows_topics_and_status(recorded, dora):
    out = succeeds(dora(recorded, "record", "info", "a.mcap", "--format", "json"))
    found = json.loads(out)
    assert found["status"] == "COMPLETE"
    assert found["topics"]["source/number"] == {"messages": 60, "types": ["int64"]}
    plain = dora(recorded, "record", "info", "a.mcap")
    assert plain.returncode == 0
    assert "source/number" in plain.stdout
    assert "foxglove" not in plain.stderr


def test_replay_feeds_the_nodes_that_run(recorded, dora):
    out = succeeds(dora(recorded, "replay", "a.mcap", "--speed", "0"))
    assert "seen 60 60" in out
    assert "replayed 180 messages" in out


def test_a_replay_names_what_is_damaged_and_fails(recorded, dora, tmp_path):
    content = bytearray((recorded / "a.mcap").read_bytes())
    with RecordingReader(recorded / "a.mcap") as reader:
        total = sum(n for topic, n in reader.topics().items() if topic == "source/number")
        chunk = next(each for each in reader._chunks if each.channels)
    content[chunk.offset + chunk.length - 3] ^= 1
    (tmp_path / "bad.mcap").write_bytes(content)
    done = dora(recorded, "replay", str(tmp_path / "bad.mcap"), "--speed", "0", "--live", "worker")
    assert done.returncode == 1
    lost = re.search(
        r"is damaged: missing (\d+) messages? of source/number", done.stdout + done.stderr
    )
    assert lost, done.stdout + done.stderr
    assert 0 < int(lost[1]) <= total


def test_a_running_node_is_compared_step_by_step(recorded, dora):
    out = succeeds(dora(recorded, "replay", "a.mcap", "--assert", "--step"))
    assert "60 messages are equal" in out


def test_a_changed_node_fails_at_its_first_difference(recorded, dora):
    changed = WORKER.replace('"total": total', '"total": total + (total > 100)')
    write(recorded, FLOW, changed=changed)
    done = dora(
        recorded, "replay", "a.mcap", "--replace", "worker=changed.py", "--assert", "--step"
    )
    assert done.returncode == 1
    assert "worker/sum, message 14, data[0].total: expected 105, got 106" in done.stderr
    again = dora(
        recorded,
        *("replay", "a.mcap", "--replace", "worker=changed.py", "--assert", "--speed", "0"),
        *("--tolerance", "worker/*=1"),
    )
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_replay_is_recorded_equal_to_its_source(recorded, dora):
    succeeds(dora(recorded, "replay", "a.mcap", "--output-yaml", "replayed.yml", "--speed", "0"))
    succeeds(dora(recorded, "record", "replayed.yml", "-o", "b.mcap", "--exit-when-nodes-finish"))
    assert values(recorded / "b.mcap", "__dora_replay__/source/number") == list(range(60))
    done = dora(recorded, "diff", "a.mcap", "b.mcap")
    assert done.returncode == 1
    assert "source/number, message 0: expected 1 x int64, got no message" in done.stdout


def test_a_replay_is_paused_stepped_and_sped_up_by_another_process(
    recorded, dora, runtime, monkeypatch
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with subprocess.Popen(
        [BIN / "dora", "replay", "a.mcap", "--pause"],
        cwd=recorded,
        env=dora.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        with ReplayControl(process.pid) as control:
            assert control.step() == control.step() == "paused"
            assert control.resume() == "speed 1"
            assert control.pause() == "paused"
            assert control.set_speed(0) == "paused"
            with pytest.raises(ValueError, match="not a speed"):
                control.set_speed(-1)
            assert control.resume() == "speed 0"
            out, _ = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, out
            assert "replayed 180 messages" in out
            with pytest.raises(RuntimeError, match="has ended"):
                control.pause()


def test_ranges_and_topics_limit_a_replay(recorded, dora):
    done = dora(
        recorded,
        *("replay", "a.mcap", "--speed", "0", "--topics", "source/picture", "--end", "0.1s"),
    )
    assert done.returncode == 0, done.stderr
    (count,) = [int(w) for w in done.stdout.split("seen 0 ")[1].split()[:1]]
    assert 0 < count < 60


def test_a_replay_names_what_a_changed_dataflow_no_longer_has(recorded, dora):
    changed = textwrap.dedent(FLOW).replace("id: worker", "id: adder").replace("worker/", "adder/")
    (recorded / "changed.yml").write_text(changed)
    done = dora(recorded, "replay", "a.mcap", "--dataflow", "changed.yml", "--speed", "0")
    assert done.returncode == 0, done.stderr
    assert "recorded, but not an output of this dataflow: worker/sum" in done.stderr


@pytest.mark.long
def test_a_topic_gets_another_name_in_a_replay(recorded, dora):
    """The node was renamed since: what it sends is compared with what its old name has sent."""
    changed = textwrap.dedent(FLOW).replace("id: worker", "id: adder").replace("worker/", "adder/")
    (recorded / "renamed.yml").write_text(changed)
    remap = ("--dataflow", "renamed.yml", "--remap", "worker/sum=adder/sum")
    out = succeeds(dora(recorded, "replay", "a.mcap", *remap, "--assert", "--step"))
    assert "60 messages are equal" in out
    done = dora(recorded, "replay", "a.mcap", *remap, "--speed", "0")
    assert "replayed nodes: source, adder; running nodes: sink" in done.stderr
    assert "seen 60 60" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("record",), 2, "Usage"),
        (("replay", "a.mcap", "--remap", "x"), 2, "is not NODE/OUTPUT=NODE/OUTPUT"),
        (("replay", "a.mcap", "--remap", "x/y=source/number"), 1, "recording has no topic 'x/y'"),
        (("replay", "a.mcap", "--remap", "worker/sum=worker/x"), 1, "dataflow has no topic"),
        (("replay", "a.mcap", "--remap", "worker/sum=source/number"), 2, "one topic source/number"),
        (("record", "nope.yml"), 1, "no such file"),
        (("record", "dataflow.yml", "--topics", "source/nmuber"), 1, "source/number"),
        (("record", "dataflow.yml", "-o", "a.mcap"), 1, "exists already"),
        (("record", "dataflow.yml", "-o", "nope/a.mcap"), 1, "no folder"),
        (("record", "dataflow.yml", "--split", "7"), 2, "less than 1MB"),
        (("record", "dataflow.yml", "--split", "often"), 2, "neither a size"),
        (("record", "dataflow.yml", "--attach", "demo"), 2, "give PATH"),
        (("record", "--attach", "demo"), 1, "no dorad is running"),
        (("record", "info", "dataflow.yml"), 1, "is not a recording"),
        (("record", "recover", "dataflow.yml"), 1, "cannot be recovered"),
        (("replay", "dataflow.yml"), 1, "is not a recording"),
        (("replay", "a.mcap", "--live", "wroker"), 1, "worker"),
        (("replay", "a.mcap", "--topics", "x/y"), 1, "no topic"),
        (("replay", "a.mcap", "--start", "yesterday"), 2, "neither a time"),
        (("replay", "a.mcap", "--loop", "--assert"), 2, "--loop"),
        (("replay", "a.mcap", "--tolerance", "1"), 2, "--assert"),
        (("replay", "a.mcap", "--assert", "--replace", "source,worker"), 1, "nothing to compare"),
        (("diff", "a.mcap", "a.mcap", "--topics", "x/y"), 1, "x/y"),
        (("diff", "a.mcap", "a.mcap", "--tolerance", "x"), 2, "--tolerance"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_explained(recorded, arguments, code, text, runtime, monkeypatch, capsys):
    from dorad.cli.main import run_command as run_here

    monkeypatch.chdir(recorded)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    found = run_here(arguments)
    err = capsys.readouterr().err
    assert found == code, err
    assert text in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("record", "info"), 0, "FOREIGN: a recording of ROS 2 (rosbag2)"),
        (("replay",), 1, "holds no dataflow: it is a recording of ROS 2 (rosbag2)"),
        (("diff", "day.mcap"), 1, "the message is not little-endian plain CDR"),
    ],
)
def test_a_file_of_another_program_is_named_as_such(
    tmp_path, arguments, code, words, monkeypatch, capsys
):
    from dorad.cli.main import run_command as run_here

    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2", "rosbag2")
        schema = writer.register_schema("sensor_msgs/msg/Imu", "ros2msg", b"int32 x")
        writer.add_message(writer.register_channel("/imu", "cdr", schema), 5, b"abcd", 5)
        writer.finish()
    (tmp_path / "day.mcap").write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run_here((*arguments, "drive.mcap")) == code
    found = capsys.readouterr()
    assert "Traceback" not in found.err
    assert words in found.out + found.err


def test_the_last_messages_after_a_stop_are_recorded(recorded, dora):
    out = recorded / "stopped.mcap"
    process = subprocess.Popen(
        [BIN / "dora", "record", "dataflow.yml", "-o", str(out)],
        cwd=recorded,
        env=dora.environ | {"LAST": "1000000"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_messages(out, process)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, text
    found = values(out, "source/number")
    assert found[-1] == -1
    assert found[:-1] == list(range(len(found) - 1))


def test_a_killed_recorder_leaves_a_file_that_recovers(recorded, dora):
    out = recorded / "killed.mcap"
    process = subprocess.Popen(
        [BIN / "dora", "record", "dataflow.yml", "-o", str(out)],
        cwd=recorded,
        env=dora.environ | {"LAST": "1000000"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_messages(out, process)
        with RecordingReader(out) as reader:
            recorder = int(reader.metadata["dora.recording"]["pid"])
        os.kill(recorder, signal.SIGKILL)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 1
    finally:
        process.kill()
        process.wait()
    done = recover(out)
    found = values(out, "source/number")
    assert found == list(range(len(found)))
    assert found
    assert not done.ended
    assert dora(recorded, "record", "info", out.name).returncode == 1


def wait_for_messages(path, process):
    """Wait until a recording holds some messages."""

    def recorded():
        if not path.exists() or path.stat().st_size <= 8:
            return 0
        with RecordingReader(path) as reader:
            return sum(reader.counts.values())

    wait_until(lambda: process.poll() is not None or recorded() > 20)
    assert process.poll() is None
