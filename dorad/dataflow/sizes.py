"""Sizes in bytes: `1048576`, `"64MB"`, `"1.5 GB"`."""

from __future__ import annotations

import re

from dorad.dataflow.errors import TextError
from dorad.phrases import shorten

_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)"
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "M": 1 << 20, "MB": 1 << 20} | {
    "G": 1 << 30,
    "GB": 1 << 30,
}
_MAX = 2**63 - 1


def parse_size(text: str) -> int:
    """Return the number of bytes; units are powers of 1024, as in dora. Raises TextError."""
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise TextError(f"`{shorten(text)}` is not a size", "write `64MB` or a number of bytes")
    number, unit = match.groups()
    factor = _UNITS.get(unit.upper())
    if factor is None:
        raise TextError(f"`{shorten(text)}` has an unknown unit", "B, KB, MB or GB, of 1024 each")
    whole, _, part = number.partition(".")
    size = int(whole[:30]) * factor + (int(float(f"0.{part}") * factor) if part else 0)
    if size > _MAX:
        raise TextError(f"`{shorten(text)}` is too large")
    return size
