"""A dataflow that reveals any loss: numbers at 1 kHz, images at 30 Hz, 1,000 lines a second."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwtests.robots import Robot
from hwtests.robots.shell import wait_until

NODES = Path(__file__).with_name("nodes")
FOLDER = "/srv/load"
NAME = "load"
FLOW = f"""\
nodes:
  - id: ticks
    path: source.py
    inputs: {{tick: dora/timer/millis/1}}
    outputs: [data]
  - id: counter
    path: sink.py
    inputs: {{data: {{source: ticks/data, queue_size: 4000}}}}
    env: {{LOAD_FILE: {FOLDER}/counter.jsonl}}
  - id: camera
    path: source.py
    inputs: {{tick: dora/timer/hz/30}}
    outputs: [data]
    env: {{LOAD_MEGABYTES: 8}}
  - id: viewer
    path: sink.py
    inputs: {{data: {{source: camera/data, queue_size: 10}}}}
    env: {{LOAD_FILE: {FOLDER}/viewer.jsonl, LOAD_MEGABYTES: 8}}
  - id: talker
    path: talker.py
    inputs: {{tick: dora/timer/millis/1}}
"""
PIDS = "systemctl show --property=Id,ExecMainPID,NRestarts 'dorad-load-*' | sort"


@dataclass(frozen=True)
class Arrivals:
    """What one sink has received in an interval."""

    messages: int
    missing: int
    broken: int
    pids: frozenset[int]
    gap_ms: float
    p99_us: float

    def __str__(self) -> str:
        return (
            f"{self.messages} messages, {self.missing} missing, {self.broken} broken, "
            f"p99 {self.p99_us:.0f} us, longest pause {self.gap_ms:.1f} ms"
        )


def install(robot: Robot, flow: str = FLOW) -> None:
    """Copy the dataflow to a folder of the robot where nodes may write."""
    for file in NODES.glob("*.py"):
        robot.push(file, f"{FOLDER}/{file.name}")
    robot.write(f"{FOLDER}/load.yml", flow)
    robot.exec("chown", "-R", "dorad-node:", FOLDER)


def start(robot: Robot, *options: str) -> None:
    robot.exec("dora", "start", f"{FOLDER}/load.yml", "--name", NAME, "--detach", *options)
    wait_until(lambda: rows(robot, "counter") and rows(robot, "viewer"), "messages arrive")


def rows(robot: Robot, sink: str) -> list[dict[str, Any]]:
    text = robot.attempt("cat", f"{FOLDER}/{sink}.jsonl").stdout
    complete, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]


def passed(robot: Robot, sink: str, since: float, until: float) -> Arrivals:
    """Return what a sink has received between two times (seconds since 1970)."""
    found = rows(robot, sink)
    part = [row for row in found if since <= row["at"] < until]
    assert part, f"{sink} has noticed nothing from {since} to {until}"
    latencies = np.concatenate([row["latencies_us"] for row in part])
    return Arrivals(
        messages=len(latencies),
        missing=part[-1]["missing"],
        broken=part[-1]["broken"],
        pids=frozenset(row["pid"] for row in part),
        gap_ms=max(row["gap_ms"] for row in part),
        p99_us=float(np.percentile(latencies, 99)),
    )


def lines(robot: Robot) -> list[int]:
    """Return the numbers of the lines in the talker's log, in order."""
    text = robot.exec("journalctl", "DORA_NODE=talker", "--output=cat", "--no-pager", timeout=120)
    words = (line.split() for line in text.splitlines())
    return [int(each[1]) for each in words if len(each) == 2 and each[0] == "line"]


def explain(title: str, before: Arrivals, during: Arrivals) -> str:
    return textwrap.dedent(f"""
        {title}
          before  {before}
          during  {during}""")
