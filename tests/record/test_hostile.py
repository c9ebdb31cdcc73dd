"""Files of strangers: what no recorder writes ends in an error, and takes little memory."""

from __future__ import annotations

import base64
import os
import tracemalloc

import pyarrow as pa
import pytest
from mcap.writer import IndexType, Writer

from dorad.cli import record_info
from dorad.record import edit
from dorad.record.encoding.messages import ARROW_TYPE, METADATA_KEY, Encoded, Kind, decode_message
from dorad.record.export import lerobot, topictables
from dorad.record.mcap import reader
from dorad.record.mcap.chunk import MAX_UNPACKED, compress, decompress
from dorad.record.mcap.layout import Channel, McapError
from dorad.record.mcap.reader import RecordingError, RecordingReader
from dorad.record.mcap.recovery import recover
from dorad.record.mcap.writer import RecordingFile
from dorad.record.replay.due import started_at
from dorad.record.sources import open_recording
from tests.record.files import START, encoded, numbers, write


def arrow_type(kind: pa.DataType) -> dict[str, str]:
    schema = pa.schema([pa.field("data", kind)]).serialize().to_pybytes()
    return {ARROW_TYPE: base64.b64encode(schema).decode()}


@pytest.mark.parametrize(
    "kind",
    [
        pa.dictionary(pa.int8(), pa.string()),
        pa.binary(0),
        pa.uuid(),
        pa.decimal128(5),
        pa.list_(pa.int32(), 3),
        pa.null(),
    ],
    ids=str,
)
def test_a_type_that_is_not_one_buffer_of_numbers_is_refused(kind):
    """Arrow ends the process for an array of a dictionary without its dictionary."""
    data = memoryview(b"\x0a\x10" + bytes(16))
    with pytest.raises(ValueError, match="in no message of this kind"):
        decode_message("protobuf", "dora.Bytes", b"", arrow_type(kind), data)


def stream_of(array: pa.Array, **options: object) -> memoryview:
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([array], names=["data"])
    written = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, batch.schema, options=written) as writer:
        writer.write_batch(batch, custom_metadata={METADATA_KEY: b"{}"})
    return memoryview(sink.getvalue())


def test_a_message_that_is_compressed_is_refused_before_it_is_unpacked():
    data = stream_of(pa.array(bytes(1 << 20), pa.uint8()), compression="zstd")
    assert len(data) < 2000
    with pytest.raises(ValueError, match="compressed"):
        decode_message("arrow-ipc", "", b"", {}, data)


def test_a_message_of_more_items_than_its_bytes_can_hold_is_refused():
    data = stream_of(pa.nulls(1 << 25))
    with pytest.raises(ValueError, match="33554432 items in"):
        decode_message("arrow-ipc", "", b"", {}, data)
    assert len(decode_message("arrow-ipc", "", b"", {}, stream_of(pa.nulls(1000))).array) == 1000


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_message_of_a_few_bytes_that_stands_for_very_many_values_is_not_exported(tmp_path, kind):
    nulls = pa.Array.from_buffers(pa.null(), 1 << 30, [None])
    lists = pa.Array.from_buffers(pa.list_(pa.null(), 1 << 27), 8, [None], children=[nulls])
    path = write(tmp_path / "a.mcap", [("a/b", 0, lists, {})])
    refused = pytest.raises(RecordingError, match=r"values of fixed|text of more")
    with open_recording(path) as found, refused:
        topictables.to_tables(found, tmp_path / "out", kind, None)


def test_a_small_chunk_may_not_take_much_memory():
    packed = compress("zstd", [memoryview(bytes(1 << 16))])
    for claim in (MAX_UNPACKED + 1, 1 << 40):
        with pytest.raises(McapError, match="claims"):
            decompress("zstd", memoryview(packed), claim)
    assert decompress("zstd", memoryview(packed), 1 << 16) == bytes(1 << 16)
    for claim in ((1 << 16) - 1, (1 << 16) + 1):
        for name in ("zstd", "lz4"):
            other = compress(name, [memoryview(bytes(1 << 16))])
            with pytest.raises(McapError):
                decompress(name, memoryview(other), claim)


def test_chunks_that_overlap_are_sorted_only_within_a_bound(tmp_path, monkeypatch):
    """Each chunk begins at the same time, so that nothing could be yielded before the last one."""
    lines = [("a/b", n % 100, pa.array([n] * 1000), {}) for n in range(2000)]
    path = write(tmp_path / "a.mcap", lines, per_chunk=100)
    with RecordingReader(path) as whole:
        times = [message.time for message in whole.messages()]
        assert (times, whole.problems) == (sorted(times), [])
    monkeypatch.setattr(reader, "MAX_WAITING", 2 << 20)
    with RecordingReader(path) as bounded:
        tracemalloc.start()
        count = sum(1 for _ in bounded.messages())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 2000
        assert peak < 6 << 20
        assert "overlap too much" in bounded.problems[0]


def test_a_chunk_that_the_index_names_again_and_again_is_read_once(tmp_path):
    path = write(tmp_path / "a.mcap", numbers(10))
    with RecordingReader(path) as found:
        found._chunks *= 1000
        assert len(list(found.messages())) == 10


