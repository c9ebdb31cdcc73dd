"""Measure the writer beside the `mcap` library, and `dora record` beside dora 1.1.0.

`python -m hwtests.record.bench [--dora FOLDER]`; FOLDER is a virtual environment with dora-rs and
dora-rs-cli 1.1.0. Figures are CPU time: on a busy machine, time of day says little.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path

import psutil
from mcap.writer import CompressionType, Writer

from dorad.heap import collect_rarely
from dorad.record.drec import DrecReader
from dorad.record.mcap.items import make_item
from dorad.record.mcap.writer import RecordingFile
from tests.record.kills import kill_one, server

SIZES = {8: 50_000, 1024: 30_000, 65_536: 2000, 1 << 20: 200}
ROUNDS = 8
KILLS = 100
SECONDS = 10

KEPT = "\n## Power cut\n"
"""From here on the page comes from other targets, and is kept."""

CAMERA = """
    from dora import Node

    node, picture = Node(), bytes(1 << 20)
    for event in node:
        if event["type"] == "STOP":
            break
        node.send_output("image", picture)
"""
IMU = """
    import pyarrow as pa
    from dora import Node

    node, values = Node(), pa.array([0.0] * 6)
    for event in node:
        if event["type"] == "STOP":
            break
        node.send_output("data", values)
"""
FLOW = """
nodes:
  - {id: camera, path: camera.py, inputs: {tick: dora/timer/millis/33}, outputs: [image]}
  - {id: imu, path: imu.py, inputs: {tick: dora/timer/millis/1}, outputs: [data]}
