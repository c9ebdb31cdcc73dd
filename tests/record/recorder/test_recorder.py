"""The recorder's threads: what is put is in the file, or counted as dropped."""

import json
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from mcap.reader import make_reader

from dorad.record.box.ring import RING
from dorad.record.encoding.extras import CONTROL_TOPIC, event
from dorad.record.encoding.messages import Encoded
from dorad.record.mcap.items import Item, size_of
from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.writer import RecordingFile
from dorad.record.recorder import outcome as lines
from dorad.record.recorder import recorder as module
from dorad.record.recorder import syncer
from dorad.record.recorder.outcome import RecordingOutcome
from dorad.record.recorder.recorder import Recorder
from dorad.record.recorder.series import FileSeries
from dorad.record.recorder.settings import MIN_FREE, Settings, min_free
from dorad.record.recorder.syncer import Syncer
from dorad.shm.layout import CODE_NULL
from tests.harness.waiting import DEADLINE_S, wait_until
from tests.record.files import START, raw


def item(number, topic="a/b", values=1):
    content = raw(pa.array([number] * values))
    return Item(START + number * 1000, topic, number, (*content, b""))


def sequences(path):
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        return [message.sequence for _, _, message in reader.iter_messages()]


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "a.mcap", min_free=0)


def test_everything_that_is_put_is_recorded(settings):
    recorder = Recorder(settings, {"id": "x"})
    for first in range(0, 1000, 10):
        recorder.put([item(number) for number in range(first, first + 10)])
    outcome = recorder.end("test", {})
    assert outcome.complete
    assert outcome.messages == 1000
    assert sequences(settings.path) == list(range(1000))
    with RecordingReader(settings.path) as reader:
        assert reader.status == "COMPLETE"
        assert reader.metadata["dora.recording"]["id"] == "x"
        assert reader.metadata["dora.end"]["reason"] == "test"


def test_drops_make_the_recording_incomplete(settings):
    recorder = Recorder(settings, {})
    recorder.put([item(0)])
    outcome = recorder.end("test", {"a/b": 3, "c/d": 0})
    assert not outcome.complete
    assert outcome.dropped == {"a/b": 3}
    with RecordingReader(settings.path) as reader:
        assert reader.status == "INCOMPLETE"
        assert reader.metadata["dora.end"]["dropped.a/b"] == "3"


def test_a_chunk_is_written_soon_after_its_first_message(settings):
    recorder = Recorder(settings, {})
    recorder.put([item(0)])

    def written():
        with RecordingReader(settings.path) as reader:
            return reader.counts

    wait_until(written)
    recorder.end("test", {})


def test_a_slow_disk_drops_counts_and_never_blocks_put(settings, monkeypatch):
    free = threading.Event()
    write = RecordingFile.write_chunk

    def slow(self, chunk):
        free.wait(DEADLINE_S)
        write(self, chunk)

    monkeypatch.setattr(RecordingFile, "write_chunk", slow)
    recorder = Recorder(Settings(settings.path, min_free=0, memory=4 << 20), {})
    total = 40
    for number in range(total):  # 16 MB in all
        recorder.put([item(number, values=50_000)])
    free.set()
    outcome = recorder.end("test", {})
    assert not outcome.complete
    dropped = outcome.dropped["a/b"]
    assert dropped > 0
    assert outcome.messages + dropped == total
    assert len(sequences(settings.path)) == total - dropped


@pytest.fixture
def stuck(monkeypatch):
    """A disk that syncs nothing until the event is set."""
    free, sync = threading.Event(), os.fdatasync

    def slow(descriptor):
        free.wait(DEADLINE_S)
        sync(descriptor)

    monkeypatch.setattr(syncer.os, "fdatasync", slow)
    yield free
    free.set()


