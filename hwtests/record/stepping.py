"""Replay random dataflows with `--step` again and again beside busy loops: each is always the same.

`python -m hwtests.record.stepping [--dataflows 200] [--replays 20] [--busy 4] [--first SEED]`: some
nodes are in C, if there is a compiler. It stops at the first dataflow that differs, and keeps its
folder; `--first` continues with any other one. The line of a dataflow has a digest of all that its
nodes have received, to compare runs by.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.harness.commands import command_server, run_command
from tests.harness.dataflow import clean_environment
from tests.record.stepflows import busy, compile_node, digest, prepare

TIMEOUT_S = 600.0


class DifferentError(Exception):
    """A replay has failed, or differs from those before."""


def replayed(
    folder: Path, environ: dict[str, str], seed: int, replays: int, in_c: Path | None
) -> str:
    """Replay one dataflow; return a line about it. Raises DifferentError."""
    text = prepare(folder, seed, in_c)
    digests = set()
    for number in range(replays):
        logs = folder / f"logs{number}"
        logs.mkdir()
        done = run_command(
            "dora",
            ("replay", "a.mcap", "--step"),
            cwd=folder,
            env=environ | {"LOGS": str(logs)},
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            raise DifferentError(f"replay {number} failed: {done.stdout}{done.stderr}")
        digests.add(digest(logs))
        if len(digests) > 1:
            raise DifferentError(f"replay {number} differs from those before")
    events = sum(len(path.read_text().splitlines()) for path in logs.iterdir())
    if not events:
        raise DifferentError("its nodes have received nothing")
    count, programs = text.count("path: ") - text.count("path: none.py"), text.count("stepnode")
    return (
        f"{replays} equal replays of {count} nodes, {programs} of them in C,"
        f" with {events} events: {digests.pop()[:16]}"
    )


def main() -> int:
    """Return 0 if all replays of each dataflow are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("dataflows", 200), ("replays", 20), ("busy", 4), ("first", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dora-step-") as runtime, busy(given.busy):
        environ = clean_environment(Path(sys.executable).parent, {"XDG_RUNTIME_DIR": runtime})
        has_compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
        in_c = compile_node(Path(runtime)) if has_compiler else None
        if in_c is None:
            print("there is no C compiler: all nodes are in Python")
        with command_server():
            for seed in range(given.first, given.first + given.dataflows):
                folder = Path(tempfile.mkdtemp(prefix=f"stepflow-{seed}-"))
                try:
                    line = replayed(folder, environ, seed, given.replays, in_c)
                except DifferentError as error:
                    print(f"dataflow {seed} in {folder}: {error}", flush=True)
                    return 1
                shutil.rmtree(folder)
                print(f"dataflow {seed}: {line}", flush=True)
    print(f"{given.dataflows} dataflows in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
