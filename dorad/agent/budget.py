"""How much a robot may still send: a budget of bytes for any 24 hours, which survives restarts."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from dorad.atomicfile import atomic_file

HOUR_S = 3600.0
DAY = 24
"""Hours for which what was sent counts, beside the present one."""
STEP = 1 << 20
"""Bytes that are stored as spent before they are sent: a kill loses the rest of one step."""

_log = logging.getLogger(__name__)


class BudgetSpentError(Exception):
    """Nothing more may be sent now."""


class _Stored(msgspec.Struct):
    """The file: bytes by the hour since 1970 in which they were sent."""

    hours: dict[int, int] = {}


def counted(hours: Mapping[int, int], now: int) -> dict[int, int]:
    """Return what counts at the hour `now`: that of the last 24 hours. A pure function.

    The clock may have been set: what is more than a day ahead counts for a day from now on.
    """
    kept: dict[int, int] = {}
    for hour, count in hours.items():
        at = now if hour > now + DAY else hour
        if at >= now - DAY:
            kept[at] = kept.get(at, 0) + count
    return kept


class Budget:
    """The budget, kept in a file. Methods block for a write."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._hours = self._read()
        self._reserved = 0
        """Bytes that the file has as spent and that were not sent yet."""

    def _read(self) -> dict[int, int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Stored).hours
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeError, RecursionError) as error:
            _log.warning("%s cannot be read, its budget counts as unspent: %s", self._path, error)
            return {}

    @property
    def spent(self) -> int:
        """Bytes that were sent in the last 24 hours."""
        self._hours = counted(self._hours, self._hour)
        return sum(self._hours.values()) - self._reserved

    def spend(self, count: int, per_day: int) -> None:
        """Count bytes that are about to be sent.

        Raises:
            BudgetSpentError: they would exceed `per_day`.
            OSError: the file cannot be written.
        """
        if count > self._reserved:
            left = per_day - self.spent
            if count > left:
                raise BudgetSpentError
            self._store(min(max(STEP, count), left))
        self._reserved -= count

    def settle(self) -> None:
        """Give back what was stored as spent and was not sent. Raises OSError."""
        if self._reserved:
            self._store(0)

    def _store(self, reserved: int) -> None:
        """Write that `reserved` bytes are spent beyond those that were sent."""
        now = self._hour
        hours = counted(self._hours, now)
        hours[now] = max(0, hours.get(now, 0) - self._reserved + reserved)
        with atomic_file(self._path) as file:
            file.write(msgspec.json.encode(_Stored(hours)))
        self._hours, self._reserved = hours, reserved

    @property
    def _hour(self) -> int:
        return int(self._clock() // HOUR_S)
