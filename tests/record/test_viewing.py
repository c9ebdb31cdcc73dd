"""What viewers can show of each type, and copies of recordings for them."""

import json
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from mcap.reader import make_reader

from dorad.record.reader import RecordingReader
from dorad.record.viewing import needs_copy, viewable, write_copy
from tests.record.files import numbers, write
from tests.record.test_encoding import ARRAYS


def shown(array):
    """Return the values that a viewer gets, by path."""
    return {
        path: found.to_pylist() if isinstance(found, pa.Array) else found
        for path, found in viewable(array)
    }


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([True, False]), {"": [1, 0]}),
        (pa.array([-1, 2], pa.int8()), {"": [-1, 2]}),
        (pa.array([1, 65535], pa.uint16()), {"": [1, 65535]}),
        (pa.array([np.float16(1.5)]), {"": [1.5]}),
        (pa.array([Decimal("1.25")]), {"": [1.25]}),
        (pa.array(["a", "ü"]), {"": ["a", "ü"]}),
        (pa.array(["a", "b", "a"]).dictionary_encode(), {"": ["a", "b", "a"]}),
        (pa.array([[1, 2], None]), {"": ["[1, 2]", "null"]}),
        (pa.array([{"x": 1.0, "y": {"name": "n"}}]), {"/x": [1.0], "/y/name": ["n"]}),
        (pa.nulls(2), {"": ["null", "null"]}),
    ],
)
def test_numbers_and_texts_stay_what_they_are_and_the_rest_becomes_json(array, expected):
    assert shown(array) == expected


def test_missing_numbers_are_not_a_number():
    one, missing = shown(pa.array([1, None]))[""]
    assert one == 1.0
    assert math.isnan(missing)


def test_a_message_that_stands_for_very_many_values_is_named_only():
    array = pa.RunEndEncodedArray.from_arrays([10**8], ["x"])
    assert shown(array)[""] == [f"100000000 x {array.type}"]


def test_a_copy_has_every_message_and_nothing_that_only_arrow_can_read(tmp_path):
    pixels = pa.array(np.zeros(96, np.uint8))
    lines = [("cam/image", 0, pixels, {"width": 8, "height": 4, "encoding": "rgb8"})]
    lines += [(f"all/{number}", number, array, {"n": 1}) for number, array in enumerate(ARRAYS)]
    source, copy = write(tmp_path / "a.mcap", lines), tmp_path / "b.mcap"
    with RecordingReader(source) as reader:
        assert needs_copy(reader)
        write_copy(reader, copy)
        recorded = reader.topics()
    with copy.open("rb") as file:
        found = [
            (schema.name, channel.topic, message.data)
            for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages()
            if channel.message_encoding == "protobuf"
        ]
    topics = {"/".join(topic.split("/")[:2]) for _, topic, _ in found}
    assert topics == {topic for topic in recorded if not topic.startswith("dora/")}
    assert json.dumps({"n": 1}, separators=(",", ":")).encode() in found[-1][2]
    (image,) = [data for name, _, data in found if name == "foxglove.RawImage"]
    assert bytes(96) in image


def test_a_recording_of_numbers_needs_no_copy(tmp_path):
    with RecordingReader(write(tmp_path / "a.mcap", numbers(3))) as reader:
        assert not needs_copy(reader)
