"""The figures as the page docs/bench/links.md, and the targets."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hwtests.bench.machine import describe
from hwtests.link.cases import Case, Figure
from hwtests.link.stopped import Stopped

OURS, RAW, PEER = "ours", "raw Zenoh", "dora 1.1.0"
SYSTEMS = (OURS, RAW, PEER)
Figures = dict[tuple["Case", str], dict[int, "Figure"]]
"""By case and system: the figure of each round that has one."""

RATE = 0.8
RATE_FROM = 64 << 10
LATENCY = 3.0
"""A message passes two processes more than in raw Zenoh, and wakes two threads more."""
DISTURBED = 0.05

TEXT = Path(__file__).with_name("page.md")


class Results(NamedTuple):
    """What was measured; `stopped` is None, and `failures` has a line, for what failed."""

    figures: Figures
    stopped: Stopped | None
    failures: list[str]
    rounds: int
    """Complete rounds."""


def value(figures: Figures, case: Case, name: str) -> float:
    """Return the median of a system's figures; NaN if it has none."""
    return _median([each.value for each in figures.get((case, name), {}).values()])


def ratio(figures: Figures, case: Case, name: str) -> float:
    """Return the median of ours to another system's figure of the same round; NaN without both.

    Both are measured one after the other, so that a load of the machine changes both.
    """
    mine, others = figures.get((case, OURS), {}), figures.get((case, name), {})
    return _median(
        [each.value / others[number].value for number, each in mine.items() if number in others]
    )


def _median(values: Sequence[float]) -> float:
    return statistics.median([each for each in values if each == each] or [float("nan")])


def table(figures: Figures) -> str:
    """Return all figures as a table."""
    lines = [
        f"| network | transport | bytes | measure | {' | '.join(SYSTEMS)} | to raw | to dora |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for case in dict.fromkeys(case for case, _ in figures):
        values = [value(figures, case, name) for name in SYSTEMS]
        unit, form = ("latency, µs", "{:,.0f}") if case.paced else ("rate, MB/s", "{:,.2f}")
        texts = [
            "-" if each != each else form.format(each) + _lost(figures.get((case, name), {}))
            for each, name in zip(values, SYSTEMS, strict=True)
        ]
        found = [ratio(figures, case, name) for name in (RAW, PEER)]
        ratios = ["-" if each != each else f"{each:.2f}" for each in found]
        cells = [case.network, case.scheme, f"{case.size:,}", unit, *texts, *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _lost(figures: Mapping[int, Figure]) -> str:
    """Return which share of the messages that were sent has not arrived; empty if none."""
    lost, sent = (sum(each[at] for each in figures.values()) for at in (1, 2))
    if not lost:
        return ""
    share = lost / sent
    return f" ({share:.0%} lost)" if share >= 0.01 else f" ({share:.2%} lost)"


def missed(results: Results) -> Iterator[str]:
    """Yield the targets that were missed, in words."""
    figures = results.figures
    for case in dict.fromkeys(case for case, _ in figures):
        to_raw, to_peer = (ratio(figures, case, name) for name in (RAW, PEER))
        kind = "latency" if case.paced else "rate"
        what = f"{kind}, {case.network}, {case.scheme}, {case.size:,} bytes"
        if any(each.lost for each in figures.get((case, OURS), {}).values()):
            yield f"{what}: messages were lost"
        if case.paced and to_raw > LATENCY:
            yield f"{what}: {to_raw:.2f} times raw Zenoh, at most {LATENCY} wanted"
        if not case.paced and case.size >= RATE_FROM and to_raw < RATE:
            yield f"{what}: {to_raw:.2f} times raw Zenoh, at least {RATE} wanted"
        if to_peer > 1 if case.paced else to_peer < 1:
            yield f"{what}: {to_peer:.2f} times dora 1.1.0"
    if results.stopped is not None and results.stopped.cost > DISTURBED:
        cost = results.stopped.cost
        yield f"a stopped receiver costs another one {cost:.1%}, less than {DISTURBED:.0%} wanted"


def page(results: Results) -> str:
    """Return the page."""
    machine = describe()
    wrong = list(missed(results))
    targets = "All targets are reached." if not wrong else "Missed targets:\n\n"
    targets += "\n".join(f"- {line}" for line in wrong)
    if results.failures:
        targets += "\n\nNot measured:\n\n" + "\n".join(f"- {each}" for each in results.failures)
    return TEXT.read_text(encoding="utf-8").format(
        rounds=max(1, results.rounds),
        place=f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}",
        load=machine["load_before"],
        table=table(results.figures),
        stopped="-" if results.stopped is None else results.stopped.words(),
        targets=targets.rstrip(),
    )
