"""Files that are cut or changed, and disks that fail while recording: words, and no traceback."""

import errno
import os
import subprocess
import threading

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.record.drec import DrecReader
from dorad.record.mcap.items import Item
from dorad.record.mcap.reader import RecordingError, RecordingReader
from dorad.record.mcap.recovery import RecoveryError, recover
from dorad.record.recorder import syncer
from dorad.record.recorder.recorder import Recorder
from dorad.record.recorder.settings import Settings
from tests.harness.waiting import wait_until
from tests.record.files import DREC, START, numbers, raw, write
from tests.record.recorder.test_recorder import item, sequences


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a recording with several types, attachments and compressed chunks."""
    lines = numbers(20)
    lines += [("a/text", n * 10 + 5, pa.array([f"t{n}" * 50]), {"n": n}) for n in range(20)]
    return write(tmp_path_factory.mktemp("whole") / "a.mcap", lines, per_chunk=7).read_bytes()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A file that each example rewrites."""
    return tmp_path_factory.mktemp("damaged") / "a.mcap"


def read_all(path):
    """Return the values that can be read."""
    found = []
    with RecordingReader(path) as reader:
        list(reader.attachments())
        for message in reader.messages():
            try:
                found.append((message.topic, message.decode().array.to_pylist()))
            except ValueError:
                continue
    return found


@pytest.fixture
def no_sync(monkeypatch):
    """Leave out what makes files durable: it takes nearly all of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("no_sync")
@given(st.data())
def test_no_change_of_a_file_does_more_than_hide_messages(whole, damaged, data):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    damaged.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        before = read_all(damaged)
    except RecordingError:
        before = []
    try:
        recover(damaged)
    except RecoveryError:
        return
    after = read_all(damaged)
    damaged.write_bytes(whole)
    known = read_all(damaged)
    # A chunk has a checksum; only names outside of chunks may be others.
    assert all(value in [each for _, each in known] for _, value in after)
    assert len(after) <= len(known)
    assert len(before) <= len(known)


def test_a_file_that_is_cut_anywhere_is_read_up_to_there(whole, damaged):
    last = -1
    for size in range(0, len(whole), 37):
        damaged.write_bytes(whole[:size])
        try:
            count = len(read_all(damaged))
        except RecordingError as error:
            assert last == -1
            assert str(damaged) in str(error)
            continue
        assert count >= last
        last = count
    assert last > 30


@given(st.data())
def test_no_change_of_a_file_of_dora_does_more_than_hide_messages(tmp_path_factory, data):
    content = bytearray(DREC.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("drec") / "a.drec"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        with DrecReader(path) as reader:
            reader.topics()
            for message in reader.messages():
                try:
                    message.decode()
                except ValueError:
                    continue
    except RecordingError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["writev", "fdatasync"])
def test_a_disk_that_fails_ends_the_recording_and_leaves_what_was_written(
    tmp_path, monkeypatch, number, call
):
    settings = Settings(tmp_path / "a.mcap", min_free=0)
    recorder = Recorder(settings, {})
    recorder.put([item(n) for n in range(10)])
    wait_until(lambda: sequences_so_far(settings.path) == 10)
    real, broken = getattr(os, call), threading.Event()

    def failing(*arguments):
        if broken.is_set():
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, call, failing)
    broken.set()

    def ended():
        recorder.put([item(99, values=200_000)])
        return recorder.ended

    wait_until(ended)
    assert os.strerror(number) in recorder.reason
    broken.clear()  # the file can be closed: it is another disk again, or one log is deleted
    outcome = recorder.end("test", {})
    assert not outcome.complete
    assert sequences(settings.path)[:10] == list(range(10))


def test_a_file_that_is_removed_ends_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(syncer, "SYNC_S", 0.02)
    path = tmp_path / "a.mcap"
    recorder = Recorder(Settings(path, min_free=0), {})
    recorder.put([item(0)])
    path.unlink()
    wait_until(lambda: recorder.ended)
    recorder.put([item(1)])
    outcome = recorder.end("test", {})
    assert (outcome.complete, outcome.closed) == (False, False)
    assert "the file was removed" in outcome.reason
    assert outcome.dropped == {"a/b": 1}


def test_a_file_that_is_at_its_place_no_more_ends_the_recording_a_renamed_one_does_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(syncer, "SYNC_S", 0.02)
    path, renamed = tmp_path / "a.mcap", tmp_path / "b.mcap"
    recorder = Recorder(Settings(path, min_free=0), {})
    recorder.put([item(0)])
    wait_until(lambda: recorder.progress.messages == 1)
    path.rename(renamed)
    recorder.put([item(1)])
    wait_until(lambda: recorder.progress.messages == 2)
    assert not recorder.ended
    # As after `umount -l`: the open file still has a link, which nobody finds.
    (tmp_path / "c.mcap").hardlink_to(renamed)
    renamed.unlink()
    wait_until(lambda: recorder.ended)
    assert not recorder.end("test", {}).complete
    assert "its disk unmounted" in recorder.reason


def sequences_so_far(path):
    with RecordingReader(path) as reader:
        return sum(reader.counts.values())


def test_a_folder_that_goes_away_ends_a_split_with_what_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(syncer, "SYNC_S", 1000)  # the split is to find it out, not a sync
    folder = tmp_path / "usb"
    folder.mkdir()
    recorder = Recorder(Settings(folder / "a.mcap", min_free=0, split_bytes=1 << 20), {})
    recorder.put([item(0)])
    wait_until(lambda: recorder.progress.messages == 1)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    def ended():
        recorder.put([item(1, values=50_000)])
        return recorder.ended

    wait_until(ended)
    outcome = recorder.end("test", {})
    assert not outcome.complete
    assert "No such file" in outcome.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_real_disk_that_is_full_ends_the_recording_with_a_file_that_reads(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False)
    if done.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        settings = Settings(disk / "a.mcap", min_free=0)
        recorder = Recorder(settings, {})
        sent = 0
        while not recorder.ended and sent < 1000:
            recorder.put([item(sent, values=20_000)])
            sent += 1
            wait_until(lambda total=sent: recorder.ended or recorder.progress.messages >= total)
        outcome = recorder.end("test", {})
        assert not outcome.complete
        assert "No space left" in outcome.reason
        assert outcome.messages + outcome.dropped["a/b"] == sent
        with RecordingReader(settings.path) as reader:
            found = [message.sequence for message in reader.messages()]
        assert found == list(range(outcome.messages))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_topic_whose_type_changes_keeps_every_message_in_order(tmp_path):
    arrays = [
        pa.array([1]),
        pa.array([1.5], pa.float32()),
        pa.array(["x", None]),
        pa.array([{"a": 1}]),
        pa.array(["x", "x"]).dictionary_encode(),
        pa.array([b"12"]),
        pa.array([], pa.int8()),
    ]
    path = tmp_path / "a.mcap"
    recorder = Recorder(Settings(path, min_free=0), {})
    for number in range(70):
        content = (*raw(arrays[number % len(arrays)]), b"")
        recorder.put([Item(START + number, "a/b", number, content)])
    assert recorder.end("test", {}).complete
    with RecordingReader(path) as reader:
        assert len(reader.types_of("a/b")) == len(arrays)
        found = [message.decode().array for message in reader.messages()]
    assert len(found) == 70
    for number, array in enumerate(found):
        expected = arrays[number % len(arrays)]
        assert array.type == expected.type
        assert array.equals(expected)
