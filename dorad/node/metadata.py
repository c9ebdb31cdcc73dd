"""Encode and decode a message's metadata: a flat dictionary, transferred as JSON.

Values are bool, int (64 bits, signed), float, str, datetime, and lists or tuples of int, of float
or of str. Any other value is sent as `str(value)` with a warning, as in dora.
"""

from __future__ import annotations

import functools
import json
import json.encoder
import json.scanner
import warnings
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any

_INT_MIN = -(1 << 63)
_INT_MAX = (1 << 63) - 1
_TIME = "$time"
"""The only key of a JSON object that encodes a datetime; user values are never objects."""
_TIME_MARK = _TIME.encode()

_dump = json.JSONEncoder(separators=(",", ":")).encode
_scan = json.scanner.make_scanner(json.JSONDecoder())  # type: ignore[arg-type]  # typeshed errs
_quote = json.encoder.encode_basestring_ascii
_EPOCH = datetime.fromtimestamp(0, UTC)


@functools.lru_cache(maxsize=4096)
def _prefix(key: str) -> str:
    return _quote(key) + ":"


def encode(metadata: dict[str, Any]) -> bytes:
    """Return the bytes of a node's metadata.

    Raises:
        RuntimeError: a key is not a string.
        OverflowError: an int does not fit into 64 bits.
        TypeError: `metadata` is not a dictionary, or a list has a value of another type.
    """
    if not isinstance(metadata, dict):
        raise TypeError(
            f"metadata must be a dict, got {type(metadata).__module__}."
            f"{type(metadata).__qualname__}"
        )
    # Code for the common types takes half the time of json.dumps.
    parts = []
    for key, value in metadata.items():
        if type(key) is not str:
            if not isinstance(key, str):
                raise RuntimeError(f"metadata keys must be strings, got {key!r}")
            key = str.__str__(key)
        kind = type(value)
        if kind is str:
            parts.append(_prefix(key) + _quote(value))
        elif kind is int and _INT_MIN <= value <= _INT_MAX:
            parts.append(_prefix(key) + str(value))
        elif kind is float and value - value == 0.0:  # finite
            parts.append(_prefix(key) + repr(value))
        else:
            parts.append(_prefix(key) + _dump(_convert(key, value)))
    return ("{" + ",".join(parts) + "}").encode()


def _convert(key: str, value: Any) -> Any:
    if isinstance(value, bool | str | float):
        # Subclasses (numpy.float64, enums of str) are sent as their base type.
        if isinstance(value, bool):
            return value
        return str.__str__(value) if isinstance(value, str) else float(value)
    if isinstance(value, int):
        return _checked_int(key, int(value))
    if isinstance(value, datetime):
        # A naive datetime is the sender's local time, as in dora 1.1.0.
        offset = value.astimezone(UTC) - _EPOCH
        return {_TIME: (offset.days * 86_400 + offset.seconds) * 1_000_000 + offset.microseconds}
    if isinstance(value, list | tuple):
        return _convert_list(key, value)
    warnings.warn(
        f"metadata {key!r} is of type {type(value).__name__}, which is sent as text",
        RuntimeWarning,
        stacklevel=5,
    )
    return str(value)


def _checked_int(key: str, value: int) -> int:
    if not _INT_MIN <= value <= _INT_MAX:
        raise OverflowError(f"metadata {key!r} does not fit into 64 bits: {value}")
    return value


def _convert_list(key: str, values: list[Any] | tuple[Any, ...]) -> Any:
    """Return a list of the first value's type. As in dora, an int is also a float of its value."""
    if not values:
        return []
    first = values[0]
    try:
        if isinstance(first, str):
            return [str.__str__(value) for value in values]
        if isinstance(first, float):
            return array("d", values).tolist()
        if isinstance(first, int) and not isinstance(first, bool):
            return array("q", values).tolist()
    except TypeError:
        kinds = dict.fromkeys(type(value).__name__ for value in values)
        raise TypeError(f"metadata {key!r} mixes types in a list: {', '.join(kinds)}") from None
    except OverflowError as error:
        raise OverflowError(f"metadata {key!r} does not fit into 64 bits: {error}") from None
    warnings.warn(
        f"metadata {key!r} is a list of {type(first).__name__}, which is sent as text",
        RuntimeWarning,
        stacklevel=6,
    )
    return str(list(values))


def decode(data: bytes) -> dict[str, Any]:
    """Return the metadata as a new dictionary.

    Raises:
        ValueError: the bytes are not metadata.
    """
    try:
        metadata: dict[str, Any] = _scan(data.decode(), 0)[0]
        if type(metadata) is not dict:
            raise TypeError("not a dictionary")
        if _TIME_MARK in data:
            for key, value in metadata.items():
                if type(value) is dict:
                    metadata[key] = _EPOCH + timedelta(microseconds=value[_TIME])
    except (StopIteration, RecursionError, TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"its metadata are malformed ({error!r})") from error
    return metadata