def test_what_a_disk_cannot_take_does_not_pile_up_in_the_page_cache(settings, stuck, monkeypatch):
    """A power cut would lose all of it, and the end of the recorder would have to wait for it."""
    monkeypatch.setattr(syncer, "FIRST_AHEAD", 1 << 20)
    monkeypatch.setattr(syncer, "SYNC_S", 0.01)
    files = FileSeries(settings, {}, ())
    files.file.add_raw("a/b", 0, START, *raw(pa.array([0] * 300_000)), b"")
    files.file.flush()
    failed = []
    thread = Syncer(files, settings, None, failed.append)
    thread.start()
    answers = iter([False, False, True])
    thread.wait_for_disk(lambda: next(answers))
    assert list(answers) == []
    stuck.set()
    thread.wait_for_disk(lambda: False)
    thread.stop()
    files.close({})
    assert failed == []


def test_a_recorder_that_must_end_drops_what_the_disk_is_too_slow_for(settings, stuck, monkeypatch):
    monkeypatch.setattr(module, "HURRY_S", 0.1)
    monkeypatch.setattr(syncer, "FIRST_AHEAD", 1 << 20)
    recorder = Recorder(settings, {})
    recorder.put([item(number, values=50_000) for number in range(20)])
    wait_until(lambda: settings.path.stat().st_size > 1 << 20)
    recorder.hurry()
    wait_until(lambda: recorder.dropped)
    stuck.set()
    outcome = recorder.end("test", {})
    assert not outcome.complete
    assert outcome.messages + outcome.dropped["a/b"] == 20
    with RecordingReader(settings.path) as reader:
        assert reader.status == "INCOMPLETE"
        assert reader.metadata["dora.end"]["dropped.a/b"] == str(outcome.dropped["a/b"])


@pytest.mark.parametrize(
    ("synced", "seconds", "expected"),
    [
        (3 << 20, 1.0, syncer.MIN_AHEAD),  # slower than any bound is useful for
        (10 << 20, 1.0, 10 << 20),
        (10 << 20, 0.1, 32 << 20),  # a fast disk, which one sync cannot prove
        (100, 5.0, 16 << 20),  # too little to measure
    ],
)
def test_about_a_second_of_the_disk_may_be_ahead_of_it(synced, seconds, expected):
    assert syncer.allowed_ahead(16 << 20, synced, seconds) == expected


@pytest.mark.parametrize("split", [{"split_bytes": 1 << 20}, {"split_s": 0.05}])
def test_a_split_loses_and_repeats_nothing(settings, split):
    settings = Settings(settings.path, min_free=0, **split)
    recorder = Recorder(settings, {"id": "x"})
    number = 0
    while recorder.progress.files < 4:
        recorder.put([item(number, values=20_000)])
        number += 1
        # A disk that is slower than this loop would let the recorder drop messages.
        wait_until(lambda number=number: recorder.progress.messages > number - 20)
    outcome = recorder.end("test", {})
    assert outcome.complete
    assert len(outcome.paths) >= 4
    found = [sequence for path in outcome.paths for sequence in sequences(path)]
    assert found == list(range(number))
    for part, path in enumerate(outcome.paths, start=1):
        with RecordingReader(path) as reader:
            assert reader.metadata["dora.recording"]["part"] == str(part)
            assert reader.status == "COMPLETE"


def test_the_largest_size_ends_a_complete_recording(settings):
    recorder = Recorder(Settings(settings.path, min_free=0, max_bytes=3 << 20), {})
    for number in range(20):
        recorder.put([item(number, values=50_000)])
    wait_until(lambda: recorder.ended)
    recorder.put([item(99)])
    outcome = recorder.end("test", {})
    assert outcome.complete
    assert "--max-size" in outcome.reason
    assert outcome.bytes < 12 << 20
    found = sequences(settings.path)
    assert found == list(range(len(found)))


def test_too_little_free_disk_ends_the_recording_and_says_so(settings):
    recorder = Recorder(Settings(settings.path, min_free=1 << 60), {})
    assert recorder.ended
    outcome = recorder.end("test", {})
    assert not outcome.complete
    assert "--min-free" in outcome.reason
    with RecordingReader(settings.path) as reader:
        assert reader.status == "INCOMPLETE"


