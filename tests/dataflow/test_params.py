"""Parameters: declared in the file, with a type, bounds and choices that values are held to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.errors import TextError
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.params import MAX_VALUE_SIZE, check, check_key, initial, type_of
from dorad.dataflow.settings import ParamSpec, ParamType
from tests.dataflow.reading import FILE, node, path_node, path_node_text, problem, read, unhurried

_FIRST = len("    params: ") + 1
_MIXED = """\
params:
  gain: 1.5
  count: 3
  fast: true
  mode: slow
  list: [1, a]
  whole: {type: float, default: 2, min: 0, max: 10, description: How much.}
  unset: {type: map}
  level: {default: low, choices: [low, high]}
  place: {default: {x: 1}}
"""


def test_short_and_long_forms() -> None:
    declared = path_node(_MIXED).declared
    assert declared == {
        "gain": ParamSpec(ParamType.FLOAT, 1.5),
        "count": ParamSpec(ParamType.INT, 3),
        "fast": ParamSpec(ParamType.BOOL, True),
        "mode": ParamSpec(ParamType.STRING, "slow"),
        "list": ParamSpec(ParamType.LIST, [1, "a"]),
        "whole": ParamSpec(ParamType.FLOAT, 2.0, 0.0, 10.0, (), "How much."),
        "unset": ParamSpec(ParamType.MAP),
        "level": ParamSpec(ParamType.STRING, "low", choices=("low", "high")),
        "place": ParamSpec(ParamType.MAP, {"x": 1}),
    }
    assert isinstance(declared["whole"].default, float)


def test_a_node_starts_with_the_defaults() -> None:
    found = initial(path_node(_MIXED))
    assert found["whole"] == 2.0
    assert found["fast"] is True
    assert "unset" not in found
    assert initial(path_node("args: x")) == {}


@pytest.mark.parametrize("path", ["dynamic", "shell", "https://example.org/x", "a.py"])
def test_every_kind_of_program_declares_them(path: str) -> None:
    found = node(f"path: {path}\nargs: x\nparams: {{a: 1}}")
    assert found.declared["a"].default == 1
    assert found.params == {}


def test_a_descriptor_keeps_them() -> None:
    first = read(path_node_text(_MIXED))
    wire = msgspec.json.decode(msgspec.json.encode(first.descriptor))
    assert from_descriptor(wire, path=FILE) == first


@pytest.mark.parametrize(
    ("written", "at", "message"),
    [
        ("{a: {typ: int}}", 5, "a.typ: unknown key `typ` (did you mean `type`?)"),
        ("{a: {type: integer}}", 11, "bool, int, float, string, list, map, not `integer` (did you"),
        ("{a: {type: flaot}}", 11, "not `flaot` (did you mean `float`?)"),
        ("{a: ~}", 4, "a: has no value (write its default"),
        ("{a: {}}", 1, "a: needs `type` or `default`"),
        ("{a: {min: 1}}", 1, "a: needs `type` or `default`"),
        ("{a: {type: int, default: 1.5}}", 25, "default: must be a whole number, not 1.5"),
        ("{a: {type: int, default: '1'}}", 25, "not `1` (without quotes)"),
        ("{a: {type: string, default: 1}}", 28, "must be text, not 1 (put it in quotes)"),
        ("{a: {type: bool, default: yes}}", 26, "must be true or false, not `yes`"),
        ("{a: {type: float, default: true}}", 27, "must be a number, not true"),
        ("{a: {default: 5, max: 4}}", 14, "default: must be at most 4, not 5"),
        ("{a: {default: 5, min: 6}}", 14, "default: must be at least 6, not 5"),
        ("{a: {default: 5, min: 6, max: 9}}", 14, "default: must be from 6 to 9, not 5"),
        ("{a: {type: int, min: 6, max: 5}}", 21, "min: is above `max`, which is 5"),
        ("{a: {type: int, min: 0.5}}", 21, "min: must be a whole number, not 0.5"),
        ("{a: {type: float, min: .nan}}", 23, "min: must be a finite number, not nan"),
        ("{a: {type: string, min: 1}}", 19, "only numbers have a `min`, and the type is `string`"),
        ("{a: {type: int, choices: []}}", 25, "choices: allows nothing"),
        ("{a: {type: int, choices: [1, b]}}", 29, "choices[1]: must be a whole number, not `b`"),
        ("{a: {type: int, choices: 1}}", 25, "choices: must be a list, not 1"),
        ("{a: {default: lo, choices: [low, high]}}", 14, "not `lo` (did you mean `low`?)"),
        ("{a: .inf}", 4, "a: must be a finite number, not inf"),
        ("{a: [.nan]}", 4, "a: must be a finite number, not nan"),
        ("{a: 9223372036854775808}", 4, "does not fit into 64 bits"),
        ("{'': 1}", 1, "the name of a parameter cannot be empty"),
        (f"{{{'a' * 257}: 1}}", 1, "the name of a parameter is longer than 256 bytes"),
        ("[a]", 0, "params: must be a mapping, not a list"),
        ("{a: {type: int, default: 1, description: [x]}}", 41, "must be text, not a list"),
    ],
)
def test_mistakes_have_their_place(written: str, at: int, message: str) -> None:
    found = problem(path_node_text(f"params: {written}"))
    assert message in str(found)
    assert (found.line, found.column) == (4, _FIRST + at)


_INT = ParamSpec(ParamType.INT, minimum=0, maximum=10)
_FLOAT = ParamSpec(ParamType.FLOAT)
_MODE = ParamSpec(ParamType.STRING, choices=("slow", "fast"))


@pytest.mark.parametrize(
    ("spec", "value", "held"),
    [
        (_INT, 10, 10),
        (_FLOAT, 2, 2.0),
        (_FLOAT, 2.5, 2.5),
        (_MODE, "fast", "fast"),
        (ParamSpec(ParamType.FLOAT, choices=(1.0, 2.0)), 1, 1.0),
        (ParamSpec(ParamType.MAP), {"a": [None, True]}, {"a": [None, True]}),
        (None, None, None),
        (None, "x", "x"),
    ],
)
def test_values_that_a_parameter_takes(spec: ParamSpec | None, value: object, held: Any) -> None:
    found = check(spec, value)
    assert (found, type(found)) == (held, type(held))


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (_INT, True, "must be a whole number, not true"),
        (_INT, 1.0, "must be a whole number, not 1.0"),
        (_INT, 11, "must be from 0 to 10, not 11"),
        (_INT, None, "must be a whole number, not nothing"),
        (_FLOAT, True, "must be a number, not true"),
        (_FLOAT, float("nan"), "must be a finite number, not nan"),
        (_FLOAT, 2**63, "does not fit into 64 bits"),
        (_MODE, "FAST", "must be one of `slow`, `fast`, not `FAST`"),
        (ParamSpec(ParamType.LIST), {}, "must be a list, not a mapping"),
        (None, "x" * MAX_VALUE_SIZE, "is 65538 bytes of JSON; the limit is 65536"),
        (None, ["\x01" * (MAX_VALUE_SIZE // 6 + 1)], "bytes of JSON"),
        (None, {1: 2}, "the key 1 of a mapping must be text"),
        (None, {"a": {1}}, "a set is not a JSON value"),
        (None, "\ud800", None),
    ],
)
def test_values_that_are_refused(
    spec: ParamSpec | None, value: object, message: str | None
) -> None:
    if message is None:
        value, message = [value], "half of a surrogate pair"
    with pytest.raises(TextError) as caught:
        check(spec, value)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    for _ in range(40):
        value = [value]
    with pytest.raises(TextError, match="nested more than 32 deep"):
        check(None, value)


@pytest.mark.long
@unhurried
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_a_parameter_survives_json(value: object) -> None:
    try:
        held = check(None, value)
    except TextError:
        return
    assert msgspec.json.decode(msgspec.json.encode(held)) == held
    assert (type_of(held) is None) == (held is None)


@pytest.mark.parametrize("key", ["", "a\0b", "é" * 129])
def test_keys_that_are_refused(key: str) -> None:
    with pytest.raises(TextError, match="the name of a parameter"):
        check_key(key)


def test_keys_that_are_valid() -> None:
    check_key("a b/c.é")
    check_key("a" * 256)
