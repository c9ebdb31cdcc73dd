"""The figures as the page docs/bench/links.md, and the targets."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hwtests.bench.machine import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hwtests.link.cases import Case, Figure
    from hwtests.link.stopped import Stopped

OURS, RAW, PEER = "ours", "raw Zenoh", "dora 1.1.0"
SYSTEMS = (OURS, RAW, PEER)
Figures = dict[tuple["Case", str], list["Figure"]]

RATE = 0.8
RATE_FROM = 64 << 10
LATENCY = 1.5
DISTURBED = 0.05

TEXT = Path(__file__).with_name("page.md")


class Results(NamedTuple):
    """What was measured; `stopped` is None, and `failures` has a line, for what failed."""

    figures: Figures
    stopped: Stopped | None
    failures: list[str]
    rounds: int
    """Complete rounds."""


def value(figures: Mapping[tuple[Case, str], Sequence[Figure]], case: Case, name: str) -> float:
    """Return the median of a system's figures."""
    return statistics.median(
        [each.value for each in figures.get((case, name), ())] or [float("nan")]
    )


def table(figures: Figures) -> str:
    """Return all figures as a table."""
    lines = [
        f"| network | transport | bytes | measure | {' | '.join(SYSTEMS)} | to raw | to dora |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for case in dict.fromkeys(case for case, _ in figures):
        mine, raw, peer = (value(figures, case, name) for name in SYSTEMS)
        unit, form = ("latency, µs", "{:,.0f}") if case.paced else ("rate, MB/s", "{:,.2f}")
        texts = [
            "-" if each != each else form.format(each) + _lost(figures.get((case, name), ()))
            for each, name in zip((mine, raw, peer), SYSTEMS, strict=True)
        ]
        ratios = [
            "-" if mine != mine or other != other else f"{mine / other:.2f}"
            for other in (raw, peer)
        ]
        cells = [case.network, case.scheme, f"{case.size:,}", unit, *texts, *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _lost(figures: Sequence[Figure]) -> str:
    """Return which share of the messages that were sent has not arrived; empty if none."""
    lost, sent = (sum(each[at] for each in figures) for at in (1, 2))
    if not lost:
        return ""
    share = lost / sent
    return f" ({share:.0%} lost)" if share >= 0.01 else f" ({share:.2%} lost)"


def missed(results: Results) -> Iterator[str]:
    """Yield the targets that were missed, in words."""
    figures = results.figures
    for case in dict.fromkeys(case for case, _ in figures):
        mine, raw, peer = (value(figures, case, name) for name in SYSTEMS)
        kind = "latency" if case.paced else "rate"
        what = f"{kind}, {case.network}, {case.scheme}, {case.size:,} bytes"
        if any(each.lost for each in figures.get((case, OURS), ())):
            yield f"{what}: messages were lost"
        if case.paced and mine > LATENCY * raw:
            yield f"{what}: {mine / raw:.2f} times raw Zenoh, at most {LATENCY} wanted"
        if not case.paced and case.size >= RATE_FROM and mine < RATE * raw:
            yield f"{what}: {mine / raw:.2f} times raw Zenoh, at least {RATE} wanted"
        if mine > peer if case.paced else mine < peer:
            yield f"{what}: {mine / peer:.2f} times dora 1.1.0"
    if results.stopped is not None and results.stopped.cost > DISTURBED:
        cost = results.stopped.cost
        yield f"a stopped receiver costs another one {cost:.1%}, less than 5 % wanted"


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
