"""``make bench-rt``: measure how exactly a node wakes up, print a table, draw a picture."""

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hwtests.bench.chart import time_text
from hwtests.bench.machine import describe
from hwtests.bench.process import MeasurementError
from hwtests.realtime.bench import CASES, GOAL, REALTIME, SHARES, Case, floor, gain, measure, row
from hwtests.realtime.load import commands
from hwtests.realtime.picture import picture

KEPT = Path(__file__).parents[2] / "docs" / "bench"
"""Where the picture and the figures of the last run are kept."""


FLOOR = "under load, cyclictest"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    options = argparse.ArgumentParser(prog="python -m hwtests.realtime", description=__doc__)
    options.add_argument("--seconds", type=float, default=5.0, help="of a case in a round")
    options.add_argument("--rounds", type=int, default=3, help="how often the cases take turns")
    options.add_argument("--svg", type=Path, default=KEPT / "realtime.svg", metavar="FILE")
    options.add_argument("--json", type=Path, default=KEPT / "realtime.json", metavar="FILE")
    return options


def table(rows: Mapping[str, Sequence[float]]) -> Table:
    """Return the measured times in µs."""
    shown = Table(title="From when a tick of a 1 ms timer is due to when the node has it")
    shown.add_column("")
    for name in SHARES:
        shown.add_column(name, justify="right")
    for name, figures in rows.items():
        shown.add_row(name, *map(time_text, figures))
    return shown


def main() -> int:
    """Measure all cases; exit code 1 if real time is refused here."""
    options = parser().parse_args()
    console = Console()
    name, _ = commands(os.cpu_count() or 1)
    machine = describe()
    found: dict[Case, list[list[float]]] = {case: [] for case in CASES}
    floors: list[list[float]] = []
    try:
        for number in range(1, options.rounds + 1):
            for case in CASES:
                console.print(f"round {number} of {options.rounds}: {case.name}", style="dim")
                with tempfile.TemporaryDirectory() as folder:
                    found[case].append(measure(case, options.seconds, Path(folder)))
            floors.append(floor(options.seconds))
    except MeasurementError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = {case.name: row(rounds) for case, rounds in found.items()}
    if all(floors):
        rows[FLOOR] = row(floors)
    console.print(table(rows))
    times = gain(found)
    where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}"
    console.print(f"load: {name}; real time: {json.dumps(REALTIME)}; {where}", soft_wrap=True)
    reached = "reached" if times >= GOAL else "not reached"
    console.print(f"under load p99.9 is {times:.1f}x better; the goal of {GOAL:g}x is {reached}")
    merged = {case: sorted(itertools.chain(*rounds)) for case, rounds in found.items()}
    options.svg.write_text(picture(merged, f"{where}; load: {name}"), encoding="utf-8")
    figures = {label: dict(zip(SHARES, values, strict=True)) for label, values in rows.items()}
    content = {"machine": machine, "load": name, "seconds": options.seconds} | {
        "rounds": options.rounds,
        "us": figures,
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"picture: {options.svg}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
