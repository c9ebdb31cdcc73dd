"""Parameters of nodes: valid keys and values, and checks against a declaration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dorad.dataflow.document import MAX_DEPTH
from dorad.dataflow.errors import TextError
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.settings import ParamSpec, ParamType
from dorad.phrases import shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.dataflow.model import NodeSpec

MAX_KEY_SIZE = 256
"""Bytes of UTF-8, as in dora 1.x."""
MAX_VALUE_SIZE = 64 << 10
"""Bytes of JSON, as in dora 1.x."""

_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_MAX_ESCAPE = 6


def check_key(key: str) -> None:
    """Raise TextError unless `key` is a valid parameter name."""
    if not key:
        raise TextError("the name of a parameter cannot be empty")
    if "\0" in key:
        raise TextError("the name of a parameter cannot contain a NUL character")
    if len(key.encode(errors="replace")) > MAX_KEY_SIZE:
        raise TextError(f"the name of a parameter is longer than {MAX_KEY_SIZE} bytes")


def as_json(value: object) -> bytes:
    """Return a value as JSON, for comparisons: for Python, 1 is True."""
    import msgspec  # here, because a dataflow is loaded without it

    return msgspec.json.encode(value, order="deterministic")


def check(spec: ParamSpec | None, value: object) -> Any:
    """Return the value to store: a whole number becomes a float if the type is `float`.

    Without `spec` the parameter is not declared, and any JSON value is valid. Raises TextError,
    a ValueError with the reason why the value is invalid.
    """
    _check_plain(value, 0)
    _check_size(value)
    if spec is None:
        return value
    value = _typed(spec.type, value)
    low, high = spec.minimum, spec.maximum
    if isinstance(value, int | float) and not isinstance(value, bool):
        if low is not None and high is not None and not low <= value <= high:
            raise TextError(f"must be from {low} to {high}, not {_show(value)}")
        if low is not None and value < low:
            raise TextError(f"must be at least {low}, not {_show(value)}")
        if high is not None and value > high:
            raise TextError(f"must be at most {high}, not {_show(value)}")
    if spec.choices and value not in spec.choices:
        words = ", ".join(map(_show, spec.choices))
        texts = [choice for choice in spec.choices if isinstance(choice, str)]
        hint = did_you_mean(value, texts) if isinstance(value, str) else None
        raise TextError(f"must be one of {words}, not {_show(value)}", hint)
    return value


def initial(node: NodeSpec) -> dict[str, Any]:
    """Return the parameters of a node at its first start: the defaults."""
    return {key: spec.default for key, spec in node.declared.items() if spec.default is not None}


def type_of(value: object) -> ParamType | None:
    """Return the type of a value; None for null and for anything that JSON cannot hold."""
    return next((kind for kind, fits in _FITS.items() if fits(value)), None)


_FITS: dict[ParamType, Callable[[object], bool]] = {
    ParamType.BOOL: lambda value: isinstance(value, bool),
    ParamType.INT: lambda value: isinstance(value, int) and not isinstance(value, bool),
    ParamType.FLOAT: lambda value: isinstance(value, float),
    ParamType.STRING: lambda value: isinstance(value, str),
    ParamType.LIST: lambda value: isinstance(value, list),
    ParamType.MAP: lambda value: isinstance(value, dict),
}
_WORDS = {
    ParamType.BOOL: "true or false",
    ParamType.INT: "a whole number",
    ParamType.FLOAT: "a number",
    ParamType.STRING: "text",
    ParamType.LIST: "a list",
    ParamType.MAP: "a mapping",
}


def _typed(kind: ParamType, value: object) -> Any:
    if kind is ParamType.FLOAT and _FITS[ParamType.INT](value):
        assert isinstance(value, int)
        return float(value)
    if _FITS[kind](value):
        return value
    hint = None
    if isinstance(value, str) and kind in (ParamType.BOOL, ParamType.INT, ParamType.FLOAT):
        hint = "without quotes"
    elif kind is ParamType.STRING and not isinstance(value, list | dict):
        hint = "put it in quotes"
    raise TextError(f"must be {_WORDS[kind]}, not {_show(value)}", hint)


def _check_plain(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TextError(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise TextError(f"must be a finite number, not {value}")
    if isinstance(value, int) and not _MIN_INT <= value <= _MAX_INT:
        raise TextError(f"{_show(value)} does not fit into 64 bits")
    if isinstance(value, list):
        for item in value:
            _check_plain(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TextError(f"the key {shorten(repr(key))} of a mapping must be text")
            _check_plain(item, depth + 1)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise TextError(f"a {type(value).__name__} is not a JSON value")


def _check_size(value: object) -> None:
    if isinstance(value, str) and len(value) * _MAX_ESCAPE < MAX_VALUE_SIZE:
        return
    if not isinstance(value, str | list | dict):
        return
    import msgspec  # here, because most values are small scalars

    try:
        size = len(msgspec.json.encode(value))
    except UnicodeEncodeError:
        raise TextError("contains half of a surrogate pair, which is not valid text") from None
    if size > MAX_VALUE_SIZE:
        raise TextError(f"is {size} bytes of JSON; the limit is {MAX_VALUE_SIZE}")


def _show(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f"`{shorten(value)}`" if value else "empty text"
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return shorten(str(value))
