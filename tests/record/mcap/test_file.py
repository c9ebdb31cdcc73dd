"""The files are valid MCAP: the library of the format's authors reads them, with all checksums."""

import random

import pyarrow as pa
import pytest
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader

from dorad.dataflow.recording import COMPRESSIONS
from dorad.record.mcap.chunk import decompress
from dorad.record.mcap.layout import McapError
from dorad.record.mcap.reader import RecordingError, RecordingReader, merged
from dorad.record.mcap.writer import RecordingFile
from tests.record.files import START, encoded, numbers, write


@pytest.fixture
def lines():
    texts = [("source/text", n * 10 + 5, pa.array([f"t{n}"]), {}) for n in range(25)]
    return sorted([*numbers(25), *texts], key=lambda line: line[1])


def test_the_library_reads_the_same_messages(tmp_path, lines):
    path = write(tmp_path / "a.mcap", lines)
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        theirs = [(c.topic, m.log_time, m.sequence) for _, c, m in reader.iter_messages()]
        assert [each.name for each in reader.iter_attachments()] == ["dataflow.yml"]
        assert [each.name for each in reader.iter_metadata()] == ["dora.recording", "dora.end"]
    assert summary.statistics.message_count == 50
    assert summary.statistics.chunk_count == 5
    with RecordingReader(path) as ours:
        assert [(m.topic, m.time, m.sequence) for m in ours.messages()] == theirs
        assert ours.topics() == {"source/number": 25, "source/text": 25}
        assert ours.status == "COMPLETE"


def test_every_chunk_defines_its_schemas_and_channels(tmp_path, lines):
    path = write(tmp_path / "a.mcap", lines)
    with path.open("rb") as file:
        chunks = [
            r for r in StreamReader(file, emit_chunks=True).records if type(r).__name__ == "Chunk"
        ]
    from mcap.stream_reader import breakup_chunk

    for chunk in chunks:
        names = [type(record).__name__ for record in breakup_chunk(chunk)]
        assert names.count("Channel") == 2
        assert names.index("Channel") < names.index("Message")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_is_read_by_the_library(tmp_path, compression):
    path = tmp_path / "a.mcap"
    file = RecordingFile(path, "test", compression=compression)
    for number in range(200):
        file.add("a/b", number, START + number, encoded(pa.array([number])))
    file.finish()
    file.close()
    with path.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        kinds = {index.compression for index in reader.get_summary().chunk_indexes}
        assert sum(1 for _ in reader.iter_messages()) == 200
    assert kinds == {{"auto": "zstd", "none": ""}.get(compression, compression)}


def test_large_messages_are_not_compressed_by_default(tmp_path):
    path = tmp_path / "a.mcap"
    file = RecordingFile(path, "test")
    file.add("a/b", 0, START, encoded(pa.array([0] * 100_000)))
    file.finish()
    file.close()
    with path.open("rb") as stream:
        (index,) = make_reader(stream).get_summary().chunk_indexes
    assert index.compression == ""


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    path = tmp_path / "a.mcap"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        RecordingFile(path, "test")
    assert path.read_bytes() == b"precious"


def test_messages_come_by_time_also_over_chunks_and_files(tmp_path):
    shuffled = numbers(100)
    random.Random(1).shuffle(shuffled)
    one = write(tmp_path / "one.mcap", shuffled[:50], per_chunk=7)
    two = write(tmp_path / "two.mcap", shuffled[50:], per_chunk=7)
    with RecordingReader(one) as first, RecordingReader(two) as second:
        times = [message.time for message in merged([first, second])]
    assert times == sorted(times)
    assert len(times) == 100


def test_messages_of_equal_time_keep_the_order_of_the_file(tmp_path):
    lines = [("a/b", 0, pa.array([n]), {}) for n in range(30)]
    path = write(tmp_path / "a.mcap", lines, per_chunk=4)
    with RecordingReader(path) as reader:
        found = [message.decode().array[0].as_py() for message in reader.messages()]
    assert found == list(range(30))


def test_a_range_and_topics_limit_what_is_read(tmp_path, lines):
    path = write(tmp_path / "a.mcap", lines)
    with RecordingReader(path) as reader:
        found = list(
            reader.messages(
                start=START + 50_000_000, end=START + 100_000_000, topics={"source/text"}
            )
        )
    assert [message.time - START for message in found] == [
        n * 1_000_000 for n in range(55, 100, 10)
    ]


def test_a_file_without_a_summary_is_read_as_far_as_it_is_complete(tmp_path, lines):
    whole = write(tmp_path / "a.mcap", lines).read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) // 2])
    with RecordingReader(cut) as reader:
        found = [message.time for message in reader.messages()]
        assert reader.status == "UNFINISHED"
        assert reader.problems
    assert found == [START + line[1] * 1_000_000 for line in lines[: len(found)]]
    assert found


def test_a_damaged_chunk_is_left_out_and_named(tmp_path):
    path = write(tmp_path / "a.mcap", numbers(30))
    data = bytearray(path.read_bytes())
    with RecordingReader(path) as reader:
        second = sorted(each.offset for each in reader._chunks)[1]
    data[second + 120] ^= 1
    path.write_bytes(data)
    with RecordingReader(path) as reader:
        assert len(list(reader.messages())) == 20
        assert any("chunk" in problem for problem in reader.problems)


@pytest.mark.parametrize(
    "content", [b"", b"nodes: []", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n\x01" + b"\xff" * 8]
)
def test_another_file_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "other.mcap"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"other\.mcap is not a recording"):
        RecordingReader(path)


def test_a_small_chunk_that_claims_to_be_huge_allocates_nothing():
    with pytest.raises(McapError, match="claims"):
        decompress("zstd", memoryview(b"x" * 10), 1 << 40)