def test_a_full_disk_leaves_a_file_that_reads(settings, monkeypatch):
    writev, left = os.writev, [3_000_000]

    def limited(descriptor, parts):
        size = sum(map(len, parts))
        if size > left[0]:
            part = min(left[0], 1000)
            left[0] = 0
            if part:
                return writev(descriptor, [memoryview(parts[0])[:part]])
            raise OSError(28, "No space left on device")
        left[0] -= size
        return writev(descriptor, parts)

    monkeypatch.setattr(os, "writev", limited)
    recorder = Recorder(settings, {})
    for number in range(20):
        recorder.put([item(number, values=50_000)])
    wait_until(lambda: recorder.ended)
    left[0] = 100_000  # room for the summary: a log was deleted
    outcome = recorder.end("test", {})
    assert not outcome.complete
    assert "No space left" in outcome.reason
    found = sequences(settings.path)
    assert found == list(range(len(found)))
    assert outcome.messages == len(found)
    assert outcome.messages + outcome.dropped["a/b"] == 20


@pytest.mark.parametrize(
    "content",
    [(255, 1, 0, b"nonsense", b""), (CODE_NULL, 1 << 40, 1 << 40, b"", b"")],
    ids=["nonsense", "more values than Arrow writes"],
)
def test_an_unreadable_message_is_counted_and_the_rest_recorded(settings, content):
    recorder = Recorder(settings, {})
    recorder.put([item(0), Item(START, "a/b", 1, content), item(2)])
    outcome = recorder.end("test", {})
    assert outcome.dropped == {"a/b": 1}
    assert sequences(settings.path) == [0, 2]


def test_steps_of_the_wall_clock_are_noted(settings, monkeypatch):
    offset = [0]
    monkeypatch.setattr(
        module, "_clock_difference", lambda: time.time_ns() - time.monotonic_ns() + offset[0]
    )
    recorder = Recorder(settings, {})
    recorder.put([item(0)])
    wait_until(lambda: recorder.progress.messages == 1)
    offset[0] = 3_600_000_000_000
    recorder.put([item(1)])
    recorder.end("test", {})
    with RecordingReader(settings.path) as reader:
        (step,) = reader.metadata["dora.end"]["clock_steps_ns"].split(",")
    assert abs(int(step) - offset[0]) < 1_000_000_000


def test_progress_counts_the_messages_of_nodes_as_the_last_line_does(settings):
    recorder = Recorder(settings, {})
    own = [Item(START + number, CONTROL_TOPIC, number, event("x")) for number in range(5)]
    recorder.put([*own, item(0)])
    assert wait_until(lambda: recorder.progress.messages) == 1
    outcome = recorder.end("test", {})
    assert sum(outcome.counts.values()) == 6
    assert "COMPLETE: 1 message of 1 topic" in lines.outcome_lines(outcome)[0]


def test_messages_of_one_take_are_sorted_by_time(settings):
    recorder = Recorder(settings, {})
    recorder.put([item(number) for number in (3, 1, 2, 0)])
    recorder.end("test", {})
    with RecordingReader(settings.path) as reader:
        assert [message.sequence for message in reader.messages()] == [0, 1, 2, 3]


# -- what it says of itself


def ended(**more):
    fields = {"complete": True, "reason": "stopped", "messages": 7, "bytes": 9, "closed": True}
    fields |= {"paths": (Path("/x/a.mcap"),), "dropped": {"a/b": 0, "c/d": 2}, "counts": {"a/b": 7}}
    return RecordingOutcome(**fields | more)


def line_of(text):
    fields = json.loads(text)
    return fields["level"], fields["node_id"], fields["target"], fields["fields"]


