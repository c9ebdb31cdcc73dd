"""`python -m hwtests.litmus`: exit code 0 if the fences of the data plane keep what they order.

Each pair of litmus.c runs with its fences, where no round may show the reordering, and without
them. Without fences the reordering must show, or the test proves nothing. x86-64 never reorders the
steps of the pair `entry`, so that one may find nothing there.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dorad.shm import abi

SOURCE = Path(__file__).with_name("litmus.c")
PAIRS = {
    "asleep": "HEAD, then ASLEEP; ASLEEP, then HEAD",
    "borrow": "HEAD, then a slot; a slot, then HEAD",
    "waiting": "WAITING, then TAIL; TAIL, then WAITING",
    "entry": "an entry, then HEAD; HEAD, then the entry",
}
NEVER_FOUND_ON_X86 = "entry"


class ToolError(Exception):
    """The compiler or the program failed; the text says how."""


def main() -> int:
    """Compile the program with and without fences, run each pair, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m hwtests.litmus")
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--compiler", default="cc")
    given = parser.parse_args()
    wrong = 0
    print(f"{'pair':<44} {'fences':<8} {'rounds':>10} {'reordered':>10} {'time':>8}")
    with tempfile.TemporaryDirectory(prefix="dorad-litmus-") as folder:
        Path(folder, "layout_constants.h").write_text(abi.header())
        try:
            programs = {
                "with": _compile(given.compiler, Path(folder, "with")),
                "without": _compile(given.compiler, Path(folder, "without"), "-DWITHOUT_FENCES"),
            }
            for pair, text in PAIRS.items():
                for fences, program in programs.items():
                    wrong += not _check(program, pair, text, fences, given.rounds)
        except ToolError as error:
            print(f"litmus: {error}", file=sys.stderr)
            return 2
    return 1 if wrong else 0


def _compile(compiler: str, program: Path, *flags: str) -> Path:
    command = [*shlex.split(compiler), "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command += [f"-I{program.parent}", *flags, str(SOURCE), "-o", str(program)]
    _run(command)
    return program


def _check(program: Path, pair: str, text: str, fences: str, rounds: int) -> bool:
    """Run one pair; return True if it found what it must."""
    started = time.monotonic()
    found = int(_run([str(program), pair, str(rounds)]))
    taken = time.monotonic() - started
    if fences == "with":
        right, wrong = not found, "WRONG: a fence does not order"
    else:
        right = bool(found) or pair == NEVER_FOUND_ON_X86
        wrong = "WRONG: not found, so the run with fences proves nothing"
    verdict = "" if right else wrong
    print(
        f"{text:<44} {fences:<8} {rounds:>10} {found:>10} {taken:>6.1f} s  {verdict}".rstrip(),
        flush=True,
    )
    return right


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise ToolError(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
