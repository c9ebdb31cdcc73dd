"""The floor of any dataflow system: bare eventfds, and iceoryx2's Python binding."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hwtests.bench.cases import Plan
from hwtests.bench.process import environment, run
from hwtests.bench.results import latencies
from hwtests.bench.stats import Key

FLOOR = Path(__file__).parent / "floor"
Measurement = Callable[[], Iterator[tuple[Key, float]]]


def eventfd(plan: Plan, placement: str) -> Iterator[tuple[Key, float]]:
    """Measure a round trip over bare eventfds, ``free`` or ``pinned`` to one core."""
    count = 1_000 if plan.quick else 10_000
    argv: list[str | Path] = [sys.executable, FLOOR / "eventfd.py", str(count), placement]
    output = run(argv, environment(Path(sys.prefix)), FLOOR, 60.0).output
    for size, metric, value in latencies(0, last_line(output)["ns"]):
        yield Key("round trip", f"eventfd {placement}", size, metric), value


def iceoryx(plan: Plan, venv: Path, source: str, wait: str) -> Iterator[tuple[Key, float]]:
    """Measure a round trip of raw bytes over iceoryx2; see its script for the arguments."""
    sizes = ",".join(str(size) for size in plan.sizes)
    counts = ",".join(str(plan.round_trips[size]) for size in plan.sizes)
    argv: list[str | Path] = [
        venv / "bin" / "python",
        FLOOR / "iceoryx.py",
        sizes,
        counts,
        source,
        wait,
    ]
    output = run(argv, environment(venv), FLOOR, 60.0).output
    measure = "round trip" if source == "heap" else "round trip, allocated in shm"
    for text, step in last_line(output)["sizes"].items():
        for size, metric, value in latencies(int(text), step["ns"]):
            yield Key(measure, f"iceoryx2 {wait}", size, metric), value


def last_line(output: str) -> dict[str, Any]:
    """Return the JSON in the last line of a script's output, after warnings of libraries."""
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def floors(plan: Plan, peers: Path | None) -> list[tuple[str, Measurement]]:
    """Return every floor of one round, with its name."""
    found: list[tuple[str, Measurement]] = [
        ("eventfd free", lambda: eventfd(plan, "free")),
        ("eventfd pinned", lambda: eventfd(plan, "pinned")),
    ]
    if peers is not None:
        for source in ("heap",) if plan.quick else ("heap", "shm"):
            for wait in (
                ("blocking", "polling") if plan.quick else ("blocking", "pinned", "polling")
            ):
                found.append((f"iceoryx2 {source} {wait}", _iceoryx(plan, peers, source, wait)))
    return found


def _iceoryx(plan: Plan, peers: Path, source: str, wait: str) -> Measurement:
    return lambda: iceoryx(plan, peers, source, wait)
