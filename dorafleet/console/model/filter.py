"""The filter of a screen: the grammar of `dora logs --filter`, applied to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control.filters import Filter, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Filter", "checked", "parse"]


def checked(text: str, keys: Iterable[str]) -> tuple[Filter | None, str]:
    """Return a filter, or None with what is wrong."""
    try:
        return parse(text, keys), ""
    except ValueError as error:
        return None, str(error)
