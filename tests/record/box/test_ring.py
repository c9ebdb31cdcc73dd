"""The ring of a black box: what is kept, what is removed, what a window of time holds."""

import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.record.box import blackbox, incidents, ring
from dorad.record.box.blackbox import BlackBox, Limits
from dorad.record.box.incidents import Mark
from dorad.record.box.ring import KEPT, Segment, overlapping
from dorad.record.mcap.reader import RecordingReader
from dorad.record.recorder import recorder as module
from dorad.record.recorder import series, settings, syncer
from dorad.record.recorder.recorder import Recorder
from dorad.record.recorder.settings import Settings
from tests.harness.waiting import wait_until
from tests.record.boxes import SECOND, add_segment, at, starts
from tests.record.recorder.test_recorder import item


def ring_of(*starts):
    return [Segment(number, start, f"{number}") for number, start in enumerate(starts)]


@given(st.lists(st.integers(0, 100), min_size=1, unique=True).map(sorted), st.data())
def test_a_window_has_every_segment_that_overlaps_it_and_no_other(starts, data):
    first = data.draw(st.integers(0, 100))
    last = data.draw(st.integers(first, 110))
    found = [each.start_ns for each in overlapping(ring_of(*starts), first, last)]
    ends = [*starts[1:], 10**9]
    assert found == [s for s, e in zip(starts, ends, strict=True) if s <= last and e > first]


@given(st.lists(st.integers(0, 100), min_size=1), st.data())
def test_a_window_has_every_segment_with_its_messages_although_the_clock_is_set(starts, data):
    """A segment may hold messages of its start, and of any time until it ends."""
    known = ring_of(*starts)
    chosen = data.draw(st.sampled_from(known))
    moment = data.draw(st.integers(chosen.start_ns, chosen.start_ns + 50))
    following = starts[chosen.number + 1 : chosen.number + 2]
    if following and not chosen.start_ns <= moment < max(following[0], chosen.start_ns + 1):
        return
    assert chosen in overlapping(known, moment - 1, moment + 1)


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), max_size=12),
    st.integers(1, 60),
    st.none() | st.integers(0, 300),
)
def test_only_the_oldest_segments_are_removed_and_the_newest_stay(files, keep_s, max_bytes):
    known = ring_of(*range(len(files)))
    ages = {each.path: sum(age for age, _ in files[n:]) for n, each in enumerate(known)}
    sizes = {each.path: size for each, (_, size) in zip(known, files, strict=True)}
    removed = ring.surplus(known, sizes, ages, keep_s, max_bytes)
    assert removed == known[: len(removed)]
    left = known[len(removed) :]
    assert len(left) >= min(KEPT, len(known))
    if len(left) > KEPT:
        assert ages[left[0].path] <= keep_s
        assert max_bytes is None or sum(sizes[each.path] for each in left) <= max_bytes
    for each in removed:
        young = ages[each.path] <= keep_s
        if young:
            rest = known[known.index(each) :]
            assert max_bytes is not None
            assert sum(sizes[one.path] for one in rest) > max_bytes


def test_a_recorder_keeps_a_ring_and_links_incidents(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "SEGMENT_S", 0.2)
    monkeypatch.setattr(syncer, "SYNC_S", 0.02)
    recorder = Recorder(Settings(tmp_path, keep_s=1.0, min_free=0), {})
    number = 0

    def record_until(holds):
        nonlocal number

        def step():
            nonlocal number
            recorder.put([item(number)])
            number += 1
            return holds()

        wait_until(step)

    first = ring.segments(tmp_path / ring.RING)[0].path
    record_until(lambda: recorder.progress.files > 2)
    name = incidents.request(tmp_path, Mark(time.time_ns(), 10, 0.3))
    record_until(lambda: not first.exists())
    outcome = recorder.end("test", {})
    assert outcome.complete
    own, _ = incidents.incident(tmp_path, name)
    found = []
    for each in ring.segments(own):
        with RecordingReader(each.path) as reader:
            assert reader.status == "COMPLETE"
            found += [message.sequence for message in reader.messages()]
    assert found == list(range(len(found)))
    assert found


