"""The figures as the page docs/bench/fleet.md, and the targets."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hwtests.bench.machine import describe
from hwtests.scale.meter import TIMEOUT_S
from hwtests.scale.phases import Phase

MIB = 1 << 20
BACK_S = ((1000, 15.0), (5000, 60.0))
"""Seconds until all are back after a storm, for up to so many robots."""
MEMORY = 100 * MIB
MEMORY_EACH = MIB // 10

TEXT = Path(__file__).with_name("page.md")


def table(phases: Sequence[Phase]) -> str:
    """Return the phases as a table."""
    lines = [
        "| phase | all there after | processor | memory | traffic of a robot | `status` | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for phase in phases:
        cost = phase.cost
        cells = [
            phase.name,
            "" if phase.took is None else f"{phase.took:.1f} s",
            f"{cost.cpu / cost.seconds:.0%}",
            f"{cost.memory / MIB:.0f} MiB",
            "" if phase.rate is None else f"{phase.rate:,.0f} B/s",
            f"{cost.p50 * 1e3:.0f} / {cost.p99 * 1e3:.0f} / {cost.worst * 1e3:.0f} ms",
            phase.note,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def targets(robots: int, phases: Sequence[Phase]) -> Iterator[tuple[str, str, bool]]:
    """Yield each target, what was reached, and whether that is enough."""
    within = next((seconds for limit, seconds in BACK_S if robots <= limit), BACK_S[-1][1])
    for name in ("all connect at once", "all dropped at once"):
        took = next((p.took for p in phases if p.name == name and p.took), float("nan"))
        yield f"{name}: all there within {within:g} s", f"{took:.1f} s", took <= within
    memory = max(phase.cost.memory for phase in phases)
    allowed = MEMORY + MEMORY_EACH * robots
    yield (
        f"at most {MEMORY // MIB} MiB, and 0.1 MiB for each robot",
        f"{memory / MIB:.0f} MiB",
        memory <= allowed,
    )
    failures = sum(len(phase.cost.failures) for phase in phases)
    yield "`status` never times out", f"{failures} timeouts", not failures


def page(robots: int, phases: Sequence[Phase]) -> str:
    """Return the page."""
    machine = describe()
    reached = [
        f"| {target} | {value}{'' if enough else ' (missed)'} |"
        for target, value, enough in targets(robots, phases)
    ]
    return TEXT.read_text(encoding="utf-8").format(
        robots=robots,
        place=f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}",
        load=machine["load_before"],
        table=table(phases),
        timeout=TIMEOUT_S,
        failures=sum(len(phase.cost.failures) for phase in phases) or "none",
        targets="\n".join(reached),
    )


def rollout_page(robots: int, phases: Sequence[Phase]) -> str:
    """Return the page about rollouts."""
    machine = describe()
    return (
        TEXT.with_name("rolloutpage.md")
        .read_text(encoding="utf-8")
        .format(
            robots=robots,
            place=f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}",
            load=machine["load_before"],
            table=table(phases),
            failures=sum(len(phase.cost.failures) for phase in phases) or "none",
        )
    )
