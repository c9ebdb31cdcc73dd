"""The targets of the project against dora 1.1.0, and whether a run has met them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwtests.bench.cases import SIZES
from hwtests.bench.stats import Key, Summary, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS, PEER = "ours", "dora"
SMALL = tuple(size for size in SIZES if size <= 64 << 10)


@dataclass(frozen=True, slots=True)
class Target:
    """A wanted relation between two figures.

    ``value`` computes what is compared from ours and the other's. ``at_least`` says whether the
    wanted number is a floor or a ceiling; ``against`` names the other figure where it is not
    simply dora's figure of the same measure.
    """

    ours: Key
    other: Key | None
    wanted: float
    at_least: bool
    unit: str
    value: Callable[[float, float], float | None]
    against: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and its measured value."""

    target: Target
    got: float

    @property
    def reached(self) -> bool:
        """True if the target was met."""
        wanted = self.target.wanted
        return self.got >= wanted if self.target.at_least else self.got <= wanted

    def __str__(self) -> str:
        target = self.target
        sign = "≥" if target.at_least else "≤"
        against = f" {target.against}" if target.against else ""
        wanted = f"{sign} {target.wanted:g}{target.unit}{against}"
        got = f"{self.got:.3g}{target.unit}"
        return f"{wanted}: {got}, {'reached' if self.reached else self._short_by()}"

    def _short_by(self) -> str:
        wanted = self.target.wanted
        if self.target.unit == "x" and self.got > 0:
            short = wanted / self.got if self.target.at_least else self.got / wanted
            return f"missed by a factor of {short:.3g}"
        return f"missed by {abs(self.got - wanted):.3g}{self.target.unit}"


def _faster(measure: str, size: int, wanted: float, other: str = "round trip") -> Target:
    """Our latency is lower than the peer's ``other`` by at least this factor."""
    return Target(
        Key(measure, OURS, size, "p50_us"),
        Key(other, PEER, size, "p50_us"),
        wanted,
        True,
        "x",
        lambda ours, peer: ratio(peer, ours),
        "" if measure == other else f"against dora's {other}",
    )


def _stream_cost(measure: str) -> Target:
    """Spinning costs at most this much of a core, both nodes together."""
    return Target(
        Key(measure, OURS, 0, "cpu_percent"),
        Key(f"{measure}, spin off", OURS, 0, "cpu_percent"),
        2.0,
        False,
        " % of a core",
        lambda on, off: on - off,
        "more than with spinning off",
    )


def targets() -> Iterator[Target]:
    """Return every target, in the order of the table."""
    for size in SMALL:
        yield _faster("round trip", size, 25)
    yield _faster("round trip", 1 << 20, 8)
    yield _faster("round trip", 8 << 20, 40)
    yield _faster("round trip, allocated in shm", 8 << 20, 500)
    for size in SIZES:
        yield _faster("round trip, spin off", size, 4)
    for size in SMALL:
        yield _faster("one-way, spaced", size, 3, "one-way, spaced")
    yield Target(
        Key("burst", OURS, 8, "per_s"),
        Key("burst", PEER, 8, "per_s"),
        6,
        True,
        "x",
        ratio,
    )
    yield _stream_cost("stream 30 Hz")
    yield _stream_cost("stream 1 kHz")
    yield Target(Key("hello", OURS, 0, "s"), Key("hello", PEER, 0, "s"), 1.2, False, "x", ratio)
    for command, wanted in (("dora --help", 50), ("dora list", 150)):
        key = Key(command, OURS, 0, "s")
        yield Target(key, None, wanted, False, " ms", lambda ours, _: ours * 1e3)


def verdicts(summary: Summary) -> list[Verdict]:
    """Return the verdict on every target whose figures were measured."""
    found = []
    for target in targets():
        ours = summary.get(target.ours)
        other = summary.get(target.other) if target.other else 0.0
        if ours is None or other is None:
            continue
        got = target.value(ours, other)
        if got is not None:
            found.append(Verdict(target, got))
    return found
