"""After a crash, a recording keeps every message whose chunk was written."""

import fcntl
import os
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader

from dorad.record.mcap.layout import HEAD, MAGIC, Op
from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.recovery import RecoveryError, recover
from tests.record.files import numbers, write


def oracle(path):
    """Return the numbers in a file, as the library of the format's authors reads them."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        return [message.sequence for _, _, message in reader.iter_messages()]


def chunks_of(data):
    """Return where each chunk and its index end."""
    at, ends = len(MAGIC), []
    while at < len(data) - len(MAGIC):
        op, length = HEAD.unpack_from(data, at)
        at += HEAD.size + length
        if op == Op.MESSAGE_INDEX:
            ends.append(at)
        if op == Op.DATA_END:
            return ends
    return ends


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Leave out what makes files durable: it takes nearly all of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A recording of 6 chunks of 5 messages, uncompressed."""
    path = tmp_path_factory.mktemp("recover") / "whole.mcap"
    return write(path, numbers(30), per_chunk=5).read_bytes()


def test_a_complete_recording_stays_as_it_is(tmp_path, whole):
    path = tmp_path / "a.mcap"
    path.write_bytes(whole)
    done = recover(path)
    assert (done.changed, done.messages, done.lossless) == (False, 30, True)
    assert path.read_bytes() == whole


def test_a_damaged_header_costs_no_message(tmp_path, whole):
    path = tmp_path / "a.mcap"
    broken = bytearray(whole)
    # Behind the magic and the head of the record: the length of the profile, the highest byte.
    broken[len(MAGIC) + HEAD.size + 3] ^= 0x80
    path.write_bytes(broken)
    with RecordingReader(path) as reader:
        assert "header: " in reader.problems[0]
        assert len(list(reader.messages())) == 30
    done = recover(path)
    assert (done.changed, done.messages, done.lossless) == (True, 30, True)
    assert oracle(path) == list(range(30))
    with RecordingReader(path) as reader:
        assert (reader.problems, reader.maker) == ([], "")


def test_a_file_that_ends_at_any_byte_keeps_all_complete_chunks(tmp_path, whole):
    path = tmp_path / "a.mcap"
    ends = chunks_of(whole)
    start = ends[0] // 4  # the header and the first metadata: see the next test
    near = {end + by for end in ends for by in range(-12, 13)}
    for size in sorted({*range(start, len(whole), 61), *near}):
        path.write_bytes(whole[:size])
        done = recover(path)
        complete = 5 * sum(end <= size for end in ends)
        assert done.messages in (complete, complete + 5), size  # a chunk without its index counts
        assert done.messages >= complete
        with RecordingReader(path) as reader:
            assert reader.status == "RECOVERED", size
            assert not reader.problems
            found = [message.sequence for message in reader.messages()]
        assert found == list(range(done.messages))
        if size % 10 == 0:
            assert oracle(path) == found
        assert not recover(path).changed


@pytest.mark.parametrize("size", [0, 1, 7, 8, 12])
def test_a_file_without_a_record_cannot_be_recovered(tmp_path, whole, size):
    path = tmp_path / "a.mcap"
    path.write_bytes(whole[:size])
    with pytest.raises(RecoveryError, match=r"a\.mcap cannot be recovered"):
        recover(path)
    assert path.read_bytes() == whole[:size]


