"""`python -m hwtests.fuzz`: exit code 0 if a receiver survives random entries, else 1."""

import argparse
import os
import subprocess
import sys
import time
from random import Random

from dorad.shm import native
from hwtests.fuzz.entries import run


def main() -> int:
    """Run the campaign in its own process, so that a crash of it is a result."""
    parser = argparse.ArgumentParser(prog="python -m hwtests.fuzz")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        result = run(Random(given.seed), given.entries)
        print(
            f"{result.entries} entries: {result.inputs} read, {result.errors} errors; "
            f"{result.by_native} of the messages taken by C ({native.describe()})"
        )
        for fault in result.faults[:20]:
            print(fault)
        return 1 if result.faults else 0
    command = [sys.executable, "-X", "faulthandler", "-m", "hwtests.fuzz", "--here"]
    command += ["--entries", str(given.entries), "--seed", str(given.seed)]
    started = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    died = f", killed by signal {-code}" if code < 0 else ""
    print(f"seed {given.seed}: exit code {code}{died} after {time.monotonic() - started:.0f} s")
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
