"""Metadata: accepted values, and their form on arrival."""

import math
import warnings
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node.metadata import decode, encode

INT64 = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.datetimes(
    datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.sampled_from([UTC, timezone.max])
)
TEXT = st.text()
VALUES = st.one_of(
    st.booleans(),
    INT64,
    st.floats(allow_nan=False),
    TEXT,
    MOMENTS,
    st.lists(INT64),
    st.lists(st.floats(allow_nan=False)),
    st.lists(TEXT),
)


@given(st.dictionaries(TEXT, VALUES))
def test_every_accepted_value_arrives_as_sent(metadata: dict[str, Any]) -> None:
    arrived = decode(encode(metadata))
    assert arrived == metadata
    for key, value in metadata.items():
        assert type(arrived[key]) is type(value)


def test_each_decoding_gives_a_fresh_dictionary() -> None:
    data = encode({"a": [1]})
    decode(data)["a"].append(2)
    assert decode(data) == {"a": [1]}


def test_nan_and_infinities_arrive() -> None:
    arrived = decode(encode({"nan": math.nan, "up": math.inf, "down": -math.inf}))
    assert math.isnan(arrived["nan"])
    assert (arrived["up"], arrived["down"]) == (math.inf, -math.inf)


def test_a_tuple_arrives_as_a_list() -> None:
    assert decode(encode({"a": (1, 2)})) == {"a": [1, 2]}


def test_a_naive_datetime_is_local_time() -> None:
    naive = datetime(2026, 6, 1, 12)
    assert decode(encode({"t": naive})) == {"t": naive.astimezone(UTC)}


def test_a_datetime_arrives_as_utc() -> None:
    sent = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert decode(encode({"t": sent}))["t"].tzinfo is UTC


@pytest.mark.parametrize(
    "sent", [datetime.min, datetime.max, datetime(2500, 1, 1, 0, 0, 0, 123457)]
)
def test_every_datetime_arrives_exactly(sent: datetime) -> None:
    sent = sent.replace(tzinfo=UTC)
    assert decode(encode({"t": sent})) == {"t": sent}


def test_subclasses_arrive_as_their_base_type() -> None:
    class Colour(StrEnum):
        RED = "red"

    class Mixed(str, Enum):  # noqa: UP042 - its str() is not its text
        BLUE = "blue"

    sent = {"c": Colour.RED, "m": Mixed.BLUE, "f": np.float64(1.5), np.str_("k"): 1}
    arrived = decode(encode(sent))
    assert arrived == {"c": "red", "m": "blue", "f": 1.5, "k": 1}
    assert {type(value) for value in arrived.values()} == {str, float, int}
    assert {type(key) for key in arrived} == {str}


@pytest.mark.parametrize(
    "value",
    [None, {"a": 1}, b"x", np.int32(3), np.zeros(2), [True, False], {1, 2}],
    ids=["none", "dict", "bytes", "numpy-scalar", "numpy-array", "bools", "set"],
)
def test_any_other_value_arrives_as_text_with_a_warning(value: Any) -> None:
    with pytest.warns(RuntimeWarning, match="metadata 'key'"):
        assert decode(encode({"key": value})) == {"key": str(value)}


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, [1, 2**63]])
def test_an_int_beyond_64_bits_is_refused(value: Any) -> None:
    with pytest.raises(OverflowError, match="'key'"):
        encode({"key": value})


@pytest.mark.parametrize(
    ("values", "arrived"),
    [
        ([0.5, 0, 1], [0.5, 0.0, 1.0]),
        ((1.5, True, np.float32(2), np.int64(3)), [1.5, 1.0, 2.0, 3.0]),
        ([1.5, 2**64], [1.5, 2.0**64]),
        ([1, True, np.int64(3)], [1, 1, 3]),
    ],
)
def test_values_of_a_list_get_the_type_of_the_first_one_as_in_dora(
    values: Any, arrived: list[Any]
) -> None:
    found = decode(encode({"key": values}))["key"]
    assert found == arrived
    assert {type(value) for value in found} == {type(arrived[0])}


@pytest.mark.parametrize("values", [[1, "a"], [1, 2.5], ["a", 1], [1.5, "2"], [1, None]])
def test_a_list_of_several_types_is_refused(values: list[Any]) -> None:
    with pytest.raises(TypeError, match="mixes types"):
        encode({"key": values})


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_a_key_must_be_a_string(key: Any) -> None:
    with pytest.raises(RuntimeError, match="must be strings"):
        encode({key: 1})


@pytest.mark.parametrize("metadata", [[("a", 1)], "a", 5])
def test_metadata_must_be_a_dictionary(metadata: Any) -> None:
    with pytest.raises(TypeError, match="must be a dict"):
        encode(metadata)


def test_accepted_values_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode({"a": 1, "b": [], "c": (), "d": True, "e": datetime(2026, 1, 1)})
