"""Windows: the times of a week in which robots may switch, such as `Mon-Fri 22:00-05:00`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MAX_WINDOWS = 50

_TEXT = re.compile(
    r"(?:(?P<days>[A-Z][a-z]{2}(?:[-,][A-Z][a-z]{2})*) +)?"
    r"(?P<first>\d\d:\d\d)-(?P<last>\d\d:\d\d)(?: +(?P<zone>[A-Za-z0-9_+/-]{1,64}))?"
)


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week. One that ends before it begins ends on the next day."""

    days: frozenset[int]
    """On which it begins; 0 is Monday."""
    first: time
    last: time
    zone: tzinfo

    def opening(self, now: datetime) -> datetime | None:
        """Return when it opens next; `now` itself if it is open. None if it never opens."""
        local = now.astimezone(self.zone)
        for offset in range(-1, 9):
            day = local.date() + timedelta(days=offset)
            if day.weekday() not in self.days:
                continue
            begin = datetime.combine(day, self.first, self.zone)
            over = timedelta(days=1) if self.last <= self.first else timedelta()
            end = datetime.combine(day + over, self.last, self.zone)
            # Compared in UTC: two local times of one zone ignore a change of summer time.
            if now < end.astimezone(UTC):
                return max(now, begin.astimezone(UTC))
        return None


def parse(text: str) -> Window:
    """Return the window that a text such as `Sat,Sun 08:00-18:00 Europe/Berlin` describes.

    Without days it is every day; without a time zone it is UTC.

    Raises:
        ValueError: it describes none; the message says why.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"`{text}` is not a window such as `Mon-Fri 22:00-05:00 Europe/Berlin`")
    return Window(
        _days(match["days"], text),
        _time(match["first"], text),
        _time(match["last"], text),
        _zone(match["zone"]),
    )


def next_opening(windows: Iterable[Window], now: float) -> float | None:
    """Return the seconds since 1970 when the next window opens; `now` if one is open.

    Without windows it is always open.
    """
    windows = tuple(windows)
    if not windows:
        return now
    moment = datetime.fromtimestamp(now, UTC)
    openings = [opening for each in windows if (opening := each.opening(moment)) is not None]
    if not openings:
        return None
    return now if min(openings) <= moment else min(openings).timestamp()


def _days(text: str | None, whole: str) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        names = part.split("-")
        unknown = [name for name in names if name not in DAYS]
        if unknown or len(names) > 2:
            raise ValueError(f"`{part}` in `{whole}` is not a day: use {', '.join(DAYS)}")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        days |= {each % 7 for each in range(first, last + 1 if first <= last else last + 8)}
    return frozenset(days)


def _time(text: str, whole: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise ValueError(f"`{text}` in `{whole}` is not a time of the day") from None


def _zone(name: str | None) -> tzinfo:
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # KeyError: an unknown one
        raise ValueError(f"`{name}` is not a time zone such as `Europe/Berlin`") from None
