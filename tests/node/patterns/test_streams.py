"""Stream sessions: numbering, flush, and the reader."""

from typing import Any

from dorad.node.patterns.streams import MAX_SESSIONS, StreamReader, StreamSender
from tests.harness.dataflow import Flow
from tests.node.patterns.test_calls import HEAD

Sent = list[tuple[Any, dict[str, Any]]]


def sender(sent: Sent, session_id: str = "s") -> StreamSender:
    return StreamSender(lambda _, data, metadata: sent.append((data, metadata)), "out", session_id)


def numbers(sent: Sent) -> list[tuple[int, int, bool, bool]]:
    keys = ("segment_id", "seq", "fin")
    return [(*(m[key] for key in keys), m.get("flush", False)) for _, m in sent]


def test_chunks_are_numbered_in_their_segments() -> None:
    sent: Sent = []
    with sender(sent) as stream:
        stream.send(b"a")
        stream.send(b"b", {"note": 1}, fin=True)
        stream.send(b"c")
    assert numbers(sent) == [
        (0, 0, False, False),
        (0, 1, True, False),
        (1, 0, False, False),
        (1, 1, True, False),
    ]
    assert sent[1] == (b"b", {"note": 1, "session_id": "s", "segment_id": 0, "seq": 1, "fin": True})


def test_a_flush_starts_a_segment() -> None:
    sent: Sent = []
    stream = sender(sent)
    stream.send(b"a")
    stream.flush(b"b")
    stream.send(b"c")
    assert numbers(sent) == [(0, 0, False, False), (1, 0, False, True), (1, 1, False, False)]


def test_a_sender_reacts_to_a_flush_of_its_own_session_only() -> None:
    sent: Sent = []
    stream = sender(sent, "mine")
    stream.send(b"a")
    other = {"metadata": {"session_id": "other", "flush": True}}
    assert not stream.react(other)
    assert not stream.react({"metadata": {"session_id": "mine"}})
    assert not stream.react({"type": "STOP", "id": "MANUAL"})
    stream.send(b"b")
    assert stream.react({"metadata": {"session_id": "mine", "flush": True}})
    stream.send(b"c")
    assert [(segment, seq) for segment, seq, _, _ in numbers(sent)] == [(0, 0), (0, 1), (1, 0)]


def event(session: str, segment: int, seq: int, **more: Any) -> dict[str, Any]:
    metadata = {"session_id": session, "segment_id": segment, "seq": seq, "fin": False, **more}
    return {"type": "INPUT", "id": "in", "value": seq, "metadata": metadata}


def test_a_reader_separates_sessions_and_counts_missing_chunks() -> None:
    reader = StreamReader("in")
    chunks = [
        reader.take(item)
        for item in (
            event("a", 0, 0),
            event("b", 0, 0),
            event("a", 0, 3),
            event("a", 1, 0, flush=True),
            event("a", 0, 4),
            event("b", 0, 1, fin=True),
            {"type": "INPUT", "id": "in", "value": 1, "metadata": {}},
            {"type": "STOP", "id": "MANUAL"},
        )
    ]
    assert [chunk and (chunk.session_id, chunk.segment_id, chunk.missing) for chunk in chunks] == [
        ("a", 0, 0),
        ("b", 0, 0),
        ("a", 0, 2),
        ("a", 1, 0),
        None,
        ("b", 0, 0),
        None,
        None,
    ]
    assert chunks[3] is not None
    assert chunks[3].flush
    assert chunks[5] is not None
    assert chunks[5].fin


def test_a_reader_forgets_the_session_that_had_no_chunk_for_longest() -> None:
    reader = StreamReader("in")
    for number in range(MAX_SESSIONS):
        reader.take(event(f"s{number}", 1, 0))
    reader.take(event("s0", 1, 1))
    reader.take(event("another", 0, 0))
    # A void chunk is one of a session that the reader knows.
    assert reader.take(event("s0", 0, 0)) is None
    assert reader.take(event("s2", 0, 0)) is None
    assert reader.take(event("s1", 0, 0)) is not None


def test_a_flush_voids_only_chunks_of_its_session(flow: Flow) -> None:
    flow.node(
        "source",
        HEAD
        + """
one, two = node.open_stream("out", "one"), node.open_stream("out", "two")
for n in range(5):
    one.send(pa.array([n]))
    two.send(pa.array([n]))
node.send_output("out", pa.array([50]), {"request_id": "r", "session_id": "one"})
one.flush(pa.array([99]))
open("sent", "w").close()
""",
        outputs=["out"],
    ).node(
        "reader",
        HEAD
        + """
# All chunks are queued before this node receives: its source has ended.
while not os.path.exists("sent"):
    time.sleep(0.01)
seen = {}
for event in node:
    if event["type"] == "INPUT":
        seen.setdefault(event["metadata"]["session_id"], []).append(event["value"][0].as_py())
report(seen)
""",
        inputs={"in": {"source": "source/out", "queue_size": 100}},
    )
    outcome = flow.run().expect(0)
    assert flow.reports("reader") == [{"one": [50, 99], "two": [0, 1, 2, 3, 4]}]
    assert "5 of 12 messages dropped on source/out -> reader/in" in outcome.output
