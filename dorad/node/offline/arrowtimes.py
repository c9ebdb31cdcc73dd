"""Arrow's dates, times and durations as text, exact to the nanosecond.

Python's own `datetime` ends at microseconds and the year 9999, so the text is built from integers.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_S = 86_400
_EPOCH = date(1970, 1, 1)
_UTC_EPOCH = datetime(1970, 1, 1)

_TIME = r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
_TIME_TEXT = re.compile(_TIME)
_STAMP_TEXT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ]" + _TIME + r")?(Z|[+-]\d\d:?\d\d)?")
_DURATION_TEXT = re.compile(
    r"(-?)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,9}))?S)?)?"
)
_OFFSET_TEXT = re.compile(r"([+-])(\d\d):?(\d\d)")


def date_text(days: int) -> str:
    """Return the date `days` days after 1970-01-01."""
    return (_EPOCH + timedelta(days=days)).isoformat()


def date_days(text: str) -> int:
    """Return the inverse of `date_text`. Raises ValueError."""
    return (date.fromisoformat(text) - _EPOCH).days


def _fraction(count: int, unit: str) -> str:
    """Return a fraction of a second in 0, 3, 6 or 9 digits, as few as are exact."""
    digits = f"{count * (PER_SECOND['ns'] // PER_SECOND[unit]):09d}"
    for shown in (0, 3, 6, 9):
        if not digits[shown:].strip("0"):
            return f".{digits[:shown]}" if shown else ""
    raise AssertionError("nine digits hold every nanosecond")


def time_text(count: int, unit: str) -> str:
    """Return the time of day `count` units after midnight."""
    seconds, rest = divmod(count, PER_SECOND[unit])
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{_fraction(rest, unit)}"


def time_count(text: str, unit: str) -> int:
    """Return the inverse of `time_text`. Raises ValueError."""
    match = _TIME_TEXT.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a time such as 12:30:00.5")
    return _count(*match.groups(), unit=unit, text=text)


def _count(
    hours: str | None,
    minutes: str | None,
    seconds: str | None,
    fraction: str | None,
    *,
    unit: str,
    text: str,
) -> int:
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    nanoseconds = int((fraction or "").ljust(9, "0"))
    rest, lost = divmod(nanoseconds, PER_SECOND["ns"] // PER_SECOND[unit])
    if lost:
        raise ValueError(f"{text!r} is finer than its unit, {unit}")
    return whole * PER_SECOND[unit] + rest


def stamp_text(count: int, unit: str, zone: str | None) -> str:
    """Return the timestamp `count` units after 1970, in its zone if that is an offset, else UTC."""
    seconds, rest = divmod(count, PER_SECOND[unit])
    offset = _OFFSET_TEXT.fullmatch(zone) if zone else None
    suffix = ""
    if offset:
        shift = int(offset[2]) * 3600 + int(offset[3]) * 60
        seconds += -shift if offset[1] == "-" else shift
        suffix = f"{offset[1]}{offset[2]}:{offset[3]}"
    elif zone:
        suffix = "Z"
    days, second = divmod(seconds, _DAY_S)
    return f"{date_text(days)}T{time_text(second, 's')}{_fraction(rest, unit)}{suffix}"


def stamp_count(text: str, unit: str, zone: str | None) -> int:
    """Return the inverse of `stamp_text`; a text without an offset is in `zone`.

    Raises:
        ValueError: the text is not a timestamp, or finer than the unit.
    """
    match = _STAMP_TEXT.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a timestamp such as 2026-01-31T12:30:00.5Z")
    day, *clock, offset = match.groups()
    count = date_days(day) * _DAY_S * PER_SECOND[unit] + _count(*clock, unit=unit, text=text)
    shift = _shift(count // PER_SECOND[unit], offset or zone)
    return count - shift * PER_SECOND[unit]


def _shift(local_s: int, zone: str | None) -> int:
    """Return how many seconds a zone (an offset or a name) is ahead of UTC at a local time."""
    if zone is None or zone in ("Z", "UTC"):
        return 0
    offset = _OFFSET_TEXT.fullmatch(zone)
    if offset:
        shift = int(offset[2]) * 3600 + int(offset[3]) * 60
        return -shift if offset[1] == "-" else shift
    local = (_UTC_EPOCH + timedelta(seconds=local_s)).replace(tzinfo=ZoneInfo(zone))
    ahead = local.utcoffset()
    return int(ahead.total_seconds()) if ahead else 0


def duration_text(count: int, unit: str) -> str:
    """Return a duration in the form of ISO 8601, in seconds: `PT1.5S`."""
    seconds, rest = divmod(abs(count), PER_SECOND[unit])
    fraction = _fraction(rest, unit).rstrip("0")
    return f"{'-' if count < 0 else ''}PT{seconds}{fraction}S"


def duration_count(text: str, unit: str) -> int:
    """Return the inverse of `duration_text`, for days, hours and minutes too. Raises ValueError."""
    match = _DURATION_TEXT.fullmatch(text)
    if not match or text.endswith(("P", "T")):
        raise ValueError(f"{text!r} is not a duration such as PT1.5S")
    sign, days, *clock = match.groups()
    count = int(days or 0) * _DAY_S * PER_SECOND[unit] + _count(*clock, unit=unit, text=text)
    return -count if sign else count
