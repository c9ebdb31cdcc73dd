"""Messages of every type survive the way into a recording and back."""

import json
import re
import string
import struct
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node import metadata as metadata_codec
from dorad.record.encoding import images, messages, protobuf
from dorad.record.encoding.extras import TICK
from dorad.record.encoding.messages import ARROW_TYPE, TYPE_TEXT, decode_message, encode_raw
from dorad.ros2.decode import STAMP
from tests.record.files import START, encoded, raw

ARRAYS = [
    *(
        pa.array([1, 2, 3], kind)
        for kind in (
            *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
            *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
            *(pa.float32(), pa.float64()),
        )
    ),
    pa.array(np.array([1.5, 2.5], np.float16)),
    pa.array([True, False, None]),
    pa.array(["a", None, "ü"]),
    pa.array([b"x", b""], pa.large_binary()),
    pa.array([], pa.float32()),
    pa.array([], pa.string()),
    pa.array([1, None, 3]),
    pa.nulls(0),
    pa.nulls(3),
    pa.array([1, 2], pa.date32()),
    pa.array([86_400_000], pa.date64()),
    pa.array([1, None], pa.timestamp("us", "Europe/Berlin")),
    pa.array([5], pa.duration("ms")),
    pa.array([1, 2], pa.time64("ns")),
    pa.array([{"a": 1, "b": [1.5, None]}, None]),
    pa.array([[1, 2], [], None], pa.large_list(pa.int16())),
    pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
    pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
    pa.array(["x", "y", "x", None]).dictionary_encode(),
    pa.array([{"d": "x"}], pa.struct([("d", pa.dictionary(pa.int8(), pa.string()))])),
    pa.array(["a", "a string that is longer than twelve"], pa.string_view()),
    pa.RunEndEncodedArray.from_arrays([2, 3], pa.array([1, 2])),
    pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["x"])]
    ),
    pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))),
    pa.array([1, 2, 3, 4, 5])[1:4],
    pa.array(["ab", "cd", "ef"])[1:],
]


def whole(message):
    return memoryview(message.head + bytes(message.body) + message.tail)


def decoded(message):
    kind, data = message.kind, whole(message)
    return decode_message(kind.encoding, kind.schema_name, kind.schema, kind.channel_metadata, data)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.type))
@pytest.mark.parametrize("metadata", [{}, {"n": 1, "s": "ü"}], ids=["bare", "metadata"])
def test_every_type_comes_back_as_it_was(array, metadata):
    found = decoded(encoded(array, metadata))
    assert found.array.type == array.type
    assert found.array.equals(array)
    assert found.metadata == metadata


def test_a_message_without_metadata_has_none_in_the_file():
    for array in (pa.array(["x"]), pa.array([[1]])):
        assert b'{"n":1}' in encoded(array, {"n": 1}).tail
        assert protobuf.METADATA_FIELD not in dict(protobuf.each_field(whole(encoded(array))))


texts = st.text(string.printable, max_size=8)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    texts,
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.integers(-5, 5), max_size=3),
    st.lists(texts, max_size=3),
)


@given(st.dictionaries(texts, values, max_size=4))
def test_all_metadata_come_back(metadata):
    for array in (pa.array([1.0]), pa.array(["x"]), pa.array(["x"]).dictionary_encode()):
        found = decoded(encoded(array, metadata)).metadata
        assert list(found) == list(metadata)
        assert repr(found) == repr(metadata_codec.decode(metadata_codec.encode(metadata)))


def test_an_extension_type_that_this_process_does_not_know_keeps_its_name():
    field = pa.field(
        "v",
        pa.int32(),
        metadata={"ARROW:extension:name": "robot.tick", "ARROW:extension:metadata": "7"},
    )
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([pa.array([1, 2], pa.int32())], schema=pa.schema([field]))
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    message = encode_raw(255, 2, 0, sink.getvalue().to_pybytes(), b"", START)
    assert next(protobuf.each_field(whole(message)))[0] == messages.STREAM_FIELD
    found = decoded(message)
    assert found.field.metadata[b"ARROW:extension:name"] == b"robot.tick"
    assert found.field.metadata[b"ARROW:extension:metadata"] == b"7"


PICTURE = bytes(range(24))


def test_a_picture_is_a_raw_image():
    metadata = {"width": 4, "height": 2, "encoding": "rgb8"}
    message = encoded(pa.array(np.frombuffer(PICTURE, np.uint8)), metadata)
    assert message.kind.schema_name == images.RAW_IMAGE
    assert bytes(message.body) == PICTURE
    assert decoded(message).metadata == metadata


