"""The ticks of timers as messages of a recording, which a replay step by step sends again.

A node makes its ticks itself: tick k is due at the start of the dataflow + k times the interval. So
the recorder knows them without asking.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dorad.record import extras
from dorad.record.items import make_item

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dorad.record.items import Item

MIN_INTERVAL_NS = 500_000
"""Faster timers are not recorded: their ticks would cost more than the messages."""

MAX_DUE = 10_000
"""Ticks of one timer that are recorded at once, after the machine was suspended."""

_log = logging.getLogger(__name__)


class Ticks:
    """The ticks of a dataflow's timers since the recorder has joined."""

    def __init__(self, timers: Mapping[str, int], epoch_ns: int, now_ns: int) -> None:
        """`timers` are the intervals in ns by `node/input`; the times are on CLOCK_MONOTONIC."""
        self._epoch_ns = epoch_ns
        self._next: dict[str, int] = {}
        self._intervals = {}
        for name, interval_ns in timers.items():
            if interval_ns < MIN_INTERVAL_NS:
                _log.info("the ticks of %s are not recorded: they are too many", name)
                continue
            self._intervals[name] = interval_ns
            self._next[name] = max(0, -((epoch_ns - now_ns) // interval_ns))

    def due(self, now_ns: int, difference_ns: int) -> Iterator[Item]:
        """Yield the ticks that were due since the last call.

        `difference_ns` is the wall clock minus CLOCK_MONOTONIC.
        """
        for name, interval_ns in self._intervals.items():
            topic = f"{extras.TICK_TOPIC}/{name}"
            last = (now_ns - self._epoch_ns) // interval_ns
            first = max(self._next[name], last - MAX_DUE + 1)
            for number in range(first, last + 1):
                stamp = self._epoch_ns + number * interval_ns + difference_ns
                yield make_item((stamp, topic, number, extras.TICK))
            self._next[name] = max(first, last + 1)
