"""The figures as the page docs/bench/links.md, and the targets."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

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


def value(figures: Mapping[tuple[Case, str], Sequence[Figure]], case: Case, name: str) -> float:
    """Return the median of a system's figures."""
    return statistics.median(
        [each.value for each in figures.get((case, name), ())] or [float("nan")]
    )


def table(figures: Figures) -> str:
    """Return all figures as a table."""
    lines = [
        "| transport | bytes | measure | ours | raw Zenoh | dora 1.1.0 | to raw | to dora |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for case in dict.fromkeys(case for case, _ in figures):
        mine, raw, peer = (value(figures, case, name) for name in SYSTEMS)
        unit, form = ("latency, µs", "{:,.0f}") if case.paced else ("rate, MB/s", "{:,.2f}")
        lost = sum(each.lost for each in figures.get((case, PEER), ()))
        sent = lost + sum(case.count(1) for _ in figures.get((case, PEER), ()))
        dropped = f" ({lost / sent:.0%} lost)" if lost else ""
        cells = [
            case.scheme,
            f"{case.size:,}",
            unit,
            form.format(mine),
            form.format(raw),
            "-" if peer != peer else form.format(peer) + dropped,
            f"{mine / raw:.2f}",
            "-" if peer != peer else f"{mine / peer:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def missed(figures: Figures, stopped: Stopped) -> Iterator[str]:
    """Yield the targets that were missed, in words."""
    for case in dict.fromkeys(case for case, _ in figures):
        mine, raw, peer = (value(figures, case, name) for name in SYSTEMS)
        what = f"{'latency' if case.paced else 'rate'}, {case.scheme}, {case.size:,} bytes"
        if case.paced and mine > LATENCY * raw:
            yield f"{what}: {mine / raw:.2f} times raw Zenoh, at most {LATENCY} wanted"
        if not case.paced and case.size >= RATE_FROM and mine < RATE * raw:
            yield f"{what}: {mine / raw:.2f} times raw Zenoh, at least {RATE} wanted"
        if mine > peer if case.paced else mine < peer:
            yield f"{what}: {mine / peer:.2f} times dora 1.1.0"
    if stopped.cost > DISTURBED:
        yield f"a stopped receiver costs another one {stopped.cost:.1%}, less than 5 % wanted"


def page(figures: Figures, stopped: Stopped, rounds: int) -> str:
    """Return the page."""
    machine = describe()
    wrong = list(missed(figures, stopped))
    targets = "All targets are reached." if not wrong else "Missed targets:\n\n"
    targets += "\n".join(f"- {line}" for line in wrong)
    return TEXT.read_text(encoding="utf-8").format(
        rounds=rounds,
        place=f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}",
        load=machine["load_before"],
        table=table(figures),
        before=stopped.before,
        after=stopped.after,
        cost=-stopped.cost,
        targets=targets.rstrip(),
    )
