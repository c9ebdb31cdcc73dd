"""Change single values of a module's file on their way into the dataflow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.dataflow.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{_param\.([A-Za-z0-9_]+)\}|\$(PARAM_[A-Za-z0-9_]+)")


def with_key(value: Value, key: str) -> Value:
    """Return a deep copy of the value under another key."""
    data = value.data
    if isinstance(data, dict):
        data = {name: with_key(child, f"{key}.{name}") for name, child in data.items()}
    elif isinstance(data, list):
        data = [with_key(child, f"{key}[{index}]") for index, child in enumerate(data)]
    return replace(value, key=key, data=data)


def copied_to(value: Value, key: str, at: Value) -> Value:
    """Return a copy under another key with the position of `at`, which is in the right file."""
    moved = with_key(value, key)
    _move(moved, at)
    return moved


def text(content: str, key: str, at: Value) -> Value:
    """Return a new text value with the position of `at`."""
    return Value(content, content, key, at.line, at.column, at.name_line, at.name_column)


def entries(owner: Value, name: str) -> dict[str, Value]:
    """Return the entries of the mapping `name` in a mapping; empty if there is none."""
    assert isinstance(owner.data, dict)
    value = owner.data.get(name)
    return value.data if value is not None and isinstance(value.data, dict) else {}


def set_entries(owner: Value, name: str, content: Mapping[str, Value]) -> None:
    """Set the mapping `name` in a mapping."""
    assert isinstance(owner.data, dict)
    key = f"{owner.key}.{name}"
    before = owner.data.get(name) or text("", key, owner)
    owner.data[name] = replace(before, text="", data=dict(content))


def substitute(text: str, params: Mapping[str, str]) -> str:
    """Return the text with `${_param.key}` and `$PARAM_KEY` replaced by the parameter's text.

    As in dora 1.x, the first form is case-sensitive, references to unknown parameters stay, and
    replaced text is not expanded again.
    """
    if "$" not in text or not params:
        return text
    by_variable = variables(params)

    def value(match: re.Match[str]) -> str:
        found = params.get(match[1]) if match[1] else by_variable.get(match[2])
        return match[0] if found is None else found

    return _REFERENCE.sub(value, text)


def variables(params: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables with the parameters for a module's nodes."""
    return {f"PARAM_{name.upper()}": text for name, text in params.items()}


def _move(value: Value, at: Value) -> None:
    value.line, value.column = at.line, at.column
    value.name_line, value.name_column = at.name_line, at.name_column
    children = value.data if isinstance(value.data, list) else ()
    for child in value.data.values() if isinstance(value.data, dict) else children:
        _move(child, at)
