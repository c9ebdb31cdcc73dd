"""The names of types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.errors import TextError
from dorad.dataflow.nearest import distance, near
from dorad.dataflow.types.urn import Urn, parse_urn
from tests.dataflow.reading import unhurried

WORDS = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "urn"),
    [
        ("std/media/v1/Image", Urn("std/media/v1/Image")),
        ("std/media/v1/Image[encoding=rgb8]", Urn("std/media/v1/Image", {"encoding": "rgb8"})),
        ("a/v1/B[ x = 1 ,y=a/b c]", Urn("a/v1/B", {"x": "1", "y": "a/b c"})),
        ("Float64", Urn("Float64")),
    ],
)
def test_a_urn_is_a_path_with_optional_parameters(text: str, urn: Urn) -> None:
    assert parse_urn(text) == urn


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "a b",
        "a[",
        "a]",
        "a[]",
        "a[x]",
        "a[x=]",
        "a[=1]",
        "a[x=1,]",
        "a[x=1]b",
        "a[x=1][y=2]",
        "a[x=1,x=2]",
        "a[x=[1]]",
    ],
)
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(TextError):
        parse_urn(text)


@unhurried
@given(
    base=st.lists(WORDS, min_size=1, max_size=4).map("/".join),
    params=st.dictionaries(WORDS, WORDS, max_size=3),
)
def test_a_printed_urn_is_read_back(base: str, params: dict[str, str]) -> None:
    urn = Urn(base, params)
    assert parse_urn(str(urn)) == urn


@unhurried
@given(a=st.text("abc", max_size=6), b=st.text("abc", max_size=6), c=st.text("abc", max_size=6))
def test_the_distance_of_words_is_one(a: str, b: str, c: str) -> None:
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert abs(len(a) - len(b)) <= distance(a, b) <= max(len(a), len(b))


def test_near_means_at_most_two_letters_and_less_than_half_of_the_word() -> None:
    assert near("std/media/v1/Imgae", ["std/math/v1/Pose", "std/media/v1/Image"])
    assert near("std/media/v1/Imgaex", ["std/media/v1/Image"]) is None
    assert near("Nope", ["Pose"]) is None
    assert near("twsit", ["Twist"]) == "Twist"
