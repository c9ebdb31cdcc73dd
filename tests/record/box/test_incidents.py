"""Incidents of a black box: what one holds, who may ask for one, and how they go."""

import json
import os
import time
from contextlib import closing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.record.box import incidents, ring
from dorad.record.box.blackbox import BlackBox, Limits
from dorad.record.box.incidents import MAX_NOTE, IncidentError, Mark
from dorad.record.recorder.inputs import mark_of
from tests.record.boxes import NOW, SECOND, add_segment, at, starts


@pytest.fixture
def box(tmp_path):
    """A black box with ten segments of three seconds, which ends at second 30."""
    with closing(BlackBox(tmp_path, Limits(10**9))) as found:
        for number in range(10):
            add_segment(tmp_path, number, at(3 * number))
        yield found


def bytes_of(own):
    return sum(size for _, size in incidents.files_of(own))


def empty_ring(folder):
    for each in ring.segments(folder / ring.RING):
        each.path.unlink()


def test_incidents_share_their_segments_with_the_ring(box, tmp_path):
    one = incidents.create(tmp_path, "one", Mark(at(15), 5, 5))
    two = incidents.create(tmp_path, "two", Mark(at(18), 5, 2))
    assert starts(one) == [9, 12, 15, 18]
    assert starts(two) == [12, 15, 18]
    shared = ring.segments(two)[0].path
    assert shared.stat().st_nlink == 3
    empty_ring(tmp_path)
    assert shared.stat().st_nlink == 2
    incidents.remove(tmp_path, "one")
    assert shared.read_bytes() == b"x" * 100


def test_what_comes_after_the_mark_is_linked_until_its_time_is_over(box, tmp_path):
    own = incidents.create(tmp_path, "one", Mark(at(30), 5, 5))
    for number, second in ((10, 33), (11, 36)):
        add_segment(tmp_path, number, at(second))
        incidents.link_new(tmp_path, at(second))
    assert starts(own) == [24, 27, 33]


def test_a_request_becomes_an_incident(box, tmp_path):
    mark = Mark(time.time_ns(), 1e9, 5, "why", "command")
    name = incidents.request(tmp_path, mark)
    assert box.tend() == [name]
    assert [(own.name, each) for own, each in incidents.incidents(tmp_path)] == [(name, mark)]
    assert list((tmp_path / incidents.MARKS).iterdir()) == []


def test_requests_that_cannot_be_read_are_dropped(box, tmp_path):
    marks = tmp_path / incidents.MARKS
    (marks / "bad.json").write_text("{")
    (marks / "worse.json").write_text('{"time_ns": "x"}')
    (marks / "deep.json").write_text('{"x":' + "[" * 10_000)
    (marks / "..x.json").write_text("{}")
    assert box.tend() == []
    assert incidents.incidents(tmp_path) == []


def test_half_a_request_of_a_killed_process_is_removed_at_the_next_start(box, tmp_path):
    left = tmp_path / incidents.MARKS / ".20260501-101500-3f2a.json.0123abcd"
    left.write_text("{")
    box.close()
    BlackBox(tmp_path, Limits(10**9)).close()
    assert not left.exists()


@pytest.mark.timeout(30)
def test_nothing_that_a_node_puts_beside_incidents_blocks_or_fills_who_lists_them(box, tmp_path):
    incidents.create(tmp_path, "good", Mark(at(15), 5, 5))
    above = tmp_path / incidents.INCIDENTS
    for name in ("pipe", "endless", "huge", "folder"):
        (above / name).mkdir()
    os.mkfifo(above / "pipe" / incidents.INFO)
    (above / "endless" / incidents.INFO).symlink_to("/dev/zero")
    with (above / "huge" / incidents.INFO).open("wb") as file:
        file.truncate(1 << 40)
    (above / "folder" / incidents.INFO).mkdir()
    (above / "file").touch()
    (above / "link").symlink_to(above / "good")
    (above / os.fsdecode(b"\xff")).mkdir()
    assert [own.name for own, _ in incidents.incidents(tmp_path)] == ["good"]


def test_an_incident_whose_removal_was_interrupted_can_still_be_removed(box, tmp_path, monkeypatch):
    own = incidents.create(tmp_path, "one", Mark(at(15), 5, 5))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", interrupted)
        incidents.remove(tmp_path, "one")
    assert starts(own) == []
    incidents.remove(tmp_path, "one")
    assert not own.exists()


