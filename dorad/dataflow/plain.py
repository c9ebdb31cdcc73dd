"""Convert plain JSON values to the tree that the readers of a dataflow file take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.document import MAX_DEPTH, MAX_VALUES
from dorad.dataflow.value import Value

if TYPE_CHECKING:
    from dorad.dataflow.problems import Problems

_WORDS = {None: "", True: "true", False: "false"}


def plain_tree(data: object, problems: Problems) -> Value | None:
    """Return the tree of plain values, without positions; the inverse of `Value.plain`.

    Report and return None for values that JSON cannot hold, or that are too deep or too many.
    """
    try:
        return _Tree().value(data, "", 0)
    except _UnfitError as error:
        problems.at(0, 0, str(error), key=error.key)
        return None


class _UnfitError(Exception):
    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


class _Tree:
    def __init__(self) -> None:
        self._left = MAX_VALUES

    def value(self, data: object, key: str, depth: int) -> Value:
        self._left -= 1
        if self._left < 0:
            raise _UnfitError(key, f"more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise _UnfitError(key, f"nested more than {MAX_DEPTH} deep")
        value = Value(None, "", key, 0, 0, 0, 0)
        if isinstance(data, dict):
            entries: dict[str, Value] = {}
            for name, child in data.items():
                if not isinstance(name, str):
                    raise _UnfitError(key, f"the key {name!r} is not text")
                entries[name] = self.value(child, f"{key}.{name}" if key else name, depth + 1)
            value.data = entries
        elif isinstance(data, list):
            value.data = [
                self.value(child, f"{key}[{at}]", depth + 1) for at, child in enumerate(data)
            ]
        elif data is None or isinstance(data, bool | int | float | str):
            value.data = data
            value.text = data if isinstance(data, str) else _spelling(data)
        else:
            raise _UnfitError(key, f"a {type(data).__name__} is not a plain value")
        return value


def _spelling(data: bool | float | None) -> str:
    """Return a scalar as YAML spells it."""
    if data is None or isinstance(data, bool):
        return _WORDS[data]
    text = repr(data)
    return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(text, text)
