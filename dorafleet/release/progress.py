"""The progress of transfers: bytes, rate and remaining time, for each host and for all."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

State = Literal["waiting", "connecting", "comparing", "sending", "retrying", "done", "failed"]
WINDOW_S = 10.0
"""Seconds over which a rate is measured."""


class Progress(msgspec.Struct, frozen=True):
    """The progress of the transfer to one host."""

    machine: str
    state: State
    done: int = 0
    """Bytes of files that the robot has of those that it lacked."""
    total: int = 0
    """Bytes of files that it lacked; 0 until it has reported."""
    sent: int = 0
    """Bytes that have arrived, as they were sent: compressed, and patches."""
    rate: float = 0.0
    """Bytes of `done` per second, of late."""
    left: float | None = None
    """Seconds that are left at this rate; None if that is unknown."""
    message: str = ""
    """Why it is retried or has failed."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens."""
        return self.state in ("done", "failed")


@dataclass
class Meter:
    """Measures the rate of a count that grows."""

    def __post_init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> float:
        """Return the rate, per second, after the count is `count` at the time `now`."""
        self._seen.append((now, count))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        start, first = self._seen[0]
        return (count - first) / (now - start) if now > start else 0.0


def left(done: int, total: int, rate: float) -> float | None:
    """Return the seconds until `done` is `total`; None while the rate is 0."""
    if total <= done:
        return 0.0
    return (total - done) / rate if rate > 0 else None


def of_all(hosts: Iterable[Progress]) -> Progress:
    """Return the progress of all hosts together, called `all`.

    Hosts that have not said yet what they lack count as the mean of the others.
    """
    every = list(hosts)
    known = [each for each in every if each.total or each.ended]
    mean = sum(each.total for each in known) / len(known) if known else 0.0
    open_hosts = sum(1 for each in every if not each.total and not each.ended)
    done = sum(each.done for each in every)
    total = round(sum(each.total for each in every if each.state != "failed") + mean * open_hosts)
    rate = sum(each.rate for each in every if each.state == "sending")
    failed = sum(1 for each in every if each.state == "failed")
    ended = all(each.ended for each in every)
    state: State = "sending" if not ended else "failed" if failed else "done"
    counted = sum(each.done for each in every if each.state != "failed")
    remaining = left(counted, total, rate) if known else None
    return Progress(
        "all",
        state,
        done,
        total,
        sum(each.sent for each in every),
        rate,
        0.0 if ended else remaining,
        f"{failed} failed" if failed else "",
    )
