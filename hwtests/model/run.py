"""Check the model of the data plane with spin: `make model`.

Every configuration of cases.py must hold and must have been searched whole; in every mutant
(one step of the protocol left out) spin must find the fault that the step prevents. Exit code 0
if all that is so, 1 if not, 2 for wrong arguments.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hwtests.model.cases import HOLDS, MUTANTS, Case

MODELS = Path(__file__).resolve().parent
MEMORY_MB = 1900  # of one search; two run at once
DEPTH = 200_000
SECONDS = 600
TRUNCATED = (
    "reached -DMEMLIM",
    "max search depth too small",
    "Search not completed",
    "out of memory",
)


class ToolError(Exception):
    """spin, gcc or pan failed; the text has its output."""


@dataclass(frozen=True)
class Outcome:
    """The result of one search: `fault` and `truncated` are empty without one."""

    fault: str
    truncated: str
    states: int
    depth: int
    seconds: float


def command(argv: list[str], cwd: Path, case: Case) -> str:
    """Run a tool to its end and return what it printed.

    Raises ToolError when it fails or takes longer than SECONDS.
    """
    where = f"{argv[0]} for {case.name!r} in {cwd}"
    try:
        done = subprocess.run(
            argv, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{where}: no result within {SECONDS} s") from error
    output = done.stdout + done.stderr
    if done.returncode != 0:
        raise ToolError(f"{where}: exit code {done.returncode}\n{output.strip()}")
    return output


def parse(output: str, seconds: float) -> Outcome:
    """Read pan's report.

    Raises ToolError if it is not a report of a search.
    """
    ended = re.search(r"depth reached (\d+), errors: (\d+)", output)
    states = re.search(r"(\d+) states, stored", output)
    if ended is None or states is None:
        raise ToolError(f"pan gave no report:\n{output.strip()}")
    fault = ""
    if ended.group(2) != "0":
        named = re.search(r"assertion violated .*\|\|\s*(\w+)\)* \(at depth", output)
        plain = re.search(r"pan:\d+: (.*) \(at depth", output)
        found = named or plain
        fault = found.group(1).replace("_", " ") if found else "unnamed fault"
    # pan stops at the first fault: an unfinished search is expected then.
    cut = [] if fault else [text for text in TRUNCATED if text in output]
    return Outcome(fault, ", ".join(cut), int(states.group(1)), int(ended.group(1)), seconds)


def check(case: Case, place: Path) -> Outcome:
    """Make, compile and run the checker of one case in the directory `place`."""
    place.mkdir()
    command(["spin", "-a", *case.defines, str(MODELS / case.model)], place, case)
    level = "-O0" if case.fault else "-O2"
    flags = ["-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}"]
    command(["gcc", level, *flags, "-o", "pan", "pan.c"], place, case)
    begin = time.monotonic()
    output = command(["./pan", f"-m{DEPTH}", "-w24", "-n"], place, case)
    return parse(output, time.monotonic() - begin)


def verdict(case: Case, outcome: Outcome) -> tuple[bool, str]:
    """Return True if the outcome is the expected one, and the text for the table."""
    if case.fault:
        if outcome.fault == case.fault:
            return True, f"caught: {outcome.fault}"
        return False, f"NOT CAUGHT: expected {case.fault!r}, found {outcome.fault or 'nothing'!r}"
    if outcome.fault:
        return False, f"FAULT: {outcome.fault}"
    if outcome.truncated:
        return False, f"TRUNCATED: {outcome.truncated}"
    return True, f"holds: {case.prop}"


def explain(case: Case, place: Path) -> str:
    """Write the steps to the fault to a file that is kept; return its path."""
    trail = place / f"{case.model}.trail"
    if not trail.exists():
        return ""
    argv = ["spin", *case.defines, "-k", str(trail), "-p", "-g", "-l", str(MODELS / case.model)]
    steps = command(argv, place, case)
    with tempfile.NamedTemporaryFile(
        "w", prefix="dorad-model-", suffix=".txt", delete=False, encoding="utf-8"
    ) as kept:
        kept.write(steps)
    return f"    the steps to it: {kept.name}"


def run(title: str, cases: list[Case], jobs: int, root: Path) -> int:
    """Check the cases and print a row for each; return the number of failed ones."""
    print(f"{title:<46} {'states':>10} {'depth':>6} {'time':>7}  result", flush=True)
    places = [root / f"{title}-{number}" for number in range(len(cases))]
    wrong = 0
    with ThreadPoolExecutor(jobs) as pool:
        for case, place, outcome in zip(cases, places, pool.map(check, cases, places), strict=True):
            good, words = verdict(case, outcome)
            print(
                f"{case.name:<46} {outcome.states:>10} {outcome.depth:>6}"
                f" {outcome.seconds:>5.1f} s  {words}",
                flush=True,
            )
            if not good:
                wrong += 1
                if note := explain(case, place):
                    print(note, flush=True)
            shutil.rmtree(place)
    return wrong


def main() -> int:
    """Parse the arguments, check the selected cases, print a summary."""
    parser = argparse.ArgumentParser(description="Check the data plane's model with spin.")
    parser.add_argument("--mutants", action="store_true", help="only the mutants")
    parser.add_argument("--protocol", action="store_true", help="only the protocol itself")
    parser.add_argument("--only", default="", metavar="TEXT", help="only names that contain TEXT")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="searches at once (2)")
    arguments = parser.parse_args()
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        print(
            f"model: {' and '.join(missing)} not found; install with:"
            " apt-get install -y spin gcc libc6-dev",
            file=sys.stderr,
        )
        return 1
    begin = time.monotonic()
    groups = []
    if not arguments.mutants or arguments.protocol:
        groups.append(("configuration", HOLDS))
    if not arguments.protocol or arguments.mutants:
        groups.append(("mutant", MUTANTS))
    checked = wrong = 0
    with tempfile.TemporaryDirectory(prefix="dorad-model-") as root:
        for title, cases in groups:
            chosen = [case for case in cases if arguments.only in case.name]
            try:
                wrong += run(title, chosen, max(1, arguments.jobs), Path(root))
            except ToolError as error:
                print(f"model: {error}", file=sys.stderr)
                return 1
            checked += len(chosen)
    print(f"{checked} checked, {wrong} wrong, {time.monotonic() - begin:.0f} s")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
