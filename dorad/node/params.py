"""A node's parameters: their current values, as declared or last set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any


class Params:
    """The current values. They are JSON values; callers get copies."""

    def __init__(
        self, values: Mapping[str, Any], refresh: Callable[[], None] | None = None
    ) -> None:
        """`refresh` is called before each read, to handle pending changes."""
        self._values = copy.deepcopy(dict(values))
        self._refresh = refresh

    def set(self, name: str, value: Any) -> None:
        """Replace a value, or add one."""
        self._values[name] = copy.deepcopy(value)

    def drop(self, name: str) -> None:
        """Remove a value; do nothing if there is none."""
        self._values.pop(name, None)

    def all(self) -> dict[str, Any]:
        """Return all values by name."""
        if self._refresh is not None:
            self._refresh()
        return copy.deepcopy(self._values)

    def get(self, name: str) -> Any:
        """Return a value.

        Raises:
            KeyError: there is no parameter of this name; the text names the nearest one.
        """
        if self._refresh is not None:
            self._refresh()
        values = self._values
        if name not in values:
            raise KeyError(_unknown(name, list(values)))
        return copy.deepcopy(values[name])


def _unknown(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(str(name), known, n=1)
    if near:
        return f"no parameter {name!r}; did you mean {near[0]!r}?"
    if known:
        return f"no parameter {name!r}; the parameters are {', '.join(sorted(known))}"
    return f"no parameter {name!r}: the dataflow file declares none, and none was set"
