"""Measure a coordinator with many simulated robots: `python -m hwtests.scale`."""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from dorad.control.errors import ControlError
from hwtests.bench.process import MeasurementError
from hwtests.scale.certificates import issue
from hwtests.scale.coordinator import ADDRESS, coordinator
from hwtests.scale.operator import operator
from hwtests.scale.orders import Fleet
from hwtests.scale.page import page, rollout_page, table, targets
from hwtests.scale.phases import Phase, Scenario
from hwtests.scale.rollouts import Rollouts
from hwtests.scale.simulators import simulators

KEPT = Path(__file__).parents[2] / "docs/bench/fleet.md"
KEPT_ROLLOUT = KEPT.with_name("fleet-rollout.md")


async def measure(options: argparse.Namespace, console: Console) -> list[Phase]:
    """Run all phases."""
    names = [f"robot{number:04}" for number in range(1, options.robots + 1)]
    phases: list[Phase] = []

    def keep(phase: Phase) -> None:
        phases.append(phase)
        console.print(table([phase]).splitlines()[-1], highlight=False, markup=False)
        for failure in phase.cost.failures[:5]:
            console.print(f"  without an answer: {failure}", highlight=False, markup=False)

    with tempfile.TemporaryDirectory(prefix="dorafleet-scale-") as text:
        folder = Path(text)
        console.print(f"{options.robots} certificates")
        issue(folder / "state", folder, names)
        async with coordinator(folder, names) as running:
            fleet = Fleet(names, ADDRESS, running.port, str(folder))
            async with (
                simulators(fleet, options.processes) as robots,
                operator(running) as (status, load),
            ):
                if options.rollout:
                    await Rollouts(robots, running, status).run(keep)
                else:
                    await Scenario(robots, running.pid, status, options.seconds, load).run(keep)
    return phases


def main() -> int:
    """Measure and print; return 1 if a target was missed."""
    options = argparse.ArgumentParser(prog="python -m hwtests.scale", description=__doc__)
    options.add_argument("--robots", type=int, default=1000)
    options.add_argument("--processes", type=int, default=2, help="that simulate robots")
    options.add_argument("--seconds", type=float, default=20.0, help="of phases without an end")
    options.add_argument("--rollout", action="store_true", help="measure rollouts instead")
    options.add_argument("--write", action="store_true", help="write the page in docs/bench")
    given = options.parse_args()
    console = Console(stderr=True, width=160)
    # The coordinator and the robots end in both cases.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        phases = asyncio.run(measure(given, console))
    except (MeasurementError, ControlError) as error:
        console.print(f"failed: {error}", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    text = rollout_page(given.robots, phases) if given.rollout else page(given.robots, phases)
    sys.stdout.write(text)
    if given.write:
        kept = KEPT_ROLLOUT if given.rollout else KEPT
        kept.write_text(text, encoding="utf-8")
    if given.rollout:
        return 0
    return 0 if all(enough for _, _, enough in targets(given.robots, phases)) else 1


if __name__ == "__main__":
    sys.exit(main())
