"""Plain JSON becomes the same Arrow array without pyarrow as with it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.daemon.subscription.tasks import encode_plain
from dorad.node.offline.arrowjson import from_json
from dorad.shm.arrow import decode, encode
from tests.dataflow.reading import unhurried

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
_KINDS: list[st.SearchStrategy[Any]] = [
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    _TEXTS,
]
_LISTS = [st.lists(kind, min_size=1, max_size=20) for kind in _KINDS]


def _joined(parts: Any, size: int) -> bytes:
    payload = bytearray(size)
    for at, data in parts:
        payload[at : at + len(data)] = bytes(data)
    return bytes(payload)


@unhurried
@given(st.one_of(*_KINDS, *_LISTS))
def test_the_same_array(value: Any) -> None:
    found = encode_plain(value)
    assert found is not None
    code, length, nulls, size, parts = found
    expected = from_json(value)
    array = decode(code, length, nulls, pa.py_buffer(_joined(parts, size)))
    array.validate(full=True)
    assert array.type == expected.type
    assert str(array.to_pylist()) == str(expected.to_pylist())  # NaN differs from itself
    assert found[:4] == encode(expected)[:4]


@pytest.mark.parametrize(
    "value",
    [None, [], [None], {}, {"a": 1}, [[1]], [1, 2.5], [1, True], ["a", 1], 2**63, "\ud800"],
)
def test_other_values_are_left_to_pyarrow(value: Any) -> None:
    assert encode_plain(value) is None


def test_it_does_not_import_pyarrow() -> None:
    code = (
        "import sys, dorad.daemon.subscription.tasks as p; p.encode_plain([1]);"
        "sys.exit('pyarrow' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
