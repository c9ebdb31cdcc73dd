"""What viewers see of each type, in a recording as it is written."""

import base64
import json
import math
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader

from dorad.record.encoding import columns, shapes
from dorad.record.encoding.messages import ARROW_TYPE, TYPE_TEXT, Encoded, Kind
from dorad.record.export.rerun import write_copy
from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.writer import RecordingFile
from tests.record.encoding.test_encoding import ARRAYS, decoded
from tests.record.files import encoded
from tests.record.shown import message_of, seen

POSE = pa.struct([("x", pa.float64()), ("name", pa.string()), ("tags", pa.list_(pa.string()))])
NOON = datetime(2026, 5, 1, 12, 0, 0, 250, tzinfo=UTC)
NOON_NS = 1_777_636_800_000_250_000


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([True, False]), [True, False]),
        (pa.array([-1, 2], pa.int8()), [-1, 2]),
        (pa.array([1, 65535], pa.uint16()), [1, 65535]),
        (pa.array([np.float16(1.5)]), [1.5]),
        (pa.array([Decimal("1.25")]), [1.25]),
        (pa.array(["a", "ü"]), ["a", "ü"]),
        (pa.array([b"a", b"\xff"]), [b"a", b"\xff"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a", None]), [{"value": "a"}, {}]),
        (pa.array([1, None]), [{"value": 1}, {}]),
        (pa.array([NOON], pa.timestamp("us", "UTC")), [NOON_NS]),
        (pa.array([-1500], pa.duration("ms")), [-1_500_000_000]),
        (pa.array([[1, 2], None]), [{"items": [1, 2]}, {"items": []}]),
        (pa.array([[1, 2]], pa.list_(pa.uint8())), [{"items": b"\x01\x02"}]),
        (pa.array([[[1.0], []]]), [{"items": [{"items": [1.0]}, {"items": []}]}]),
        (
            pa.array([{"x": 1.0, "name": "n", "tags": ["a"]}, {"x": None}, None], POSE),
            [{"x": 1.0, "name": "n", "tags": ["a"]}, {"tags": []}, {"tags": []}],
        ),
        (
            pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
            [{"items": [{"key": "k", "value": 1}]}, {"items": []}],
        ),
        (pa.nulls(2), ["null", "null"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_structs_lists_texts_and_times_are_what_they_are(array, expected):
    message = encoded(array, {"n": 1})
    assert seen(message) == {"data": expected, "metadata": '{"n":1}'}
    assert decoded(message).array.equals(array)


def test_missing_floats_are_not_a_number():
    one, missing = seen(encoded(pa.array([1.0, None])))["data"]
    assert one == 1.0
    assert math.isnan(missing)


leaves = st.sampled_from(
    [
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint16(), st.integers(0, 65535)),
        (pa.bool_(), st.booleans()),
        (pa.float64(), st.floats(allow_nan=False)),
        (pa.string(), st.text(max_size=4)),
        (pa.large_binary(), st.binary(max_size=4)),
        (pa.timestamp("ms"), st.integers(-(2**50), 2**50)),
        (pa.duration("us"), st.integers(-(2**50), 2**50)),
    ]
)


def of_list(inner):
    kind, values = inner
    return st.one_of(
        st.just((pa.list_(kind), st.lists(values, max_size=3))),
        st.just((pa.list_(kind, 2), st.lists(values, min_size=2, max_size=2))),
    )


def of_struct(members):
    names = [f"m{at}" for at in range(len(members))]
    kind = pa.struct([(name, kind) for name, (kind, _) in zip(names, members, strict=True)])
    values = {name: inner for name, (_, inner) in zip(names, members, strict=True)}
    return kind, st.fixed_dictionaries(values)


types = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.flatmap(of_list), st.lists(inner, min_size=1, max_size=3).map(of_struct)
    ),
    max_leaves=6,
)


def expected(kind, value):
    """Return what a reader is to see of a value, as `seen` has it."""
    per_second = {"ms": 10**6, "us": 10**3}
    if pa.types.is_temporal(kind):
        return value * per_second[kind.unit]
    if pa.types.is_struct(kind):
        return {each.name: in_field(each.type, value[each.name]) for each in kind}
    if isinstance(value, list):
        return {"items": in_field(kind, value)}
    return value


def in_field(kind, value):
    if isinstance(value, list):
        return [expected(kind.value_type, each) for each in value]
    return expected(kind, value)


@given(types.flatmap(lambda made: st.tuples(st.just(made[0]), st.lists(made[1], max_size=40))))
def test_values_of_any_type_are_seen_as_they_are(made):
    kind, values = made
    if kind in (pa.int64(), pa.float64()):
        return  # these are the buffer itself
    array = pa.array([None, *values, None], kind)[1:-1]
    message = encoded(array)
    assert seen(message)["data"] == [expected(kind, value) for value in values]
    assert decoded(message).array.equals(array)


@given(
    types.flatmap(
        lambda made: st.lists(st.none() | made[1], max_size=20).map(
            lambda values: pa.array(values, made[0])
        )
    )
)
def test_values_with_nulls_can_be_read_and_come_back(array):
    message = encoded(array)
    assert message.kind.encoding == "protobuf"
    assert len(seen(message)["data"]) == len(array)
    assert decoded(message).array.equals(array)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.type))
