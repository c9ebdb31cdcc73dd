"""The file for Perfetto, read with Perfetto's own protocol buffers."""

from collections import Counter, defaultdict

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from dorad.control import messages as m
from dorad.record.export.perfetto import perfetto
from dorad.trace.build import as_trace
from tests.trace.recorded import START, Recorded, chain, fed, joined, run_chain, tick

BEGIN, END, INSTANT = (
    pb.TrackEvent.TYPE_SLICE_BEGIN,
    pb.TrackEvent.TYPE_SLICE_END,
    pb.TrackEvent.TYPE_INSTANT,
)


def read(traces: list[m.Trace]) -> tuple[dict[int, str], list[pb.TracePacket]]:
    """Return the tracks by their numbers, with the name of their dataflow, and the events."""
    file = pb.Trace()
    file.ParseFromString(b"".join(perfetto(traces)))
    assert file.packet[0].sequence_flags & pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    assert len({packet.trusted_packet_sequence_id for packet in file.packet}) == 1
    tracks = {}
    for packet in file.packet:
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            if track.HasField("process"):
                tracks[track.uuid] = track.process.process_name
            else:
                tracks[track.uuid] = f"{tracks[track.parent_uuid]}/{track.name}"
    events = [packet for packet in file.packet if packet.HasField("track_event")]
    assert all(packet.track_event.track_uuid in tracks for packet in events)
    return tracks, events


def slices(events: list[pb.TracePacket]) -> dict[int, list[tuple[int, int, str]]]:
    """Return the slices of each track; each ends before the next one begins."""
    found: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    open_: dict[int, tuple[int, str]] = {}
    for packet in events:
        event = packet.track_event
        if event.type == BEGIN:
            assert event.track_uuid not in open_
            open_[event.track_uuid] = (packet.timestamp, event.name)
        elif event.type == END:
            begin, name = open_.pop(event.track_uuid)
            assert begin < packet.timestamp
            found[event.track_uuid].append((begin, packet.timestamp, name))
    assert not open_
    return found


def test_nodes_are_tracks_and_messages_are_arrows():
    nodes = chain()
    for at in (0, 100):
        run_chain(nodes, at)
    traces = [as_trace(tree, "flow") for tree in joined(*nodes)]
    for trace in traces:
        trace.dataflow_name = "robot"
    tracks, events = read(traces)
    assert sorted(tracks.values()) == ["robot", "robot/camera", "robot/detector", "robot/planner"]
    found = {tracks[track]: each for track, each in slices(events).items()}
    begin, end, name = found["robot/detector"][0]
    assert name == "image ← camera/image"
    assert abs(begin - START - 7_000_000) < 1000
    assert abs(end - begin - 10_500_000) < 1000
    begins, ends = defaultdict(list), defaultdict(list)
    for packet in events:
        for flow in packet.track_event.flow_ids:
            begins[flow].append(packet)
        for flow in packet.track_event.terminating_flow_ids:
            ends[flow].append(packet)
    assert begins.keys() == ends.keys()
    ways = Counter()
    for flow, (sent,) in begins.items():
        (received,) = ends[flow]
        assert sent.timestamp <= received.timestamp
        assert (sent.track_event.type, received.track_event.type) == (INSTANT, BEGIN)
        ways[tracks[sent.track_event.track_uuid], tracks[received.track_event.track_uuid]] += 1
    assert ways == {
        ("robot/camera", "robot/detector"): 2,
        ("robot/detector", "robot/planner"): 2,
    }


def test_messages_that_overlap_get_tracks_of_their_own():
    node = Recorded("node", fed(a="source/a", b="source/b"))
    source = Recorded("source", {}, ("a", "b"))
    source.send("a", 0)
    source.send("b", 1)
    node.receive("a", 0, 2, thread=1)
    node.receive("b", 1, 3, thread=2)
    node.done("b", 1, 9, thread=2)
    node.done("a", 0, 10, thread=1)
    tracks, events = read([as_trace(tree, "flow") for tree in joined(source, node)])
    assert Counter(tracks.values()) == {"flow": 1, "flow/node": 2, "flow/source": 1}
    assert [len(each) for each in slices(events).values()] == [1, 1]


def test_drops_and_failures_are_marks():
    camera = Recorded("camera", tick("camera"), ("image",))
    detector = Recorded("detector", fed(image="camera/image"))
    camera.receive("tick", 0, 0)
    camera.send("image", 1, ("tick", 0))
    camera.done("tick", 0, 2)
    detector.drop("image", 5, 1)
    (tree,) = joined(camera, detector)
    trace = as_trace(tree, "flow")
    trace.spans.append(
        m.Span(topic="camera/image", node="x", input="i", sent=0.0, received=0.1, outcome="failed")
    )
    tracks, events = read([trace])
    marks = {
        packet.track_event.name: tracks[packet.track_event.track_uuid]
        for packet in events
        if packet.track_event.type == INSTANT
    }
    assert marks == {
        "send camera/image": "flow/camera",
        "dropped camera/image": "flow/detector",
        "failed at camera/image": "flow/x",
    }


def test_nonsense_from_a_server_gives_a_file_too():
    span = m.Span(topic="", node="", input="", sent=1.0)
    trace = m.Trace(
        id="no hex \udc80", dataflow="\udc80", start=0.0, duration=-1.0, path="", span_count=7,
        spans=[span],
    )  # fmt: skip
    assert b"".join(perfetto([trace]))