"""


def ours(path: Path, size: int, count: int, compression: str) -> float:
    """Return the CPU seconds to write messages with our writer."""
    payload = os.urandom(size)
    begun = time.process_time()
    file = RecordingFile(path, "bench", compression=compression)
    stamp = time.time_ns()
    content = (5, size, 0, payload, b"")
    items = [make_item((stamp + number, "bench/data", number, content)) for number in range(count)]
    at = 0
    while at < count:
        at = file.add_small(items, at, 1 << 20)
        if at < count and file.pending < 1 << 20:
            item = items[at]
            file.add_raw(item.topic, item.sequence, item.stamp, *content)
            at += 1
        if file.pending >= 1 << 20:
            file.flush()
    file.finish()
    file.close()
    return time.process_time() - begun


def library(path: Path, size: int, count: int, compression: CompressionType) -> float:
    """Return the CPU seconds to write the same messages with the `mcap` library."""
    payload = os.urandom(size)
    begun = time.process_time()
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=1 << 20, compression=compression)
        writer.start("bench", "bench")
        schema = writer.register_schema("bench", "raw", b"")
        channel = writer.register_channel("bench/data", "raw", schema)
        stamp = time.time_ns()
        for number in range(count):
            writer.add_message(channel, stamp + number, payload, stamp + number, number)
        writer.finish()
    return time.process_time() - begun


WRITERS = (
    partial(ours, compression="none"),
    partial(ours, compression="auto"),
    partial(library, compression=CompressionType.NONE),
    partial(library, compression=CompressionType.ZSTD),
)


def writers(folder: Path) -> list[tuple[str, ...]]:
    """Return rows of the microseconds of CPU that one message takes; the best of some rounds."""
    rows = []
    collect_rarely()
    for size, count in SIZES.items():
        best = [float("inf")] * len(WRITERS)
        for _ in range(ROUNDS):
            for at, write in enumerate(WRITERS):
                path = folder / "bench.mcap"
                best[at] = min(best[at], write(path, size, count) / count * 1e6)
                path.unlink()
        rows.append((f"{size} B", *(f"{each:.2f}" for each in best)))
        print(rows[-1], flush=True)
    return rows


def write_flow(folder: Path) -> None:
    """Write the dataflow that is recorded."""
    (folder / "dataflow.yml").write_text(FLOW)
    (folder / "camera.py").write_text(textwrap.dedent(CAMERA))
    (folder / "imu.py").write_text(textwrap.dedent(IMU))


def cpu_of(matches: str, seconds: float) -> float:
    """Return the percent of a core that processes whose command line has `matches` take."""
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if matches in " ".join(process.info["cmdline"] or ())
    ]
    before = sum(sum(process.cpu_times()[:2]) for process in found)
    time.sleep(seconds)
    after = sum(sum(process.cpu_times()[:2]) for process in found if process.is_running())
    return (after - before) / seconds * 100


def recorder(folder: Path) -> tuple[str, ...]:
    """Return the row of `dora record`: CPU, messages, drops."""
    dora = str(Path(sys.executable).with_name("dora"))
    command = [dora, "record", "dataflow.yml", "-o", "ours.mcap"]
    with subprocess.Popen(
        [*command, "--duration", str(SECONDS + 6)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        time.sleep(5)
        cpu = cpu_of("dorad.record.recorder.node", SECONDS)
        text, _ = process.communicate(timeout=60)
    found = next((line for line in text.splitlines() if "COMPLETE" in line), "did not end")
    return ("dora record", f"{cpu:.1f} %", found.partition("dora.record ")[2])


def killed() -> list[tuple[str, ...]]:
    """Return how much recorders lose that are killed at random moments."""
    lost = []
    with tempfile.TemporaryDirectory() as folder, server() as forks:
        for number in range(KILLS):
            path = Path(folder) / f"{number}.mcap"
            lost.append(kill_one(forks, path, random.uniform(0.05, 0.8)).lost_s * 1000)
            path.unlink()
    worst, mean = max(lost), sum(lost) / len(lost)
    return [("dora record", str(KILLS), f"{mean:.0f} ms", f"{worst:.0f} ms")]


def theirs(folder: Path, environment: Path) -> tuple[str, ...]:
    """Return the row of dora 1.1.0's `record --proxy`; its daemon and coordinator work, too."""
    dora = environment / "bin" / "dora"
    env = {**os.environ, "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}

    def run(*words: str, seconds: float = 60) -> None:
        subprocess.run(
            [dora, *words], cwd=folder, env=env, timeout=seconds, check=False, capture_output=True
        )

    run("up")
    run("start", "dataflow.yml", "--detach", "--debug", "--name", "bench")
    with subprocess.Popen(
        [dora, "record", "dataflow.yml", "--proxy", "--name", "bench", "-o", "theirs.drec"],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(8)
        alone = cpu_of("--proxy", SECONDS / 2)
        everything = cpu_of(str(dora), SECONDS / 2)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    run("stop", "--name", "bench")
    run("destroy")
    return (
        "dora 1.1.0 `record --proxy`",
        f"{alone:.1f} %, with its daemon and coordinator {everything:.1f} %",
        drec_note(folder / "theirs.drec"),
    )


def drec_note(path: Path) -> str:
    """Return how many messages of each topic dora has recorded."""
    if not path.exists():
        return "no file"
    with DrecReader(path) as reader:
        counts = {topic: reader.topics().get(topic, 0) for topic in ("camera/image", "imu/data")}
    return ", ".join(f"{count} of {topic}" for topic, count in counts.items())


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, and write docs/bench/record.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dora", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/bench/record.md"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        rows = writers(folder)
        write_flow(folder)
        whole = [recorder(folder)]
        if given.dora is not None:
            whole.append(theirs(folder, given.dora))
        else:
            whole.append(("dora 1.1.0", "not measured: --dora is not given", ""))
    kills = killed()
    load = os.getloadavg()[0]
    before = given.output.read_text() if given.output.exists() else ""
    _, title, kept = before.partition(KEPT)
    given.output.write_text(
        f"""# Recording, measured

`make bench-record`, on {os.cpu_count()} cores of {platform.machine()}, Python
{platform.python_version()}; load of the machine at the end: {load:.1f}. On a machine that does
other work, too, compare only within a table.

## The writer

Microseconds of CPU for one message of UInt8, without taking it from a node: the best of {ROUNDS}
rounds.

{table(("message", "ours", "ours, auto", "`mcap` library", "library, zstd"), rows)}

## The recorder

30 pictures of 1 MiB and 1,000 messages of 48 bytes a second, for {SECONDS} s, percent of one core:

{table(("recorder", "CPU", "result"), whole)}

dora's proxy gets every message of the same dataflow through the coordinator, for 18 s here; without
the pictures, it records the small ones.

`dora record` also records the ticks of both timers.

## Killed

Recorders that got SIGKILL at random moments; milliseconds between the first message that is not in
the recovered file and the kill. The `mcap` library writes no chunk before it has 1 MiB, and no
index before the end.

{table(("recorder", "kills", "lost on average", "at most"), kills)}

rosbag2's storage is not on PyPI, and so not in the table.
{title}{kept}"""
    )
    print(given.output.read_text())


if __name__ == "__main__":
    main()
