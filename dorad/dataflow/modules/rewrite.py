"""Changes of single values of a file on their way into the dataflow; they keep their places."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dorad.dataflow.document import Value

if TYPE_CHECKING:
    from collections.abc import Mapping


def copied(value: Value, key: str) -> Value:
    """The value and all within it, as it stands at another key."""
    data = value.data
    if isinstance(data, dict):
        data = {name: copied(child, f"{key}.{name}") for name, child in data.items()}
    elif isinstance(data, list):
        data = [copied(child, f"{key}[{index}]") for index, child in enumerate(data)]
    return replace(value, key=key, data=data)


def placed(value: Value, key: str, at: Value) -> Value:
    """The value at another key, at the place of `at`: lines of another file mean nothing."""
    moved = copied(value, key)
    _place(moved, at)
    return moved


def text(content: str, key: str, at: Value) -> Value:
    """A text that no file has, as if it stood where `at` does."""
    return Value(content, content, key, at.line, at.column, at.name_line, at.name_column)


def entries(owner: Value, name: str) -> dict[str, Value]:
    """The entries of a mapping in a mapping; empty if there is none."""
    assert isinstance(owner.data, dict)
    value = owner.data.get(name)
    return value.data if value is not None and isinstance(value.data, dict) else {}


def set_entries(owner: Value, name: str, content: Mapping[str, Value]) -> None:
    """Put a mapping into a mapping, in the place of what was there."""
    assert isinstance(owner.data, dict)
    key = f"{owner.key}.{name}"
    before = owner.data.get(name) or text("", key, owner)
    owner.data[name] = replace(before, text="", data=dict(content))


def _place(value: Value, at: Value) -> None:
    value.line, value.column = at.line, at.column
    value.name_line, value.name_column = at.name_line, at.name_column
    children = value.data if isinstance(value.data, list) else ()
    for child in value.data.values() if isinstance(value.data, dict) else children:
        _place(child, at)
