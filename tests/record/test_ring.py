"""The black box: what is kept, what an incident holds, and what is removed."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.record import ring
from dorad.record.reader import RecordingReader
from dorad.record.receive import MAX_NOTE, mark_of
from dorad.record.recorder import Recorder
from dorad.record.ring import BlackBox, IncidentError, Mark, Segment, overlapping
from dorad.record.settings import Settings
from tests.record.test_recorder import item, until

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def at(second):
    return NOW + int(second * SECOND)


@pytest.fixture
def box(tmp_path):
    """A black box with ten segments of three seconds, which ends at second 30."""
    found = BlackBox(tmp_path, 60, None)
    for number in range(10):
        path = tmp_path / ring.RING / ring.segment_name(at(3 * number), number)
        path.write_bytes(b"x" * 100)
    return found


def names(folder):
    return [int(each.path.name[:19]) - NOW for each in ring.segments(folder)]


@given(st.lists(st.integers(0, 100), min_size=1, unique=True).map(sorted), st.data())
def test_an_incident_holds_every_segment_of_its_window_and_no_other(starts, data):
    first = data.draw(st.integers(0, 100))
    last = data.draw(st.integers(first, 110))
    known = [Segment(start, None) for start in starts]
    found = [each.start_ns for each in overlapping(known, first, last)]
    ends = [*starts[1:], 10**9]
    assert found == [s for s, e in zip(starts, ends, strict=True) if s <= last and e > first]


def test_old_segments_are_removed_and_the_newest_two_stay(box, tmp_path):
    assert ring.prune(tmp_path, 10, None, at(30)) == 6
    assert names(tmp_path / ring.RING) == [n * SECOND for n in (18, 21, 24, 27)]
    ring.prune(tmp_path, 0, None, at(1000))
    assert len(ring.segments(tmp_path / ring.RING)) == 2


def test_a_size_removes_the_oldest_first(box, tmp_path):
    ring.prune(tmp_path, 1000, 350, at(30))
    assert names(tmp_path / ring.RING) == [n * SECOND for n in (21, 24, 27)]


def test_incidents_share_their_segments_with_the_ring(box, tmp_path):
    one = ring.create(tmp_path, "one", Mark(at(15), 5, 5))
    two = ring.create(tmp_path, "two", Mark(at(18), 5, 2))
    assert names(one) == [n * SECOND for n in (9, 12, 15, 18)]
    assert names(two) == [n * SECOND for n in (12, 15, 18)]
    shared = ring.segments(two)[0].path
    assert shared.stat().st_nlink == 3
    ring.prune(tmp_path, 0, None, at(1000))
    assert shared.stat().st_nlink == 2
    ring.remove(tmp_path, "one")
    assert shared.read_bytes() == b"x" * 100


def test_what_comes_after_the_mark_is_linked_until_its_time_is_over(box, tmp_path):
    own = ring.create(tmp_path, "one", Mark(at(30), 5, 5))
    for second in (33, 36):
        (tmp_path / ring.RING / ring.segment_name(at(second), 1)).write_bytes(b"y")
        ring.link_new(tmp_path, at(second))
    assert names(own) == [n * SECOND for n in (24, 27, 33)]


def test_a_request_becomes_an_incident(box, tmp_path):
    mark = Mark(time.time_ns(), 1e9, 5, "why", "command")
    name = ring.request(tmp_path, mark)
    assert box.tend() == [name]
    assert [(own.name, each) for own, each in ring.incidents(tmp_path)] == [(name, mark)]
    assert list((tmp_path / ring.MARKS).iterdir()) == []


def test_requests_that_cannot_be_read_are_dropped(box, tmp_path):
    marks = tmp_path / ring.MARKS
    (marks / "bad.json").write_text("{")
    (marks / "worse.json").write_text('{"time_ns": "x"}')
    (marks / "..x.json").write_text("{}")
    assert box.tend() == []
    assert ring.incidents(tmp_path) == []


def test_a_node_that_marks_in_a_loop_is_stopped(box, tmp_path, monkeypatch):
    monkeypatch.setattr(ring, "MAX_MARKS", 3)
    for _ in range(3):
        ring.request(tmp_path, Mark(NOW))
    with pytest.raises(IncidentError, match="3 requests wait"):
        ring.request(tmp_path, Mark(NOW))
    box.tend()
    ring.request(tmp_path, Mark(NOW))
    assert box.tend() == []
    assert len(ring.incidents(tmp_path)) == 3


def test_a_folder_without_a_black_box_is_refused(tmp_path):
    with pytest.raises(IncidentError, match="not a black box"):
        ring.request(tmp_path, Mark(NOW))
    with pytest.raises(IncidentError, match="no incident 'x'"):
        ring.incident(tmp_path, "x")


def test_a_recorder_keeps_a_ring_and_links_incidents(tmp_path, monkeypatch):
    from dorad.record import recorder as module

    monkeypatch.setattr(module, "SEGMENT_S", 0.2)
    monkeypatch.setattr(module, "SYNC_S", 0.02)
    path = tmp_path / ring.RING / ring.segment_name(time.time_ns(), 0)
    recorder = Recorder(Settings(path, keep_s=1.0, min_free=0), {})
    number = 0

    def record_until(holds):
        nonlocal number

        def step():
            nonlocal number
            recorder.put([item(number)])
            number += 1
            return holds()

        until(step)

    first = ring.segments(tmp_path / ring.RING)[0].path
    record_until(lambda: recorder.progress.files > 2)
    name = ring.request(tmp_path, Mark(time.time_ns(), 10, 0.3))
    record_until(lambda: not first.exists())
    outcome = recorder.end("test", {})
    assert outcome.complete
    own, _ = ring.incident(tmp_path, name)
    found = []
    for each in ring.segments(own):
        with RecordingReader(each.path) as reader:
            assert reader.status == "COMPLETE"
            found += [message.sequence for message in reader.messages()]
    assert found == list(range(len(found)))
    assert found


def test_a_mark_of_a_node_is_read_with_care():
    line = {"node_id": "arm", "message": "x" * 5000, "fields": {"before": 5, "after": -1}}
    mark = mark_of(line, NOW)
    assert (mark.before_s, mark.after_s) == (5.0, 20.0)
    assert len(mark.note) == MAX_NOTE
    assert mark.source == "node arm"
    assert mark_of({"fields": {"before": "soon", "after": True}}, NOW).before_s == 60.0
    assert mark_of({"fields": 7}, NOW).after_s == 20.0


def test_files_of_others_in_the_ring_stay(box, tmp_path):
    other = tmp_path / ring.RING / "notes.txt"
    other.write_text("mine")
    ring.prune(tmp_path, 0, None, at(1000))
    assert other.exists()
