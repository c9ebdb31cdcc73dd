"""Compare two messages: the first difference, with its path, and tolerances. Pure functions."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from dorad.control.arrayvalues import to_python

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NEVER_COMPARED = frozenset(
    ("timestamp", "open_telemetry_context", "request_id", "goal_id", "session_id", "traceparent")
)
"""Metadata that differ from run to run."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a comparison."""

    tolerance: float = 0.0
    """Largest difference of two numbers, absolute, or relative to the larger one."""
    by_topic: Mapping[str, float] = field(default_factory=dict)
    """Other tolerances, by patterns of topics such as `detector/*`."""
    ignore: Sequence[str] = ()
    """Patterns of excluded topics and fields: `topic`, or `topic:path` with the path of a
    `Difference`, such as `*:metadata.seq` or `arm/pose:data[3]`; `[` is no special character.
    """

    def tolerance_of(self, topic: str) -> float:
        """Return the tolerance for a topic."""
        for pattern, value in self.by_topic.items():
            if fnmatch.fnmatchcase(topic, pattern):
                return value
        return self.tolerance

    def ignores(self, topic: str, path: str = "") -> bool:
        """Return True if a topic, or a path in its messages, is not compared."""
        for pattern in self.ignore:
            name, colon, inner = pattern.partition(":")
            if not fnmatch.fnmatchcase(topic, name):
                continue
            # A class of characters would not match the brackets of a path.
            if not colon or (path and fnmatch.fnmatchcase(path, inner.replace("[", "[[]"))):
                return True
        return False


class Difference(NamedTuple):
    """Where two messages differ first."""

    topic: str
    number: int
    """Number of the message on its topic, from 0."""
    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"{self.topic}, message {self.number}"
        place = f", {self.path}" if self.path else ""
        return f"{where}{place}: expected {self.expected}, got {self.found}"


class Content(NamedTuple):
    """The compared parts of a message."""

    array: pa.Array
    metadata: Mapping[str, Any]


def difference(
    topic: str, index: int, expected: Content, actual: Content, rules: Rules
) -> Difference | None:
    """Return where two messages of a topic differ first, None if they are equal."""
    if rules.ignores(topic):
        return None
    tolerance = rules.tolerance_of(topic)

    def make(path: str, one: Any, other: Any) -> Difference | None:
        return Difference(topic, index, path, _text(one), _text(other))

    def ignored(path: str) -> bool:
        return rules.ignores(topic, path)

    one, other = expected.array, actual.array
    if one.type != other.type:
        if not ignored("type"):
            return make("type", str(one.type), str(other.type))
    elif not ignored("data") and not one.equals(other):
        place = _first(one, other, tolerance, ignored)
        if place is not None:
            return make(*place)
    for key in sorted({*expected.metadata, *actual.metadata} - NEVER_COMPARED):
        path = f"metadata.{key}"
        if ignored(path):
            continue
        missing = object()
        left = expected.metadata.get(key, missing)
        right = actual.metadata.get(key, missing)
        if left is missing or right is missing:
            return make(
                path,
                "nothing" if left is missing else left,
                "nothing" if right is missing else right,
            )
        if (place := _values(path, left, right, tolerance, ignored)) is not None:
            return make(*place)
    return None


_Place = tuple[str, Any, Any]
_Ignored = Callable[[str], bool]
"""Whether a path is not compared."""
_Floats = np.ndarray[Any, np.dtype[np.float64]]


def _first(one: pa.Array, other: pa.Array, tolerance: float, ignored: _Ignored) -> _Place | None:
    if len(one) != len(other):
        if not ignored("length"):
            return ("length", len(one), len(other))
        common = min(len(one), len(other))
        one, other = one[:common], other[:common]
    # Arrow ends the process where it shall make a NumPy array of intervals.
    numbers = pa.types.is_primitive(one.type) and not pa.types.is_interval(one.type)
    if numbers and not (one.null_count or other.null_count):
        places = _unequal_numbers(one, other, tolerance)
        at = next((int(each) for each in places if not ignored(f"data[{each}]")), None)
        if at is None:
            return None
        # Together: a time that `datetime` cannot hold makes both integers.
        pair = to_python(pa.concat_arrays([one[at : at + 1], other[at : at + 1]]))
        return (f"data[{at}]", *pair)
    for at in range(len(one)):
        place = _values(f"data[{at}]", _value(one, at), _value(other, at), tolerance, ignored)
        if place is not None:
            return place
    return None


def _value(array: pa.Array, at: int) -> Any:
    return to_python(array[at : at + 1])[0]


def _unequal_numbers(one: pa.Array, other: pa.Array, tolerance: float) -> Any:
    """Return where numbers without nulls differ."""
    left, right = (_to_numpy(each) for each in (one, other))
    unequal = (left != right) & ~(np.isnan(left) & np.isnan(right))
    if tolerance and (pa.types.is_integer(one.type) or pa.types.is_floating(one.type)):
        unequal &= ~_close(left.astype(np.float64), right.astype(np.float64), tolerance)
    return np.flatnonzero(unequal)


def _to_numpy(array: pa.Array) -> Any:
    if pa.types.is_time(array.type):
        # NumPy has no times of day, and those of Python have no nanoseconds.
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    values: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    return values


def _close(left: _Floats, right: _Floats, tolerance: float) -> Any:
    """Return where numbers are as close as `math.isclose` in `_equal` wants them."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinities, and NaN
        scale = np.maximum(1.0, np.maximum(np.abs(left), np.abs(right)))
        return (np.abs(left - right) <= tolerance * scale) & np.isfinite(left) & np.isfinite(right)


def _values(path: str, one: Any, other: Any, tolerance: float, ignored: _Ignored) -> _Place | None:
    """Return the first difference of two values of a message."""
    if ignored(path):
        return None
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            place = _values(f"{path}.{key}", one.get(key), other.get(key), tolerance, ignored)
            if place is not None:
                return place
        return None
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other) and not ignored(f"{path} length"):
            return (f"{path} length", len(one), len(other))
        for at, pair in enumerate(zip(one, other, strict=False)):
            place = _values(f"{path}[{at}]", *pair, tolerance, ignored)
            if place is not None:
                return place
        return None
    return None if _equal(one, other, tolerance) else (path, one, other)


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if one == other:
        return isinstance(one, bool) == isinstance(other, bool)
    if not (_is_number(one) and _is_number(other)):
        return False
    if math.isnan(one) and math.isnan(other):
        return True
    return bool(tolerance) and math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) and value == "nothing" else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
