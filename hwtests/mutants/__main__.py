"""`python -m hwtests.mutants`: exit code 0 if tests notice enough mutants of the pure cores.

Exit code 1 if they do not, or if `survivors.toml` is out of date; 2 if the tests fail without a
mutant. The tree is copied, and not touched.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwtests.mutants.areas import AREAS
from hwtests.mutants.campaign import Campaign, CampaignError, Outcome
from hwtests.mutants.sample import all_mutants, sample
from hwtests.mutants.survivors import Key, Survivor, SurvivorsError, read, stale

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).parent / "survivors.toml"
WANTED_PERCENT = 95.0
PROGRESS_S = 60.0
"""Between two lines of progress, where they do not go to a terminal."""


class Progress:
    """Lines on stderr: every mutant that survives, and how far the run is."""

    def __init__(self, total: int, explained: dict[Key, Survivor]) -> None:
        self._total = total
        self._explained = explained
        self._begun = self._shown = time.monotonic()
        self.outcomes: list[Outcome] = []

    def note(self, text: str) -> None:
        """Print a line."""
        self._print(f"{text}…")

    def report(self, outcome: Outcome) -> None:
        """Add an outcome."""
        self.outcomes.append(outcome)
        if outcome.verdict == "survived":
            known = " (explained)" if outcome.mutant.key in self._explained else ""
            self._print(f"survived{known}{_uncalled(outcome.tests)}: {outcome.mutant}")
        elif outcome.verdict == "unclear":
            self._print(f"unclear: {outcome.mutant}")
        now = time.monotonic()
        if sys.stderr.isatty():
            print(f"\r\033[K{self._line(now)}", end="", file=sys.stderr, flush=True)
        elif now - self._shown >= PROGRESS_S:
            self._shown = now
            self._print(self._line(now))

    def end(self) -> None:
        """Remove the line of progress from the terminal."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        done = len(self.outcomes)
        killed = sum(each.verdict == "killed" for each in self.outcomes)
        left = (now - self._begun) / done * (self._total - done)
        return f"{done} of {self._total}: {killed} killed, {left / 60:.0f} min left"

    def _print(self, text: str) -> None:
        self.end()
        print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Test mutants and print the result."""
    parser = argparse.ArgumentParser(prog="python -m hwtests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument("--count", type=int, default=200, help="mutants (default: 200)")
    parser.add_argument("--jobs", type=int, default=1, help="runs of tests at once (default: 1)")
    parser.add_argument("--only", default="", metavar="PATH", help="mutants of a module or folder")
    parser.add_argument(
        "--at-least",
        type=float,
        default=WANTED_PERCENT,
        metavar="PERCENT",
        help="killed mutants for exit code 0 (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.jobs < 1:
        parser.error("--count and --jobs are at least 1")
    try:
        survivors = read(SURVIVORS)
        everything = all_mutants(AREAS, ROOT)
    except (SurvivorsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if outdated := stale(survivors, everything):
        for each in outdated:
            print(f"{SURVIVORS.name}: there is no such change: {each}", file=sys.stderr)
        return 1
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    only = arguments.only.rstrip("/")
    possible = [
        each
        for each in everything
        if not only or each.module == only or each.module.startswith(f"{only}/")
    ]
    if not possible:
        parser.error(f"no mutant is made of {arguments.only}: it is in no area of areas.py")
    chosen = sample(possible, seed, arguments.count)
    print(f"seed {seed}: {len(chosen)} of {len(possible)} mutants", file=sys.stderr, flush=True)
    explained = {each.key: each for each in survivors}
    progress = Progress(len(chosen), explained)
    campaign = Campaign(ROOT, arguments.jobs)
    # Also where a shell has started this in the background, with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    begun = time.monotonic()
    try:
        campaign.run(chosen, progress.report, progress.note)
    except CampaignError as error:
        progress.end()
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, InterruptedError):
        progress.end()
        print("interrupted: the copies are removed", file=sys.stderr)
        return 130
    progress.end()
    result = summary(progress.outcomes, explained)
    result |= {"seed": seed, "seconds": round(time.monotonic() - begun)}
    print(json.dumps(result, indent=2) if arguments.json else table(result))
    noticed = [each for each in result["mutants"] if each["stale"]]
    for each in noticed:
        where = f"{each['file']}:{each['line']}: {each['change']}"
        print(f"{SURVIVORS.name}: tests notice this one, remove it: {where}", file=sys.stderr)
    enough = result["total"]["percent"] >= arguments.at_least
    if not enough:
        print(f"fewer than {arguments.at_least:g} % were killed", file=sys.stderr)
        again = f"--seed {seed} --count {arguments.count}"
        again += f" --only {arguments.only}" if arguments.only else ""
        print(f"repeat with: python -m hwtests.mutants {again}", file=sys.stderr)
    return 0 if enough and not noticed else 1


def summary(outcomes: Sequence[Outcome], explained: dict[Key, Survivor]) -> dict[str, Any]:
    """Return the numbers by area, and every mutant."""
    areas: dict[str, Counter[str]] = {}
    mutants = []
    for outcome in sorted(outcomes, key=lambda each: str(each.mutant)):
        mutant, verdict = outcome.mutant, outcome.verdict
        survived = verdict == "survived"
        entry = explained.get(mutant.key)
        counts = areas.setdefault(mutant.area.name, Counter())
        counts["mutants"] += 1
        counts["killed"] += verdict == "killed"
        counts["unclear"] += verdict == "unclear"
        counts["explained"] += survived and entry is not None
        mutants.append(
            {
                "file": mutant.module,
                "line": mutant.change.line,
                "function": mutant.change.function,
                "change": mutant.change.what,
                "area": mutant.area.name,
                "verdict": verdict,
                "tests": outcome.tests,
                "reason": entry.reason if entry and survived else None,
                "stale": entry is not None and verdict == "killed",
                "seconds": round(outcome.seconds, 1),
            }
        )
    total: Counter[str] = Counter()
    for counts in areas.values():
        total += counts
    return {
        "total": _numbers(total),
        "areas": {name: _numbers(counts) for name, counts in areas.items()},
        "mutants": mutants,
    }


def _numbers(counts: Counter[str]) -> dict[str, float]:
    """Return counts, and the percentage of mutants that tests noticed.

    An unclear one is neither: the mutant may run for ever, or the machine may be busy.
    """
    ended = counts["mutants"] - counts["unclear"]
    names = ("mutants", "killed", "unclear", "explained")
    return {name: counts[name] for name in names} | {
        "percent": round(100 * counts["killed"] / ended, 1) if ended else 0.0
    }


def _uncalled(tests: int) -> str:
    return "" if tests else " (no test calls it)"


def table(result: dict[str, Any]) -> str:
    """Return the result for people: survivors without a reason, and the numbers by area."""
    lines = [
        f"{each['verdict']}{_uncalled(each['tests'])}: "
        f"{each['file']}:{each['line']} in {each['function'] or 'the module'}: {each['change']}"
        for each in result["mutants"]
        if each["verdict"] != "killed" and each["reason"] is None
    ]
    for name, counts in [*result["areas"].items(), ("all", result["total"])]:
        more = f", {counts['unclear']} unclear" if counts["unclear"] else ""
        more += f", {counts['explained']} survivors explained" if counts["explained"] else ""
        lines.append(
            f"{name:>10}: {counts['killed']} of {counts['mutants']} killed"
            f" ({counts['percent']} %){more}"
        )
    lines.append(f"seed {result['seed']}, {result['seconds']} s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
