"""One chunk: its times, its index, what is copied into it, and what is compressed."""

import random
import struct

import pytest

from dorad.record.encoding import extras
from dorad.record.encoding.messages import Encoded
from dorad.record.mcap import chunk, layout
from dorad.record.mcap.chunk import SMALL, ChunkBuilder, compress, decompress
from dorad.record.mcap.items import Item


def message(size, filler=bytes):
    """Return a message whose three parts have this size together."""
    return Encoded(extras.TICK.kind, b"he", filler(size - 5), b"ail")


def builder_of(*messages, compression="none"):
    """Return a builder with messages of one channel, one each nanosecond from 10 on."""
    builder = ChunkBuilder(compression)
    builder.declare(1, b"channel one")
    for number, each in enumerate(messages):
        builder.add(1, number, 10 + number, each)
    return builder


def test_a_chunk_has_the_times_of_all_channels_and_an_index_of_each():
    builder = ChunkBuilder("none")
    assert (bool(builder), builder.size, builder.has(1)) == (False, 0, False)
    builder.declare(1, b"one")
    builder.declare(2, b"second")
    assert (bool(builder), builder.size, builder.has(1), builder.has(3)) == (True, 9, True, False)
    places = {}
    for stamp, channel in ((30, 1), (10, 2), (40, 1), (20, 1)):
        places[stamp] = builder.size
        builder.add(channel, 0, stamp, message(8))
    made = builder.finish()
    assert (made.start, made.end, made.counts, made.size) == (10, 40, {1: 3, 2: 1}, builder.size)
    records = {
        channel: layout.packed_index(
            channel, b"".join(struct.pack("<QQ", stamp, places[stamp]) for stamp in stamps)
        )
        for channel, stamps in ((1, (30, 40, 20)), (2, (10,)))
    }
    assert made.indexes == records[1] + records[2]
    assert made.index_offsets == {1: 0, 2: len(records[1])}
    assert made.length == sum(map(len, made.parts))
    assert made.stored == made.size == made.length - len(made.parts[0])
    assert b"".join(map(bytes, made.parts[1:])).startswith(b"onesecond")


def test_only_a_large_body_is_written_from_where_it_is():
    small, large = (message(5 + chunk._COPIED + more, bytearray) for more in (0, 1))
    assert len(builder_of(small, small).finish().parts) == 2
    made = builder_of(small, large, small, large).finish()
    # The head, what is copied, a body, what is copied, a body, and its tail.
    assert len(made.parts) == 6
    assert [part.obj is large.body for part in made.parts[1:]] == [0, 1, 0, 1, 0]
    copied = builder_of(small, message(5 + chunk._COPIED), small, message(5 + chunk._COPIED))
    assert made.size == copied.size + 2
    offsets = [struct.unpack_from("<Q", made.indexes, at)[0] for at in range(-8, -64, -16)]
    assert offsets == sorted(offsets, reverse=True)
    assert made.size - offsets[0] == layout.HEAD.size + chunk._HEAD_SIZE + 5 + chunk._COPIED + 1


def test_a_large_body_at_the_end_is_the_last_part():
    whole = message(5 + chunk._COPIED + 1)
    made = builder_of(whole._replace(tail=b"")).finish()
    assert len(made.parts) == 3
    assert made.parts[-1].obj is whole.body


def test_small_messages_are_added_up_to_the_limit_of_the_whole_chunk():
    for before in ((), (message(200_000),)):
        builder = builder_of(*before)
        builder.expect_small("a/b", extras.TICK.kind, 0, 1)
        items = [Item(20, "a/b", number, message(8)) for number in range(3)]
        assert builder.add_small(items, 0, builder.size) == 0
        assert builder.add_small(items, 0, builder.size + 1) == 1
        assert builder.add_small(items, 1, 1 << 20) == 3
        assert builder.counts == {1: len(before) + 3}


@pytest.mark.parametrize(
    ("wanted", "sizes", "used"),
    [
        ("auto", (SMALL, SMALL), "zstd"),
        ("auto", (SMALL, SMALL + 1, SMALL), ""),
        ("zstd", (SMALL, 10 * SMALL), "zstd"),
        ("lz4", (10 * SMALL,), "lz4"),
        ("none", (SMALL,), ""),
    ],
)
def test_chunks_of_small_messages_are_compressed_by_default(wanted, sizes, used):
    builder = builder_of(*map(message, sizes), compression=wanted)
    made = builder.finish()
    assert (made.compression, made.size) == (used, builder.size)
    data = b"".join(map(bytes, made.parts[1:]))
    assert made.stored == len(data)
    assert (made.stored < made.size) == bool(used)
    plain = builder_of(*map(message, sizes)).finish()
    assert decompress(used, memoryview(data), made.size) == b"".join(map(bytes, plain.parts[1:]))


def test_what_does_not_shrink_is_stored_as_it_is():
    noise = builder_of(message(SMALL, random.Random(1).randbytes), compression="zstd").finish()
    assert (noise.compression, noise.stored) == ("", noise.size)


def test_a_chunk_that_a_reader_would_refuse_is_not_compressed(monkeypatch):
    builder = builder_of(message(SMALL), compression="zstd")
    monkeypatch.setattr(chunk, "MAX_UNPACKED", builder.size)
    assert builder.finish().compression == "zstd"
    monkeypatch.setattr(chunk, "MAX_UNPACKED", builder.size - 1)
    assert builder.finish().compression == ""


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_a_chunk_is_unpacked_only_to_its_size_and_up_to_a_factor(monkeypatch, name):
    data = memoryview(compress(name, [memoryview(bytes(5000))]))
    assert decompress(name, data, 5000) == bytes(5000)
    for wrong in (4999, 5001):
        with pytest.raises(layout.McapError):
            decompress(name, data, wrong)
    monkeypatch.setattr(chunk, "MAX_UNPACKED", 4999)
    monkeypatch.setattr(chunk, "MAX_RATIO", -(-5000 // len(data)))
    assert decompress(name, data, 5000) == bytes(5000)
    monkeypatch.setattr(chunk, "MAX_RATIO", 4999 // len(data))
    with pytest.raises(layout.McapError, match="claims to hold 5000"):
        decompress(name, data, 5000)
    monkeypatch.setattr(chunk, "MAX_UNPACKED", 5000)
    assert decompress(name, data, 5000) == bytes(5000)


def test_a_chunk_without_compression_has_its_size_and_an_unknown_one_is_refused():
    assert decompress("", memoryview(b"abc"), 3) == b"abc"
    with pytest.raises(layout.McapError, match="a chunk of 3 bytes declares 4"):
        decompress("", memoryview(b"abc"), 4)
    with pytest.raises(layout.McapError, match="the compression 'gzip' is unknown"):
        decompress("gzip", memoryview(b"abc"), 3)