def test_every_type_can_be_read(array):
    shown = seen(encoded(array))
    assert len(shown["data"]) == len(array)


def test_members_have_names_that_readers_allow():
    names = ["a b", "a_b", "aB", "1", "", "ü", "data"]
    message = encoded(pa.array([dict.fromkeys(names, 1)]))
    (row,) = seen(message)["data"]
    assert list(row) == ["a_b", "a_b_2", "aB_3", "_1", "_", "__2", "data"]


def test_members_of_the_same_path_are_told_apart():
    array = pa.array([{"a": {"b": {"x": 1}}, "a_b": {"y": 2}}])
    assert seen(encoded(array))["data"] == [{"a": {"b": {"x": 1}}, "a_b": {"y": 2}}]


def test_deep_and_wide_types_are_shown_as_json():
    deep = 1
    for _ in range(40):
        deep = {"d": deep}
    wide = {f"m{n}": n for n in range(shapes.MAX_FIELDS + 1)}
    assert json.loads(seen(encoded(pa.array([wide])))["data"][0]) == wide
    message = encoded(pa.array([deep]))
    assert "{" in str(seen(message)["data"])
    assert decoded(message).array.to_pylist() == [deep]


def test_text_that_is_no_unicode_is_shown_all_the_same():
    array = pa.array([b"a\xff"]).view(pa.string())
    message = encoded(array)
    assert seen(message)["data"] == ["a\ufffd"]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["text"] * 100_000),
        pa.array([{"points": [1.0] * 1_000_000, "name": "n"}]),
        pa.array([{"text": "t" * 10_000_000}]),
        pa.array([[{"x": 1}] * 100_000]),
        pa.nulls(1 << 22),
    ],
    ids=lambda array: str(array.type),
)
def test_of_large_values_the_first_are_shown_and_a_note(array):
    message = encoded(array)
    shown = seen(message)
    assert shown["note"] == "only the first values are shown"
    assert len(shown["data"]) > 0
    assert len(message.tail) <= 2 * columns.MAX_SHOWN
    assert decoded(message).array.equals(array)


def test_a_message_that_stands_for_very_many_values_is_named_only():
    array = pa.RunEndEncodedArray.from_arrays([10**8], ["x"])
    assert len(encoded(array).tail) <= 2 * columns.MAX_SHOWN


def test_depth_pictures_of_wider_numbers_are_pictures():
    for kind, name in ((np.uint16, "mono16"), (np.uint16, "16UC1"), (np.float32, "32FC1")):
        array = pa.array(np.arange(8, dtype=kind))
        metadata = {"width": 4, "height": 2, "encoding": name}
        message = encoded(array, metadata)
        shown = seen(message)
        assert message.kind.schema_name == "foxglove.RawImage"
        assert (shown["width"], shown["height"], shown["encoding"]) == (4, 2, name)
        assert shown["data"] == array.to_numpy().tobytes()
        assert decoded(message).array.equals(array)
        assert decoded(message).metadata == metadata
        assert seen(encoded(array, metadata | {"width": 3})).get("width") is None


def test_a_gray_picture_has_the_name_that_viewers_know():
    metadata = {"width": 4, "height": 2, "encoding": "gray8"}
    message = encoded(pa.array(np.zeros(8, np.uint8)), metadata)
    assert seen(message)["encoding"] == "mono8"
    assert decoded(message).metadata == metadata


def older(array, meta=b""):
    """Return a message as earlier versions wrote it: a record batch alone."""
    schema = pa.schema([pa.field("data", array.type)])
    sink = pa.BufferOutputStream()
    custom = pa.KeyValueMetadata({b"dora.metadata": meta}) if meta else None
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([array], schema=schema), custom_metadata=custom)
    arrow = schema.serialize().to_pybytes()
    body = memoryview(sink.getvalue())[len(arrow) : -8]
    kind = Kind("arrow", "dora.old", "arrow", arrow, arrow, str(array.type))
    assert kind.channel_metadata == {
        ARROW_TYPE: base64.b64encode(arrow).decode(),
        TYPE_TEXT: str(array.type),
    }
    return Encoded(kind, b"", body, b"")


def test_a_copy_of_an_older_recording_shows_every_message(tmp_path):
    array = pa.array([{"x": 1.5, "name": "n"}])
    message = older(array, b'{"n":1}')
    assert decoded(message).array.equals(array)
    assert decoded(message).metadata == {"n": 1}
    file = RecordingFile(tmp_path / "a.mcap", "test")
    file.add("a/b", 1, 5, message)
    file.finish()
    file.close()
    with RecordingReader(tmp_path / "a.mcap") as reader:
        left_out = []
        messages = reader.messages()
        count = write_copy(
            reader, tmp_path / "b.mcap", messages, 1 << 30, lambda *why: left_out.append(why)
        )
        assert (count, left_out) == (1, [])
    with (tmp_path / "b.mcap").open("rb") as copy:
        ((schema, _, copied),) = make_reader(copy, validate_crcs=True).iter_messages()
    (row,) = message_of(schema.name, schema.data, copied.data).data
    assert (row.x, row.name) == (1.5, "n")
    with RecordingReader(tmp_path / "b.mcap") as reader:
        assert [each.decode().array for each in reader.messages()] == [array]
