"""`python -m hwtests.faults`: exit code 0 if nothing was damaged, 1 if something was."""

import argparse
import functools
import random
import sys
import time
from collections.abc import Callable
from random import Random

from dorad.control.errors import ControlError
from hwtests.faults import campaigns
from hwtests.faults.campaigns import Outcome
from hwtests.faults.clock import MachineClock, PatchedClock, why_not_the_machines
from hwtests.faults.daemon import busy, daemon, lost
from hwtests.faults.disks import fulldisk
from hwtests.faults.testbed import DamageError


def machine_clock(seconds: float, rng: Random) -> Outcome:
    """Step the machine's own clock, for every process on it."""
    if why := why_not_the_machines():
        return Outcome(skipped=why)
    return campaigns.clock(seconds, rng, MachineClock())


CAMPAIGNS: dict[str, Callable[[float, Random], Outcome]] = {
    "kill": campaigns.kill,
    "stop": campaigns.stop,
    "forkbomb": campaigns.forkbomb,
    "fulldisk": fulldisk,
    "clock": functools.partial(campaigns.clock, wall_clock=PatchedClock()),
    "daemon": daemon,
    "busy": busy,
    "lost": lost,
}


def main() -> int:
    """Run the campaigns and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m hwtests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each (default: 20)")
    parser.add_argument("--only", help=f"some of {','.join(CAMPAIGNS)}")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument(
        "--allow-clock-step",
        action="store_true",
        help="let `clock` step the machine's own clock by seconds, not only what Python reads",
    )
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(CAMPAIGNS)
    if unknown := set(names) - set(CAMPAIGNS):
        parser.error(f"there is no campaign {', '.join(sorted(unknown))}")
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.seconds:g} s each", flush=True)
    chosen = {name: CAMPAIGNS[name] for name in names}
    if arguments.allow_clock_step and "clock" in chosen:
        chosen["clock of the machine"] = machine_clock
    damaged = [
        name for name, campaign in chosen.items() if not run(name, campaign, arguments, seed)
    ]
    print(f"damaged: {', '.join(damaged)}" if damaged else "nothing was damaged")
    return 1 if damaged else 0


def run(
    name: str,
    campaign: Callable[[float, Random], Outcome],
    arguments: argparse.Namespace,
    seed: int,
) -> bool:
    """Run one campaign; return True if it found no fault."""
    begun = time.monotonic()
    try:
        outcome = campaign(arguments.seconds, Random(f"{seed} {name}"))
    except (DamageError, ControlError) as error:
        outcome = Outcome(faults=[str(error)])
    took = time.monotonic() - begun
    if outcome.skipped is not None:
        print(f"{name}: skipped, {outcome.skipped}", flush=True)
        return True
    verdict = f"{len(outcome.faults)} FAULTS" if outcome.faults else "ok"
    print(f"{name}: {verdict} ({took:.0f} s) {outcome.summary}", flush=True)
    for fault in outcome.faults[:10]:
        print(f"  FAULT: {fault}", file=sys.stderr, flush=True)
    return not outcome.faults


if __name__ == "__main__":
    sys.exit(main())