@given(st.data())
def test_a_flipped_bit_costs_at_most_its_chunk(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("flip") / "a.mcap"
    ended = data.draw(st.booleans())  # else it is a file of a crash, and has no summary
    ends = chunks_of(whole)
    content = bytearray(whole if ended else whole[: ends[-1]])
    at = data.draw(st.integers(len(MAGIC), ends[-2] - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    done = recover(path)
    number = sum(end <= at for end in ends)  # of the damaged chunk
    found = oracle(path)
    assert len(found) == done.messages
    assert found in (list(range(30)), [*range(5 * number), *range(5 * number + 5, 30)])
    assert done.lossless <= (len(found) == 30)
    with RecordingReader(path) as reader:
        assert (reader.problems, reader.topics()) == ([], {"source/number": len(found)})
    assert not recover(path).changed


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("ended", [True, False])
def test_an_opcode_that_is_damaged_ends_no_recording(tmp_path, whole, bit, ended):
    """One flipped bit makes a chunk a footer, a message index or a private record."""
    path = tmp_path / "a.mcap"
    ends = chunks_of(whole)
    content = bytearray(whole if ended else whole[: ends[-1]])
    content[ends[1]] ^= 1 << bit
    path.write_bytes(content)
    done = recover(path)
    assert (done.messages, done.bad_chunks, done.lossless) == (25, 1, False)
    assert oracle(path) == [*range(10), *range(15, 30)]


def test_a_message_index_that_looks_like_the_end_of_the_data_is_none(tmp_path, whole):
    path = tmp_path / "a.mcap"
    ends = chunks_of(whole)
    content = bytearray(whole[: ends[-1]])
    op, length = HEAD.unpack_from(content, ends[1])
    content[ends[1] + HEAD.size + length] ^= Op.MESSAGE_INDEX ^ Op.DATA_END
    path.write_bytes(content)
    done = recover(path)
    assert (op, done.messages, done.lossless) == (Op.CHUNK, 30, True)
    assert oracle(path) == list(range(30))


@pytest.mark.parametrize("ended", [True, False])
def test_a_record_whose_length_grows_hides_no_chunk(tmp_path, whole, ended):
    path = tmp_path / "a.mcap"
    ends = chunks_of(whole)
    content = bytearray(whole if ended else whole[: ends[-1]])
    metadata = len(MAGIC) + HEAD.size + HEAD.unpack_from(content, len(MAGIC))[1]
    index = ends[1] + HEAD.size + HEAD.unpack_from(content, ends[1])[1]
    for at in (metadata, index):
        content[at + 2] ^= 4  # 1024 bytes more
    path.write_bytes(content)
    assert recover(path).messages == 30
    assert oracle(path) == list(range(30))


@pytest.mark.parametrize("at", [0, 1, 3, 7])
def test_a_damaged_head_of_the_header_costs_no_message(tmp_path, whole, at):
    """The first byte is the opcode, the others are the length."""
    path = tmp_path / "a.mcap"
    content = bytearray(whole)
    content[len(MAGIC) + at] ^= 0x40
    path.write_bytes(content)
    with RecordingReader(path) as reader:
        assert len(list(reader.messages())) == 30
    done = recover(path)
    assert (done.changed, done.messages, done.lossless) == (True, 30, True)
    assert path.read_bytes()[: len(MAGIC) + 60] == whole[: len(MAGIC) + 60]


def test_a_block_of_a_complete_file_that_is_lost_costs_its_chunks(tmp_path, whole):
    """The summary says where the file goes on."""
    path = tmp_path / "a.mcap"
    ends = chunks_of(whole)
    content = bytearray(whole)
    content[ends[0] + 5 : ends[2] + 5] = bytes(ends[2] - ends[0])
    path.write_bytes(content)
    done = recover(path)
    assert (done.messages, done.bad_chunks, done.lossless) == (15, 3, False)
    assert oracle(path) == [*range(5), *range(20, 30)]


def test_a_damaged_chunk_in_the_middle_is_skipped_and_the_rest_kept(tmp_path, whole):
    path = tmp_path / "a.mcap"
    content = bytearray(whole)
    content[chunks_of(whole)[1] + 100] ^= 1
    path.write_bytes(content)
    done = recover(path)
    assert (done.messages, done.bad_chunks, done.lossless) == (25, 1, False)
    assert oracle(path) == [*range(10), *range(15, 30)]


def test_a_damaged_summary_is_written_again_without_loss(tmp_path, whole):
    path = tmp_path / "a.mcap"
    content = bytearray(whole)
    content[-60] ^= 1
    path.write_bytes(content)
    done = recover(path)
    assert (done.changed, done.messages, done.lossless) == (True, 30, True)
    assert oracle(path) == list(range(30))


def test_a_damaged_index_is_written_again_without_loss(tmp_path, whole):
    path = tmp_path / "a.mcap"
    content = bytearray(whole)
    content[chunks_of(whole)[2] - 8] ^= 1  # an offset in the index of the third chunk
    path.write_bytes(content)
    done = recover(path)
    assert (done.messages, done.lossless) == (30, True)
    assert oracle(path) == list(range(30))


def test_an_interrupted_recovery_can_be_repeated(tmp_path, whole):
    path = tmp_path / "a.mcap"
    cut = chunks_of(whole)[3] + 20
    path.write_bytes(whole[:cut])
    recover(path)
    once = path.read_bytes()
    for size in range(chunks_of(whole)[3], len(once), 29):
        path.write_bytes(once[:size])
        assert recover(path).messages == 20
        assert oracle(path) == list(range(20))


def test_blocks_of_zeros_at_the_end_are_cut_off(tmp_path, whole):
    path = tmp_path / "a.mcap"
    end = chunks_of(whole)[3]
    path.write_bytes(whole[:end] + bytes(4096))
    assert recover(path).messages == 20
    assert oracle(path) == list(range(20))


def test_a_recording_that_is_being_written_is_left_alone(tmp_path, whole):
    path = tmp_path / "a.mcap"
    path.write_bytes(whole[:1000])
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RecoveryError, match="is being recorded or recovered now"):
            recover(path)
    assert path.read_bytes() == whole[:1000]


def test_compressed_and_large_chunks_recover_as_well(tmp_path):
    lines = [("a/b", n, pa.array([n] * (50_000 if n % 3 == 0 else 3)), {}) for n in range(40)]
    path = write(tmp_path / "whole.mcap", lines, per_chunk=4)
    data = path.read_bytes()
    cut = tmp_path / "cut.mcap"
    for size in random.Random(1).sample(range(2000, len(data)), 25):
        cut.write_bytes(data[:size])
        done = recover(cut)
        assert oracle(cut) == list(range(done.messages))