def interrupted(_path):
    raise KeyboardInterrupt


def test_a_node_that_marks_in_a_loop_is_stopped(box, tmp_path, monkeypatch):
    monkeypatch.setattr(incidents, "MAX_MARKS", 3)
    for _ in range(3):
        incidents.request(tmp_path, Mark(NOW))
    with pytest.raises(IncidentError, match="3 requests wait"):
        incidents.request(tmp_path, Mark(NOW))
    box.tend()
    incidents.request(tmp_path, Mark(NOW))
    assert box.tend() == []
    assert len(incidents.incidents(tmp_path)) == 3


def test_a_folder_without_a_black_box_is_refused(tmp_path):
    with pytest.raises(IncidentError, match="not a black box"):
        incidents.request(tmp_path, Mark(NOW))
    with pytest.raises(IncidentError, match="no incident 'x'"):
        incidents.incident(tmp_path, "x")


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 10)), max_size=8),
    st.none() | st.integers(1, 100),
    st.none() | st.integers(0, 40),
)
def test_old_incidents_go_and_the_oldest_beyond_the_size(tmp_path_factory, made, keep_s, size):
    """Their segments are their own here, so that sizes add up."""
    folder = tmp_path_factory.mktemp("box")
    known = []
    for number, (age, length) in enumerate(sorted(made, reverse=True)):
        own = folder / f"{number}"
        own.mkdir()
        (own / "1.mcap").write_bytes(b"x" * length)
        known.append((own, Mark(at(-age), 1, 0)))
    now = at(2 * ring.SEGMENT_S + 1)
    removed = incidents.surplus(known, keep_s, size, now)
    assert removed == [own for own, _ in known[: len(removed)]]
    left = known[len(removed) :]
    if left:
        assert keep_s is None or left[0][1].time_ns >= now - keep_s * SECOND
        assert size is None or sum(bytes_of(own) for own, _ in left) <= size
    assert removed == [] if keep_s is None and size is None else True


def test_shared_segments_count_once_and_a_recent_incident_stays(box, tmp_path):
    for name in ("one", "two"):
        incidents.create(tmp_path, name, Mark(at(15), 5, 5))
    known = incidents.incidents(tmp_path)
    assert incidents.surplus(known, None, 400, at(100)) == []
    assert len(incidents.surplus(known, None, 399, at(100))) == 2
    assert incidents.surplus(known, None, 0, at(21)) == []


def test_a_black_box_removes_incidents_beyond_its_limits(tmp_path):
    with closing(BlackBox(tmp_path, Limits(10**9, incident_s=60.0))) as box:
        add_segment(tmp_path, 1, at(0))
        incidents.create(tmp_path, "old", Mark(at(0), 5, 5))
        incidents.create(tmp_path, "new", Mark(time.time_ns(), 5, 5))
        box.tend()
    assert [own.name for own, _ in incidents.incidents(tmp_path)] == ["new"]


def test_a_mark_of_a_node_is_read_with_care():
    line = {"node_id": "arm", "message": "x" * 5000, "fields": {"before": 5, "after": -1}}
    mark = mark_of(line, NOW)
    assert (mark.before_s, mark.after_s) == (5.0, 20.0)
    assert len(mark.note) == MAX_NOTE
    assert mark.source == "node arm"
    assert mark_of({"fields": {"before": "soon", "after": True}}, NOW).before_s == 60.0
    assert mark_of({"fields": 7}, NOW).after_s == 20.0
    for value, taken in ((0, 0.0), (86_400, 86_400.0), (-1, None), (86_401, None)):
        mark = mark_of({"fields": {"before": value, "after": value}}, NOW)
        assert (mark.before_s, mark.after_s) == ((60.0, 20.0) if taken is None else (taken, taken))


@pytest.mark.parametrize("field", ["time_ns", "before_s", "after_s"])
@pytest.mark.parametrize("value", [-1, 1e300, 1 << 64])
def test_a_request_for_an_impossible_time_makes_no_incident(box, tmp_path, field, value):
    request = msgspec.to_builtins(Mark(at(15))) | {field: value}
    (tmp_path / incidents.MARKS / "one.json").write_text(json.dumps(request))
    assert box.tend() == []
