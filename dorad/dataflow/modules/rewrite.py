"""Changes of single values of a file on their way into the dataflow; they keep their places."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from dorad.dataflow.document import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{_param\.([A-Za-z0-9_]+)\}|\$(PARAM_[A-Za-z0-9_]+)")


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


def substitute(text: str, params: Mapping[str, str]) -> str:
    """The text with `${_param.key}` and `$PARAM_KEY` replaced by the parameter's text.

    As in dora 1.x the first form minds upper and lower case, what names no parameter stays, and
    what was put in is not looked at again.
    """
    if "$" not in text or not params:
        return text
    by_variable = variables(params)

    def value(match: re.Match[str]) -> str:
        found = params.get(match[1]) if match[1] else by_variable.get(match[2])
        return match[0] if found is None else found

    return _REFERENCE.sub(value, text)


def variables(params: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that tell a module's nodes its parameters."""
    return {f"PARAM_{name.upper()}": text for name, text in params.items()}


def _place(value: Value, at: Value) -> None:
    value.line, value.column = at.line, at.column
    value.name_line, value.name_column = at.name_line, at.name_column
    children = value.data if isinstance(value.data, list) else ()
    for child in value.data.values() if isinstance(value.data, dict) else children:
        _place(child, at)
