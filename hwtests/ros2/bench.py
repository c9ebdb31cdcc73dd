"""Measure the way from a node of ROS 2 to a node of a dataflow, beside rclpy alone.

`python -m hwtests.ros2.bench [--write]` takes about five minutes. A publisher with rclpy sends
images of 1 MB at 30 Hz, and small messages at 1 kHz. `--write` writes docs/bench/ros2.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import yaml

from tests.harness.dataflow import clean_environment
from tests.harness.process import marked
from tests.ros2_peers.environment import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 3
TIMEOUT_S = 120.0
DOMAIN = 1 + os.getpid() % 100
PROGRAMS = Path(__file__).parent / "programs"
PROFILE = Path(__file__).parents[2] / "dorad/ros2/fastdds.xml"
PAGE = Path(__file__).parents[2] / "docs/bench/ros2.md"
BIN = Path(sys.executable).parent
TYPES = {"image": "sensor_msgs/Image", "twist": "geometry_msgs/TwistStamped"}


class Load(NamedTuple):
    """Messages of one type."""

    title: str
    kind: str
    hz: int
    warm: int
    messages: int


LOADS = (
    Load("Images of 1 MB at 30 Hz", "image", 30, 30, 330),
    Load("TwistStamped at 1 kHz", "twist", 1000, 1000, 9000),
)
SYSTEMS = {
    "bridge": "the `ros2` block, and a node in Python that gets Arrow",
    "alone": "a subscriber with rclpy, which gets message objects: no dataflow",
    "objects": "a node with rclpy whose callback sends message objects on as Arrow, and that node",
}


class Measured(NamedTuple):
    """One run."""

    latencies: list[int]
    """In ns, from before `publish` until the receiver has the message."""
    cpu_us: float
    """Of the receiver, and the bridge before it, for one message."""
    lost: int

    def percentile(self, share: float) -> float:
        """Return a latency in ms."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6


def nodes_of(system: str, load: Load, ros: Path) -> list[dict[str, Any]]:
    """Return the nodes of a dataflow."""
    sink: dict[str, Any] = {
        "id": "sink",
        "path": str(PROGRAMS / "ros_sink.py"),
        "args": f"{load.warm} {load.messages}",
        # As long as the queue in ROS 2, so that the figures do not depend on it.
        "inputs": {"in": {"source": "source/out", "queue_size": 100}},
    }
    if system == "bridge":
        topic = {"topic": "/measured", "message_type": TYPES[load.kind]}
        block = {"setup": str(ros), "domain_id": DOMAIN, **topic}
        return [{"id": "source", "ros2": block, "outputs": ["out"]}, sink]
    source: dict[str, Any] = {
        "id": "source",
        "path": str(ros / "bin/python"),
        "args": f"{PROGRAMS / 'ros_objects.py'} {load.kind}",
        "outputs": ["out"],
        "env": {
            "PYTHONPATH": str(Path(pa.__file__).parents[1]),
            "ROS_DOMAIN_ID": str(DOMAIN),
            "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
        },
    }
    return [source, sink]


def cpu_ns(processes: Sequence[int]) -> int:
    """Return the CPU time of processes that run, of all their threads."""
    return sum(
        int(file.read_text().split()[0])
        for each in processes
        for file in Path(f"/proc/{each}/task").glob("*/schedstat")
    )