def test_the_line_of_a_recorder_about_its_end_is_read_as_it_was():
    level, node, target, fields = line_of(lines.outcome_line("rec", ended()))
    assert (level, node) == ("info", "rec")
    found = lines.read_outcome(target, fields)
    assert found == lines.Ended(True, "stopped", 7, 9, ["/x/a.mcap"], {"c/d": 2})
    assert lines.read_outcome("other", fields) is None
    assert lines.read_outcome(target, None) is None
    assert lines.read_outcome(target, {"complete": "yes"}) is None
    many = ended(complete=False, paths=tuple(Path(f"/x/{n}") for n in range(200)))
    level, _, target, fields = line_of(lines.outcome_line("rec", many))
    assert level == "warn"
    assert fields["paths"] == [f"/x/{n}" for n in range(200 - lines.MAX_PATHS, 200)]


@pytest.mark.parametrize("made", [True, False])
def test_the_line_of_a_recorder_about_an_incident_is_read_as_it_was(made):
    marked = lines.Marked(made, "incident 1")
    level, node, target, fields = line_of(lines.marked_line("rec", marked))
    assert (level, node) == ("info" if made else "warn", "rec")
    assert lines.read_marked(target, fields) == marked
    assert lines.read_marked("other", fields) is None
    assert lines.read_marked(target, {}) is None
    assert lines.read_marked(target, {"made": 1}) is None
    # Neither line is taken for the other.
    assert lines.read_outcome(target, fields) is None


def test_a_message_that_waits_takes_the_memory_of_its_parts():
    plain = Item(0, "a/b", 0, (5, 1, 0, bytes(100), bytes(20)))
    made = Item(0, "a/b", 0, Encoded(None, bytes(3), bytes(100), bytes(20)))
    assert size_of(plain) - size_of(Item(0, "a/b", 0, (5, 1, 0, b"", b""))) == 120
    assert size_of(made) - size_of(plain) == 3
    assert size_of(plain) > 120


# -- its settings


def test_a_recording_leaves_a_share_of_the_disk_free_at_most_one_gib(tmp_path):
    own = Settings(tmp_path, min_free=0)
    assert [min_free(own, total) for total in (0, 1 << 50)] == [0, 0]
    default = Settings(tmp_path)
    assert min_free(default, 1000) == 50
    assert min_free(default, 1 << 50) == MIN_FREE


def test_the_files_of_a_recording_are_numbered_if_it_has_several(tmp_path):
    whole = Settings(tmp_path / "a.mcap")
    assert (whole.splits, whole.part(3), whole.folder) == (False, tmp_path / "a.mcap", tmp_path)
    for limits in ({"split_bytes": 1}, {"split_s": 1.0}):
        parts = Settings(tmp_path / "a.mcap", **limits)
        assert (parts.splits, parts.part(3)) == (True, tmp_path / "a_0003.mcap")
        assert Settings(tmp_path / "a", **limits).part(12).name == "a_0012.mcap"
    box = Settings(tmp_path, keep_s=9.0)
    assert (box.splits, box.box, box.folder) == (True, tmp_path, tmp_path / RING)
    assert box.part(1).parent == box.folder


def test_a_message_larger_than_the_memory_costs_no_small_one(settings, monkeypatch):
    free, writes = threading.Event(), threading.Event()
    write = RecordingFile.write_chunk

    def slow(self, chunk):
        writes.set()
        free.wait(DEADLINE_S)
        write(self, chunk)

    monkeypatch.setattr(RecordingFile, "write_chunk", slow)
    recorder = Recorder(Settings(settings.path, min_free=0, memory=4 << 20), {})
    recorder.put([item(n, "a/small") for n in range(100)])
    assert writes.wait(DEADLINE_S)  # from here on, nothing is taken out of the queue
    recorder.put([item(0, "a/large", values=1 << 20)])  # 8 MiB
    recorder.put([item(1, "a/large", values=1 << 20)])
    recorder.put([item(n, "a/small") for n in range(100, 3000)])
    free.set()
    outcome = recorder.end("test", {})
    assert outcome.dropped == {"a/large": 1}
    assert outcome.counts == {"a/small": 3000, "a/large": 1}
