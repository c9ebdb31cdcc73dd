"""A value of a YAML, TOML or JSON document, with its position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from dorad.phrases import shorten


class Value(Struct):
    """One value. Lines and columns count from 1, columns in characters."""

    data: bool | int | float | str | list[Value] | dict[str, Value] | None
    text: str
    """A scalar as the file spells it; empty for lists and mappings."""
    key: str
    """Path from the root: `nodes[2].inputs.image`; empty for the whole file."""
    line: int
    column: int
    name_line: int
    """Position of the name before the value; for an item of a list its own position."""
    name_column: int

    def plain(self) -> Any:
        """Return the value without positions, as JSON would hold it."""
        if isinstance(self.data, dict):
            return {name: value.plain() for name, value in self.data.items()}
        if isinstance(self.data, list):
            return [value.plain() for value in self.data]
        return self.data

    def where(self) -> str:
        """Return the position in words: the line, or the key if there is no file."""
        return f"in line {self.name_line}" if self.name_line else f"at {self.key}"

    def describe(self) -> str:
        """Return the value in words, for "must be a list, not …"."""
        match self.data:
            case None:
                return "nothing"
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case str():
                return f"`{shorten(self.data)}`" if self.data else "empty text"
        return shorten(self.text)


def walk(value: Value) -> Iterator[Value]:
    """Yield a value and all values in it."""
    yield value
    if isinstance(value.data, dict):
        for child in value.data.values():
            yield from walk(child)
    elif isinstance(value.data, list):
        for child in value.data:
            yield from walk(child)