def test_a_jpeg_is_a_compressed_image():
    message = encoded(pa.array([255, 216], pa.uint8()), {"encoding": "JPEG"})
    assert message.kind.schema_name == images.COMPRESSED_IMAGE
    assert decoded(message).array.to_pylist() == [255, 216]


def picture_struct(width=4, height=2, encoding="rgb8", data=PICTURE, types=None):
    fields = {
        "width": pa.uint32(),
        "height": pa.uint32(),
        "encoding": pa.string(),
        "data": pa.large_binary(),
    } | (types or {})
    row = {"width": width, "height": height, "encoding": encoding, "data": data}
    return pa.array([row], pa.struct(list(fields.items())))


@pytest.mark.parametrize("types", [{}, {"data": pa.binary()}, {"encoding": pa.large_string()}])
@pytest.mark.parametrize("metadata", [{}, {"n": 1}], ids=["bare", "metadata"])
def test_a_struct_of_the_standard_image_type_is_a_raw_image(types, metadata):
    array = picture_struct(types=types)
    message = encoded(array, metadata)
    assert message.kind.schema_name == images.RAW_IMAGE
    assert bytes(message.body) == PICTURE
    found = decoded(message)
    assert found.array.type == array.type
    assert found.array.equals(array)
    assert found.metadata == metadata


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("width", pa.uint32())]),
        pa.struct([(name, pa.uint32()) for name in ("width", "height", "encoding", "data")]),
        pa.struct([(name, pa.binary()) for name in ("a", "b", "c", "d")]),
    ],
    ids=str,
)
def test_a_picture_of_another_struct_is_refused(kind):
    message = encoded(picture_struct())
    schema = pa.schema([pa.field("data", kind)]).serialize().to_pybytes()
    changed = message._replace(kind=message.kind._replace(arrow_schema=schema))
    with pytest.raises(ValueError, match="in no message of this kind"):
        decoded(changed)


@pytest.mark.parametrize(
    "array",
    [
        picture_struct(height=3),
        picture_struct(encoding="jpeg"),
        picture_struct(encoding=None),
        picture_struct(data=None),
        pa.concat_arrays([picture_struct(), picture_struct()]),
        pa.array([None], picture_struct().type),
        pa.array([{"width": 4, "height": 2, "data": PICTURE}]),
    ],
    ids=lambda array: str(len(array)),
)
def test_a_struct_that_is_no_whole_picture_stays_a_struct(array):
    message = encoded(array)
    assert next(protobuf.each_field(whole(message)))[0] == messages.BATCH_FIELD
    assert decoded(message).array.equals(array)


@pytest.mark.parametrize(
    "metadata",
    [
        {"width": 4, "height": 3, "encoding": "rgb8"},
        {"width": True, "height": 24, "encoding": "mono8"},
        {"width": -4, "height": -2, "encoding": "rgb8"},
        {"width": "4", "height": 2, "encoding": "rgb8"},
        {"width": 4, "height": 2, "encoding": "nv12"},
        {"width": 4, "height": 2, "encoding": 7},
        {"encoding": "rgb8"},
    ],
    ids=json.dumps,
)
def test_metadata_that_do_not_fit_the_bytes_make_no_picture(metadata):
    message = encoded(pa.array(np.frombuffer(PICTURE, np.uint8)), metadata)
    assert message.kind.schema_name == "dora.Bytes"
    assert decoded(message).metadata == metadata