def run(system: str, load: Load, ros: Path, folder: Path) -> Measured:
    """Measure one system once. Raises RuntimeError if it fails."""
    env = clean_environment(BIN)
    ros_env = clean_environment(
        ros / "bin",
        {"ROS_DOMAIN_ID": str(DOMAIN), "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE)},
    )
    python = [str(ros / "bin/python"), str(PROGRAMS / "ros_alone.py")]
    count, warm = str(load.messages), str(load.warm)
    if system == "alone":
        command = [*python, "receive", load.kind, warm, count]
        receiver = subprocess.Popen(command, cwd=folder, env=ros_env)
    else:
        flow = {"nodes": nodes_of(system, load, ros)}
        (folder / "flow.yml").write_text(yaml.safe_dump(flow))
        receiver = subprocess.Popen([BIN / "dora", "run", "flow.yml"], cwd=folder, env=env)
    publish = [*python, "publish", load.kind, count, str(load.hz)]
    publisher = subprocess.Popen(publish, cwd=folder, env=ros_env)
    try:
        wait_for(folder / "begun", receiver)
        # The receiver measures itself.
        feeding = [each for each in marked("ROS_DOMAIN_ID", str(DOMAIN)) if each != publisher.pid]
        feeding = [each for each in feeding if each != receiver.pid]
        before = cpu_ns(feeding)
        wait_for(folder / "ended.json", receiver)
        used = cpu_ns(feeding) - before
    finally:
        publisher.kill()
        publisher.wait()
        if system != "alone":
            receiver.send_signal(signal.SIGINT)
        if receiver.wait(TIMEOUT_S):
            raise RuntimeError(f"{system} has ended with {receiver.returncode}")
    measured = json.loads((folder / "ended.json").read_text())
    latencies = measured["latencies"]
    each_us = (measured["cpu_ns"] + used) / len(latencies) / 1000
    return Measured(latencies, each_us, measured["lost"])


def wait_for(file: Path, receiver: subprocess.Popen[bytes]) -> None:
    """Wait until the receiver has written a file. Raises RuntimeError if it does not."""
    deadline = time.monotonic() + TIMEOUT_S
    while not file.exists():
        if receiver.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the receiver has not written {file.name}")
        time.sleep(0.001)


def rows_of(load: Load, ros: Path) -> list[str]:
    """Measure all systems in turn, several times, and return a table."""
    runs: dict[str, list[Measured]] = {system: [] for system in SYSTEMS}
    for number in range(ROUNDS):
        for system, made in runs.items():
            try:
                with tempfile.TemporaryDirectory() as folder:
                    made.append(run(system, load, ros, Path(folder)))
            except RuntimeError as error:  # almost everything was lost
                print(f"{load.title}, {system}, round {number + 1} failed: {error}", flush=True)
                continue
            last = made[-1]
            print(
                f"{load.title}, {system}, round {number + 1}: p50 {last.percentile(0.5):.2f} ms,"
                f" p99 {last.percentile(0.99):.2f} ms, {last.cpu_us:.0f} µs, {last.lost} lost",
                flush=True,
            )
    lines = [
        "| | p50 (ms) | p99 (ms) | CPU of a message (µs) | lost |",
        "|---|---:|---:|---:|---:|",
    ]
    for system, title in SYSTEMS.items():
        made = runs[system]
        if len(made) < ROUNDS:
            title += f" ({ROUNDS - len(made)} runs failed)"
        if not made:
            lines.append(f"| {title} | | | | |")
            continue
        p50 = median(each.percentile(0.5) for each in made)
        p99 = median(each.percentile(0.99) for each in made)
        cpu = min(each.cpu_us for each in made)
        lost = sum(each.lost for each in made)
        lines.append(f"| {title} | {p50:.2f} | {p99:.2f} | {cpu:.0f} | {lost} |")
    return lines


def page() -> str:
    """Measure everything, and return the page."""
    ros = prepare()
    tables = {load.title: rows_of(load, ros) for load in LOADS}
    load = os.getloadavg()[0]
    lines = [
        "# ROS 2, measured",
        "",
        f"`make bench-ros2`, on {os.cpu_count()} cores of {platform.machine()}, with ROS 2 Kilted",
        f"and Fast DDS; load of the machine at the end: {load:.1f}. Latencies are from before",
        f"`publish` in another process until the receiver has the message: the median of {ROUNDS}",
        "runs. On a busy machine they say little. CPU is that of the receiver, and of what is",
        "between it and ROS 2, for one message: the least of the runs. All have the bridge's",
        "profile of Fast DDS, a segment of 32 MB, and queues of 100 messages; `lost` is the sum",
        "of the runs.",
    ]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", *rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the measurements, and print or write the page."""
    parser = argparse.ArgumentParser(description="Measure the bridge to ROS 2 beside rclpy.")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    text = page()
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
