"""The targets of the project against dora 1.1.0, and whether a run has met them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hwtests.bench.cases import LANGUAGES, NESTED, SIZES
from hwtests.bench.stats import Key, Summary, ratio

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


def _near(measure: str, size: int, wanted: float, wait: str) -> Target:
    """Our latency is at most this multiple of iceoryx2's round trip."""
    return Target(
        Key(measure, OURS, size, "p50_us"),
        Key("round trip", f"iceoryx2 {wait}", size, "p50_us"),
        wanted,
        False,
        "x",
        ratio,
        f"of iceoryx2 {wait}",
    )


def _beside_python(measure: str, size: int, metric: str, wanted: float, at_least: bool) -> Target:
    """Our figure beside that of the data plane in pure Python, in the same run."""
    return Target(
        Key(measure, OURS, size, metric),
        Key(f"{measure}, pure Python", OURS, size, metric),
        wanted,
        at_least,
        "x",
        ratio,
        "of pure Python",
    )


def _more(measure: str, size: int, wanted: float) -> Target:
    """We receive at least this multiple of the messages per second."""
    return Target(
        Key(measure, OURS, size, "per_s"),
        Key(measure, PEER, size, "per_s"),
        wanted,
        True,
        "x",
        ratio,
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
        yield _faster("round trip", size, 40)
        yield _near("round trip", size, 1.15, "polling")
        yield _faster("round trip, with metadata", size, 25, "round trip, with metadata")
        yield _near("round trip, spin off", size, 0.85, "blocking")
        yield _faster("round trip, spin off", size, 10)
        yield _faster("one-way, spaced", size, 3.5, "one-way, spaced")
    for size, wanted in ((1 << 20, 9), (8 << 20, 50)):
        yield _faster("round trip", size, wanted)
        yield _near("round trip", size, 1.0, "polling")
    for size in NESTED:
        wanted = 9 if size >= 1 << 20 else 20
        yield _faster("round trip, nested", size, wanted, "round trip, nested")
        for name in LANGUAGES:
            yield Target(
                Key(f"round trip, nested{name}", OURS, size, "p50_us"),
                Key(f"round trip, bare{name}", OURS, size, "p50_us"),
                2,
                False,
                "x",
                ratio,
                "of a bare array of as many bytes",
            )
    yield _faster("round trip, spin off", 1 << 20, 6)
    yield _faster("one-way, spaced", 1 << 20, 2, "one-way, spaced")
    for size in SIZES:
        yield Target(
            Key("round trip, allocated in shm", OURS, size, "p50_us"),
            Key("round trip", OURS, 8, "p50_us"),
            1.3,
            False,
            "x",
            ratio,
            "of our round trip of 8 B",
        )
    yield _more("burst", 8, 15)
    yield _beside_python("burst", 8, "per_s", 2.5, at_least=True)
    yield _more("fan-out 4, burst", 1 << 20, 1.5)
    yield _beside_python("stream 1 kHz", 0, "cpu_percent", 0.55, at_least=False)
    yield _stream_cost("stream 30 Hz")
    yield _stream_cost("stream 1 kHz")
    for measure in ("hello", "first tick", "first tick, CPU"):
        ours, theirs = (Key(measure, system, 0, "s") for system in (OURS, PEER))
        yield Target(ours, theirs, 1.0, False, "x", ratio)
    for command, wanted in (("dora --help", 25), ("dora list", 80)):
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