def test_a_message_of_ros_2_is_a_struct_with_the_stamp_of_its_header():
    schema = (
        b"std_msgs/Header header\nuint8 mode\n"
        + b"=" * 80
        + b"\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    )
    cdr = b"\0\1\0\0" + struct.pack("<iII", 5, 3, 4) + b"map\0" + b"\x07"
    message = decode_message("cdr", "a/msg/State", schema, {}, cdr, "ros2msg")
    (state,) = message.array.to_pylist()
    assert (state["header"]["frame_id"], state["mode"]) == ("map", 7)
    assert message.metadata == {STAMP: 5 * 10**9 + 3}


@pytest.mark.parametrize("kind", [pa.string(), pa.bool_(), pa.int16(), pa.list_(pa.int8())])
def test_a_message_of_numbers_that_claims_another_type_is_refused(kind):
    message = encoded(pa.array([1.0]))
    schema = pa.schema([pa.field("data", kind)]).serialize().to_pybytes()
    with pytest.raises(ValueError, match=f"an array of {re.escape(str(kind))} is in no message"):
        decoded(message._replace(kind=message.kind._replace(arrow_schema=schema)))


def test_a_message_with_a_part_of_a_number_is_refused():
    message = encoded(pa.array([1.0, 2.0]))
    for size in (15, 9):
        part = message._replace(head=protobuf.prefix(1, size), body=message.body[:size])
        with pytest.raises(ValueError, match=f"{size} bytes are not a number of items of double"):
            decoded(part)


def test_an_array_that_arrow_cannot_write_is_refused_with_its_type(monkeypatch):
    def fail(*_):
        raise pa.ArrowCapacityError("too many")

    monkeypatch.setattr(pa.ipc, "new_stream", fail)
    with pytest.raises(ValueError, match="2 values of string: too many"):
        messages.encode_array(pa.array(["a", "b"]), pa.field("data", pa.string()), b"")


def test_a_message_of_another_writer_is_refused_with_its_encoding():
    kind = encoded(pa.array([1.0])).kind
    for name, metadata in (("cdr", kind.channel_metadata), ("protobuf", {})):
        with pytest.raises(ValueError, match=f"the encoding '{name}' of schema 'x' is not one of"):
            decode_message(name, "x", b"", metadata, memoryview(b""))


@pytest.mark.parametrize(
    ("code", "length", "nulls", "payload"),
    [(4, 2, 0, b"x" * 15), (100, 2, 0, b"x"), (255, 1, 0, b"no stream"), (77, 1, 0, b"")],
)
def test_a_malformed_payload_is_refused(code, length, nulls, payload):
    with pytest.raises(ValueError, match=r"."):
        encode_raw(code, length, nulls, payload, b"", START)


@given(st.binary(max_size=64))
def test_no_bytes_of_a_file_crash_the_decoder(data):
    for array in (
        pa.array([1.0]),
        pa.array(["x"]),
        pa.array(["x"]).dictionary_encode(),
        picture_struct(),
    ):
        kind = encoded(array).kind
        try:
            decode_message(
                kind.encoding,
                kind.schema_name,
                kind.schema,
                kind.channel_metadata,
                memoryview(data),
            )
        except ValueError:
            continue


def test_only_a_channel_of_arrow_messages_says_its_type_in_the_file():
    kind = encoded(pa.array([1.0])).kind
    assert kind.channel_metadata.keys() == {ARROW_TYPE, TYPE_TEXT}
    assert TICK.kind.channel_metadata == {}


def test_metadata_in_the_file_that_are_no_json_are_refused():
    message = encoded(pa.array([1.0]), {"k": 1})
    broken = message._replace(tail=message.tail.replace(b'"k"', b'"k '))
    with pytest.raises(ValueError, match="metadata"):
        decoded(broken)


def test_times_in_metadata_keep_their_microseconds():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert decoded(encoded(pa.array([1]), {"at": moment})).metadata["at"] == moment


def test_the_bytes_of_a_ring_are_those_of_the_array():
    assert raw(pa.array([1, 2], pa.int32()))[3] == np.array([1, 2], np.int32).tobytes()


@pytest.mark.parametrize(
    ("kind", "needs"),
    [
        (pa.int32(), False),
        (pa.list_(pa.string()), False),
        (pa.struct([("a", pa.float32())]), False),
        (pa.dictionary(pa.int8(), pa.string()), True),
        (pa.sparse_union([pa.field("a", pa.int8())]), True),
        (pa.dense_union([pa.field("a", pa.int8())]), True),
        (pa.run_end_encoded(pa.int32(), pa.int8()), True),
        (pa.string_view(), True),
        (pa.binary_view(), True),
        (pa.bool8(), True),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), True),
        (pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string_view()))]), True),
    ],
    ids=str,
)
def test_types_that_one_record_batch_cannot_carry_are_written_as_streams(kind, needs):
    assert messages.needs_stream(kind) == needs


def test_a_recorder_of_ever_new_types_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(messages, "_MAX_SHAPES", 3)
    monkeypatch.setattr(messages, "_known_shapes", {})
    for number in range(20):
        array = pa.array([{f"field_{number}": 1}])
        assert decoded(encoded(array)).array.equals(array)
        assert 1 <= len(messages._known_shapes) <= 3


def test_items_without_bytes_are_read_up_to_a_bound(monkeypatch):
    many = encoded(pa.nulls(100_000))
    assert len(decoded(many).array) == 100_000
    monkeypatch.setattr(messages, "MAX_EMPTY", 99_999)
    with pytest.raises(ValueError, match="an array of 100000 items in"):
        decoded(many)
    # As many as there are bits always are.
    bits = encoded(pa.array([True] * 200_000))
    assert len(decoded(bits).array) == 200_000


def test_a_dictionary_of_dictionaries_is_refused_since_no_reader_could_read_it():
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    array = pa.DictionaryArray.from_arrays(pa.array([2, None, 0]), words)
    for each in (array, pa.StructArray.from_arrays([array], ["words"])):
        with pytest.raises(ValueError, match="back: its dictionary has a dictionary"):
            encoded(each)
