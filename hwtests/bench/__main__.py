"""``make bench``: measure ours beside dora 1.1.0 and iceoryx2, print a table, keep the figures."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hwtests.bench.cases import GROUPS, Flow, Plan, flows, quick_plan
from hwtests.bench.chart import chart
from hwtests.bench.floors import floors
from hwtests.bench.machine import describe, versions
from hwtests.bench.markdown import page
from hwtests.bench.process import MeasurementError
from hwtests.bench.record import document
from hwtests.bench.stats import Figure, Key, summarise
from hwtests.bench.systems import System, ensure_peers
from hwtests.bench.table import NOTE, losses, main_table, other_table
from hwtests.bench.targets import OURS, PEER

Measurement = Callable[[], Iterable[tuple[Key, float]]]


KEPT = Path(__file__).parents[2] / "docs" / "bench"
"""Where the figures of the last whole run are kept."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    options = argparse.ArgumentParser(prog="python -m hwtests.bench", description=__doc__)
    options.add_argument("--quick", action="store_true", help="one short round (under a minute)")
    options.add_argument("--only", choices=GROUPS, action="append", help="measure only this group")
    options.add_argument("--rounds", type=int, help="how often to alternate between the systems")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures here")
    options.add_argument("--svg", type=Path, metavar="FILE", help="write the picture here")
    options.add_argument("--no-peers", action="store_true", help="measure only ours and eventfd")
    options.add_argument("--no-ours", action="store_true", help="measure only the peers")
    options.add_argument(
        "--ours", type=Path, default=Path(sys.prefix), metavar="VENV", help="where ours is"
    )
    options.add_argument(
        "--peers",
        type=Path,
        default=Path(".venv-peers"),
        metavar="VENV",
        help="where the peers are, or are to be installed (default: %(default)s)",
    )
    return options


def measurements(
    plan: Plan, groups: list[str], systems: list[System], peers: Path | None
) -> list[tuple[str, Measurement]]:
    """Return every measurement of one round, the systems taking turns."""
    found: list[tuple[str, Measurement]] = []
    for flow in flows(plan):
        for system in systems:
            if flow.group in groups and (system.name == OURS or not flow.only_ours):
                found.append((f"{flow.measure}, {system.name}", _flow(system, flow)))
    if "start" in groups:
        for system in systems * plan.starts * 2:
            found.append((f"dora --help, {system.name}", _help(system)))
            # dora's daemon listens at fixed ports, which may be in use.
            if system.name == OURS:
                found.append((f"dora list, {system.name}", _list(system)))
    if "floor" in groups:
        found += floors(plan, peers)
    return found


def _flow(system: System, flow: Flow) -> Measurement:
    return lambda: system.measure(flow)


def _help(system: System) -> Measurement:
    return lambda: [system.measure_help()]


def _list(system: System) -> Measurement:
    return lambda: [system.measure_list()]


def measure(
    plan: Plan, todo: list[tuple[str, Measurement]], console: Console
) -> tuple[list[Figure], list[str]]:
    """Take every measurement in every round; return the figures and the failures."""
    figures: list[Figure] = []
    failures: list[str] = []
    for number in range(plan.rounds):
        for done, (name, take) in enumerate(todo):
            progress = f"round {number + 1}/{plan.rounds}, {done + 1}/{len(todo)}: {name}"
            with console.status(progress):
                if not console.is_terminal:
                    console.print(progress, highlight=False)
                try:
                    figures += [Figure(key, number, value) for key, value in take()]
                except MeasurementError as error:
                    failures.append(f"{name}: {error}")
                    console.print(f"failed: {name}: {error}", style="red", markup=False)
    return figures, failures


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a measurement failed, 0 also if targets are missed."""
    options = parser().parse_args(argv)
    progress = Console(stderr=True)
    plan = quick_plan() if options.quick else Plan()
    if options.rounds:
        plan = replace(plan, rounds=options.rounds)
    systems = [] if options.no_ours else [System(OURS, options.ours.resolve())]
    peers = None if options.no_peers else options.peers.resolve()
    if peers is not None:
        try:
            with progress.status(f"installing the peers into {peers}"):
                ensure_peers(peers)
        except MeasurementError as error:
            progress.print(f"the peers cannot be installed: {error}", markup=False)
            return 1
        systems.append(System(PEER, peers))
    for system in systems:
        if not system.dora.exists():
            progress.print(f"{system.dora}: not there; is it installed?", markup=False)
            return 1
    machine = describe() | {s.name: versions(s.venv / "bin" / "python") for s in systems}
    todo = measurements(plan, options.only or list(GROUPS), systems, peers)
    figures, failures = measure(plan, todo, progress)
    summarise(figures)
    show(Console(width=None if sys.stdout.isatty() else 150), machine, figures)
    keep(options, machine, plan, figures, failures)
    return 1 if failures else 0


def keep(
    options: argparse.Namespace,
    machine: dict[str, object],
    plan: Plan,
    figures: list[Figure],
    failures: list[str],
) -> None:
    """Write the files asked for; a whole run without failures also replaces those in docs/."""
    whole = not (failures or options.quick or options.only or options.no_peers or options.no_ours)
    raw = options.json or (KEPT / "results.json" if whole else None)
    picture = options.svg or (KEPT / "roundtrip.svg" if whole else None)
    summary = summarise(figures)
    if raw:
        raw.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document(machine, plan, figures, failures), indent=1)
        raw.write_text(text + "\n", encoding="utf-8")
    if picture and any(key.measure == "round trip" and key.size for key in summary):
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(chart(summary, place(machine)), encoding="utf-8")
    if whole:
        (KEPT / "results.md").write_text(page(summary, place(machine)), encoding="utf-8")


def place(machine: dict[str, object]) -> str:
    """Return the machine in half a line."""
    return f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}"


def show(console: Console, machine: dict[str, object], figures: list[Figure]) -> None:
    """Print the tables."""
    summary = summarise(figures)
    console.print(f"{place(machine)}, load {machine['load_before']:.2f} before the run")
    console.print(main_table(summary))
    if (others := other_table(summary)).row_count:
        console.print(others)
    console.print(NOTE)
    for line in losses(summary):
        console.print(f"dropped or lost: {line}", highlight=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