@pytest.mark.parametrize("step_s", [-86_400, 86_400 * 365])
def test_a_clock_that_is_set_costs_no_segment_and_keeps_none_for_ever(
    tmp_path, monkeypatch, step_s
):
    """At its first contact a robot's clock jumps over decades; the last minute must be there."""
    offset = [0]
    real = module.time.time_ns

    class Clock:
        monotonic = staticmethod(module.time.monotonic)
        monotonic_ns = staticmethod(module.time.monotonic_ns)

        @staticmethod
        def time_ns():
            return real() + offset[0]

    for each in (module, blackbox, settings):
        monkeypatch.setattr(each, "time", Clock)
    monkeypatch.setattr(series, "SEGMENT_S", 0.1)
    monkeypatch.setattr(syncer, "SYNC_S", 0.02)
    recorder = Recorder(Settings(tmp_path, keep_s=60.0, min_free=0), {})
    number = 0

    def put():
        nonlocal number
        recorder.put([item(number)])
        number += 1

    def more_files(count):
        put()
        return recorder.progress.files > count

    wait_until(lambda: more_files(3))
    offset[0] = step_s * SECOND
    wait_until(lambda: more_files(6))
    outcome = recorder.end("test", {})
    assert outcome.complete
    found = []
    for each in ring.segments(tmp_path / ring.RING):
        with RecordingReader(each.path) as reader:
            found += [message.sequence for message in reader.messages()]
    assert found == list(range(number))
    # Old ones go by their age, whatever the clock says.
    with closing(BlackBox(tmp_path, Limits(0.01))) as box:
        add_segment(tmp_path, 1000, at(0))
        add_segment(tmp_path, 1001, at(3))

        def pruned():
            box.tend()
            return len(ring.segments(tmp_path / ring.RING)) == KEPT

        wait_until(pruned)


def test_a_second_recorder_is_refused_and_the_next_one_continues_the_numbers(tmp_path):
    recorder = Recorder(Settings(tmp_path, keep_s=60.0, min_free=0), {})
    assert blackbox.has_recorder(tmp_path)
    with pytest.raises(OSError, match="another recorder"):
        Recorder(Settings(tmp_path, keep_s=60.0, min_free=0), {})
    recorder.end("test", {})
    assert not blackbox.has_recorder(tmp_path)
    Recorder(Settings(tmp_path, keep_s=60.0, min_free=0), {}).end("test", {})
    assert [each.number for each in ring.segments(tmp_path / ring.RING)] == [1, 2]


def test_a_nearly_full_disk_costs_the_oldest_segments_that_no_incident_holds(tmp_path):
    with closing(BlackBox(tmp_path, Limits(600))) as box:
        for number in range(10):
            add_segment(tmp_path, number, at(3 * number))
        incidents.create(tmp_path, "one", Mark(at(4), 0.5, 0.5))
        box.make_room(250)
        assert starts(tmp_path / ring.RING) == [3, *range(12, 30, 3)]
        box.make_room(10**9)
    assert starts(tmp_path / ring.RING) == [3, 24, 27]


def test_a_black_box_ends_only_when_there_is_nothing_left_to_remove(tmp_path):
    recorder = Recorder(Settings(tmp_path, keep_s=60.0, min_free=1 << 60), {})
    assert recorder.ended
    assert "--min-free" in recorder.end("test", {}).reason


def test_files_of_others_in_the_ring_stay(tmp_path):
    with closing(BlackBox(tmp_path, Limits(0.0, 0))) as box:
        other = tmp_path / ring.RING / "notes.txt"
        other.write_text("mine")
        for number in range(4):
            add_segment(tmp_path, number, at(number))
        box.tend()
    assert other.exists()
    assert len(ring.segments(tmp_path / ring.RING)) == KEPT
