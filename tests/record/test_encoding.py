"""Messages of every type survive the way into a recording and back."""

import json
import string
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node import metadata as metadata_codec
from dorad.record import encoding, images
from dorad.record.encoding import METADATA_KEY, decode_message, encode_raw
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


def decoded(message):
    kind = message.kind
    data = memoryview(message.head + bytes(message.body) + message.tail)
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
        assert METADATA_KEY in bytes(encoded(array, {"n": 1}).body)
        assert METADATA_KEY not in bytes(encoded(array).body)


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
    assert message.kind.encoding == "arrow-ipc"
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
    assert message.kind.encoding == "arrow"
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
    assert encoding.needs_stream(kind) == needs


def test_a_recorder_of_ever_new_types_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(encoding, "_MAX_KINDS", 3)
    monkeypatch.setattr(encoding, "_batch_kinds", {})
    for number in range(20):
        array = pa.array([{f"field_{number}": 1}])
        assert decoded(encoded(array)).array.equals(array)
        assert 1 <= len(encoding._batch_kinds) <= 3


def test_items_without_bytes_are_read_up_to_a_bound(monkeypatch):
    many = encoded(pa.nulls(100_000))
    assert len(decoded(many).array) == 100_000
    monkeypatch.setattr(encoding, "MAX_EMPTY", 99_999)
    with pytest.raises(ValueError, match="an array of 100000 items in"):
        decoded(many)
    # As many as there are bits always are.
    bits = encoded(pa.array([True] * 200_000))
    assert len(decoded(bits).array) == 200_000