def strange(path, *, topic="a/b", metadata=(), stamp=START, kind=None):
    """Write a file as no recorder does; its texts and times may be anything."""
    file = RecordingFile(path, "test")
    message = encoded(pa.array([1.0]))
    if kind is not None:
        message = Encoded(kind, b"", message.body, b"")
    file.add(topic, 0, stamp, message)
    file.describe("dora.end", {"status": "COMPLETE", **dict(metadata)})
    file.finish()
    file.close()
    return path


def test_metadata_that_are_no_numbers_are_shown_as_such(tmp_path):
    path = strange(
        tmp_path / "a.mcap",
        metadata={"clock_steps_ns": f"5,x,{'9' * 5000}", "dropped.a/b": "9" * 5000},
    )
    with RecordingReader(path) as found:
        assert record_info.as_json(found)["dropped"] == {}
        assert "+0.000 s, not a number" in "\n".join(record_info._lines(found))


def test_a_channel_whose_schema_is_missing_is_shown(tmp_path):
    path = strange(tmp_path / "a.mcap")
    with RecordingReader(path) as found:
        for id_, channel in found.channels.items():
            found.channels[id_] = Channel(id_, 999, channel.topic, channel.encoding, {})
        assert record_info.as_json(found)["topics"]["a/b"]["types"] == [""]
        with pytest.raises(ValueError, match="not one of dora"):
            next(found.messages()).decode()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("opening", [RecordingReader, open_recording])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, opening):
    os.mkfifo(tmp_path / "pipe.mcap")
    (tmp_path / "zero.mcap").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        with pytest.raises(RecordingError, match="is not a file"):
            opening(path)


def test_an_event_that_is_nested_too_deeply_is_skipped(tmp_path):
    file = RecordingFile(tmp_path / "a.mcap", "test")
    deep = Kind("json", "dora.Event", "jsonschema", b"", b"", "")
    file.add("dora/control", 0, START, Encoded(deep, b"", b"[" * 100_000, b""))
    file.finish()
    file.close()
    with RecordingReader(tmp_path / "a.mcap") as found:
        assert started_at(found) is None


@pytest.mark.parametrize("kind", ["csv", "arrow", "parquet"])
def test_a_time_that_no_table_can_hold_is_an_error(tmp_path, kind):
    path = strange(tmp_path / "a.mcap", stamp=(1 << 64) - 1)
    with RecordingReader(path) as found, pytest.raises(RecordingError, match="2262"):
        topictables.to_tables(found, tmp_path / "out", kind, None)


def test_a_dataset_of_a_thousand_years_is_refused(tmp_path):
    file = RecordingFile(tmp_path / "a.mcap", "test")
    for stamp in (0, (1 << 63) - 1):
        file.add("a/b", 0, stamp, encoded(pa.array([1.0])))
    file.finish()
    file.close()
    with RecordingReader(tmp_path / "a.mcap") as found, pytest.raises(RecordingError, match="rows"):
        lerobot.to_lerobot([found], tmp_path / "out", None, 30.0)


def test_topics_whose_files_would_have_one_name_get_different_ones(tmp_path):
    lines = [("a/b.c", 0, pa.array([1.0]), {}), ("a.b/c", 1, pa.array([2.0]), {})]
    path = write(tmp_path / "a.mcap", lines)
    with RecordingReader(path) as found:
        written = topictables.to_tables(found, tmp_path / "out", "csv", None).files
    assert sorted(each.name for each, _ in written) == ["a.b.c.csv", "a.b.c_2.csv"]
    assert {(tmp_path / "out" / each).stat().st_size > 50 for each, _ in written} == {True}


@pytest.mark.parametrize("topic", ["../../etc/passwd", "/etc/passwd", "..", "a\0b", "x" * 300, ""])
def test_no_name_of_a_topic_leads_out_of_the_folder(tmp_path, topic):
    path = strange(tmp_path / "a.mcap", topic=topic)
    out = tmp_path / "out"
    with RecordingReader(path) as found:
        try:
            written = topictables.to_tables(found, out, "csv", None).files
        except RecordingError:
            written = []
    assert {each.parent for each, _ in written} <= {out}
    assert {each.name for each in tmp_path.iterdir()} == {"a.mcap", "out"}


def test_more_channels_than_a_file_can_have_are_an_error(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"{n}.mcap", [(f"a/{n}", 0, pa.array([1.0]), {})]) for n in range(3)]
    monkeypatch.setattr("dorad.record.mcap.layout.MAX_ID", 2)
    with pytest.raises(RecordingError, match="cannot write"):
        edit.merge(paths, tmp_path / "all.mcap")


@pytest.mark.parametrize(
    "options",
    [
        {"use_chunking": False},
        {"repeat_channels": False},
        {"repeat_schemas": False},
        {"use_statistics": False},
        {"index_types": IndexType.NONE},
        {"index_types": IndexType.CHUNK},
    ],
    ids=str,
)
def test_a_summary_that_leaves_out_what_it_may_hides_no_message(tmp_path, options):
    """Channels, statistics and indexes of chunks are optional in the summary of an MCAP file."""
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=500, **options)
        writer.start("other", "test")
        channel = writer.register_channel("a/b", "json", writer.register_schema("x", "", b""))
        for number in range(100):
            writer.add_message(channel, START + number, b"{}", START + number, number)
        writer.finish()
    for repair in (False, True):
        if repair:
            assert recover(path).messages == 100
        with RecordingReader(path) as found:
            assert (found.topics(), found.problems) == ({"a/b": 100}, [])
            assert [message.sequence for message in found.messages()] == list(range(100))
            assert (found.status, found.start) == ("FOREIGN", START)
