"""Run a node with a timer of 1 ms under each condition and measure its lateness."""

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hwtests.bench.process import MeasurementError, environment
from hwtests.bench.stats import percentile
from hwtests.realtime.load import load

REALTIME = {"policy": "fifo", "priority": 80, "lock_memory": True}
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "worst": 1.0}
GOAL = 10.0
"""Factor by which p99.9 must be better under load with real time."""

_NODE = Path(__file__).parent / "nodes" / "ticker.py"
_SLACK_S = 60.0
_REFUSALS = ("realtime: runs without", "lock_memory: ")


@dataclass(frozen=True, slots=True)
class Case:
    """One condition."""

    busy: bool
    realtime: bool

    @property
    def name(self) -> str:
        """Its name in table and picture."""
        state = "under load" if self.busy else "idle"
        return f"{state}, {'real time' if self.realtime else 'normal'}"


CASES = tuple(Case(busy, realtime) for busy in (False, True) for realtime in (False, True))


def measure(case: Case, seconds: float, folder: Path) -> list[float]:
    """Return the lateness of each tick in µs, sorted.

    Raises:
        MeasurementError: the node could not run as it should.
    """
    result = folder / "late.json"
    node: dict[str, Any] = {
        "id": "ticker",
        "path": str(_NODE),
        # No tick is left out: one that waits behind another counts with its full lateness.
        "inputs": {"tick": {"source": "dora/timer/millis/1", "queue_size": 10_000}},
        "env": {"TICKS": str(int(seconds * 1000)), "RESULT": str(result)},
    }
    if case.realtime:
        node["realtime"] = REALTIME
    file = folder / "dataflow.yml"
    file.write_text(yaml.safe_dump({"nodes": [node]}), encoding="utf-8")
    venv = Path(sys.prefix)
    with load() if case.busy else contextlib.nullcontext():
        done = subprocess.run(
            [venv / "bin" / "dora", "run", file],
            env=environment(venv),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + _SLACK_S,
            check=False,
        )
    output = [line for line in (done.stdout + done.stderr).splitlines() if _refused(line)]
    if output:
        raise MeasurementError(output[0])
    if done.returncode:
        raise MeasurementError(f"{case.name}: {done.stderr}")
    return sorted(json.loads(result.read_text(encoding="utf-8")))


def _refused(line: str) -> bool:
    return any(words in line for words in _REFUSALS)


def floor(seconds: float) -> list[float]:
    """Return how late cyclictest, a C program, is under load at the same priority, in µs, sorted.

    What it cannot do, no node can: it is stopped by the kernel, or by a hypervisor below it. Empty
    if it is not installed, or may not run so.
    """
    program = shutil.which("cyclictest")
    if program is None:
        return []
    loops, priority = str(int(seconds * 1000)), str(REALTIME["priority"])
    argv = [program, "-q", "-m", "-t1", "-p", priority, "-i", "1000", "-l", loops, "-h", "100000"]
    with load():
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=seconds + _SLACK_S, check=False
        )
    found = re.findall(r"^(\d+)\s+(\d+)$", done.stdout, re.MULTILINE)
    return [float(us) for us, count in found for _ in range(int(count))]


def row(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Return the figures of `SHARES`, in µs: the median of all rounds, and the worst of all."""
    *shares, _ = SHARES.values()
    medians = [statistics.median(percentile(late, share) for late in rounds) for share in shares]
    return [*medians, max(late[-1] for late in rounds)]


def gain(found: Mapping[Case, Sequence[Sequence[float]]]) -> float:
    """Return how many times better p99.9 is under load with real time than without."""
    place = list(SHARES).index("p99.9")
    without, real = (row(found[Case(busy=True, realtime=realtime)]) for realtime in (False, True))
    return without[place] / real[place]
