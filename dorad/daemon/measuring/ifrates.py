"""Traffic rates of network interfaces, from successive readings of the kernel's counters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import psutil

from dorad.control.messages import InterfaceRates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MIN_SECONDS = 0.001


class Counts(NamedTuple):
    """Counters of one interface: bytes in both directions, and dropped or erroneous packets."""

    received: int
    sent: int
    dropped: int


def read() -> dict[str, Counts]:
    """Return the counters of the interfaces of this process's network namespace."""
    return {
        name: Counts(c.bytes_recv, c.bytes_sent, c.dropin + c.dropout + c.errin + c.errout)
        for name, c in psutil.net_io_counters(pernic=True).items()
    }


class InterfaceMeter:
    """Measures all interfaces. Call `sample` about once a second, never concurrently."""

    def __init__(
        self,
        counters: Callable[[], Mapping[str, Counts]] = read,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._at = 0.0
        self._before: Mapping[str, Counts] = {}

    def sample(self) -> list[InterfaceRates]:
        """Return the rates since the last sample, for interfaces that existed then."""
        now, counts = self._clock(), self._counters()
        seconds = max(now - self._at, _MIN_SECONDS)
        found = []
        for name, after in counts.items():
            if (then := self._before.get(name)) is not None:
                received, sent, dropped = (
                    max(0, a - b) / seconds for a, b in zip(after, then, strict=True)
                )
                rates = InterfaceRates(name=name, received=received, sent=sent, dropped=dropped)
                found.append(rates)
        self._at, self._before = now, counts
        return found
