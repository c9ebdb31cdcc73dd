"""`dora trace` of recordings and incidents: why a message was late, after the end."""

import json
from pathlib import Path

import pytest
from mcap.reader import make_reader
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tests.cli import running
from tests.cli.dora import dora
from tests.harness.commands import succeeds
from tests.record.files import numbers, write

FLOW = """
    nodes:
      - id: camera
        path: camera.py
        inputs: {tick: dora/timer/millis/50}
        outputs: [image]
      - id: detector
        path: detector.py
        inputs: {image: camera/image}
        outputs: [boxes]
      - id: planner
        path: planner.py
        inputs: {boxes: detector/boxes}
    record: {keep: 600s}
"""
CAMERA = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for number, event in enumerate(node):
        if number == 40 or event["type"] == "STOP":
            break
        node.send_output("image", pa.array([number]))
"""
DETECTOR = """
    import time
    from dora import Node

    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "INPUT":
            time.sleep(0.5 if number == 20 else 0.002)
            node.send_output("boxes", event["value"])
"""
PLANNER = """
    import os, signal
    from dora import Node

    for event in Node():
        if event["type"] == "INPUT" and event["value"][0].as_py() == 35:
            os.kill(os.getpid(), signal.SIGKILL)
"""
PATH = "camera/tick → camera → detector → planner"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a black box, in which a node has failed."""
    folder = tmp_path_factory.mktemp("flow")
    running.write(folder, FLOW, camera=CAMERA, detector=DETECTOR, planner=PLANNER)
    dora("run", "dataflow.yml", cwd=folder)
    return folder / "recordings"


@pytest.fixture(scope="module")
def incident(box: Path) -> Path:
    """Return the folder of the incident that the failure has made."""
    (own,) = (box / "incidents").iterdir()
    return own


def rows(*words: str | Path) -> list[dict[str, object]]:
    out = succeeds(dora("trace", *map(str, words), "-f", "json"))
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module", params=["folder", "exported"])
def source(request: pytest.FixtureRequest, box: Path, incident: Path) -> Path:
    """Return an incident as its folder, and as one file."""
    if request.param == "folder":
        return incident
    file = box.parent / "incident.mcap"
    succeeds(dora("record", "incidents", str(box), "--export", incident.name, "-o", str(file)))
    return file


@pytest.mark.long
def test_an_incident_says_which_node_made_a_message_late_and_with_what_another_failed(
    source: Path,
) -> None:
    (path,) = (row for row in rows("paths", source) if row["path"] == PATH)
    assert path["worst_ms"] > 500  # type: ignore[operator]
    (slowest,) = rows("list", source, "--slow", "-n", "1", "--through", "planner")
    assert slowest["trace_id"] == path["worst_trace_id"]
    out = succeeds(dora("trace", "view", str(source), str(slowest["trace_id"])[:10]))
    works = {
        line.split()[0]: float(line.split()[-1]) for line in out.splitlines() if " process " in line
    }
    assert max(works, key=lambda node: works[node]) == "detector"
    assert dora("trace", "view", str(source), "--slow").returncode == 0
    (failed,) = rows("list", source, "--failed")
    assert failed["failed"] == 1
    why = dora("trace", "view", str(source), str(failed["trace_id"]))
    assert "planner failed while it worked on detector/boxes" in why.stdout


def test_perfetto_gets_the_hops_of_an_incident(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "incident.pftrace"
    succeeds(dora("trace", "export", str(source), "--perfetto", str(file)))
    trace = pb.Trace.FromString(file.read_bytes())
    names = {packet.track_descriptor.name for packet in trace.packet}
    assert {"camera", "detector", "planner"} <= names
    received = sum(bool(packet.track_event.terminating_flow_ids) for packet in trace.packet)
    assert received >= 30


def test_other_readers_skip_the_hop_records(incident: Path) -> None:
    topics = set()
    for segment in incident.glob("*.mcap"):
        with segment.open("rb") as file:
            for _, channel, _ in make_reader(file).iter_messages():
                topics.add((channel.topic, channel.message_encoding))
    assert ("dora/hops", "msgpack") in topics
    assert {"camera/image", "detector/boxes"} <= {topic for topic, _ in topics}


def with_a_wrong_byte_of_hops(recording: Path) -> bytes:
    """Return a recording in which one byte is wrong, in a chunk that has hop records.

    The middle of the file may be in an index, which a reader of chunks does not use.
    """
    with recording.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    (hops,) = (key for key, each in summary.channels.items() if each.topic == "dora/hops")
    chunk = next(each for each in summary.chunk_indexes if hops in each.message_index_offsets)
    content = bytearray(recording.read_bytes())
    content[chunk.chunk_start_offset + chunk.chunk_length // 2] ^= 0xFF
    return bytes(content)


def test_mistakes_are_explained(incident: Path, tmp_path: Path) -> None:
    old = write(tmp_path / "old.mcap", numbers(3), version="0.1.0")
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(with_a_wrong_byte_of_hops(next(incident.glob("*.mcap"))))
    for words, code, expected in (
        (("paths", old), 1, "made by an older version of dorad (0.1.0)"),
        (("list", tmp_path / "none.mcap"), 2, "does not exist"),
        (("view", tmp_path / "none.mcap", "--slow"), 2, "neither the beginning of an ID nor"),
        (("view", incident), 2, "give an ID"),
        (("view", incident, "0" * 20), 1, "no trace is kept whose id begins with"),
        (("list", incident, "-d", "other"), 1, "no dataflow 'other'"),
        (("export", old, "--perfetto", tmp_path / "x"), 1, "older version"),
        (("paths", damaged), 3, "is damaged"),
        (("list", damaged), 3, "is damaged"),
        (("view", damaged, "--slow"), 3, "is damaged"),
        (("export", damaged, "--perfetto", tmp_path / "lossy"), 3, "is damaged"),
    ):
        done = dora("trace", *map(str, words))
        assert (done.returncode, expected in done.stderr) == (code, True), done.stderr
