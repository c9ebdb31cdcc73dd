"""Durations as users write them: `10`, `500ms`, `10s`, `5m`, `1h30m`."""

from __future__ import annotations

import math
import re

from dorad.dataflow.errors import TextError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|[smhd])\s*")
_MAX_S = 100 * 365 * 86400.0


def parse_duration(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        TextError: it is not a duration, or longer than a century.
    """
    text = text.strip()
    seconds = _bare(text)
    if seconds is None:
        seconds = _parts(text)
    if seconds is None or not 0 <= seconds <= _MAX_S:
        raise TextError(f"'{text}' is not a duration: write 10s, 500ms, 5m, 1h30m or seconds")
    return seconds


def _bare(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else -1.0


def _parts(text: str) -> float | None:
    seconds, end = 0.0, 0
    for match in _PART.finditer(text):
        if match.start() != end:
            return None
        seconds += float(match[1]) * _UNITS[match[2]]
        end = match.end()
    return seconds if end == len(text) and end else None
