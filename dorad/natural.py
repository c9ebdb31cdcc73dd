"""The order of names: arm2 comes before arm10."""

from __future__ import annotations

import re
from functools import lru_cache

_NUMBER = re.compile("[0-9]+")
_DIGITS = 20


@lru_cache(maxsize=10_000)
def natural(name: str) -> tuple[str, str]:
    """Return the sort key of a name; wherever names are ordered, they are ordered by it."""
    return _NUMBER.sub(lambda match: match[0].zfill(_DIGITS), name), name


def natural_item(item: tuple[str, object]) -> tuple[str, str]:
    """Return the sort key of an item of a mapping from names."""
    return natural(item[0])
