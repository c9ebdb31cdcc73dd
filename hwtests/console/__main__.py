"""Measure the console on a terminal: `python -m hwtests.console [--write] [--seconds N]`.

The terminal is a pty whose other end counts bytes and answers `ESC[6n`, as terminals do. Textual's
own widgets are measured in the same run, because figures depend on the machine and its load.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hwtests.console import slow
from hwtests.console.child import WARM_S
from hwtests.console.terminal import ANSWER, QUESTION, terminal
from tests.harness.commands import command_server
from tests.harness.daemon import daemon
from tests.harness.flows import write_flow

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs/bench/console.md"


@dataclass(frozen=True, slots=True)
class Case:
    """What is shown, with what the server does, and over which line."""

    title: str
    what: str
    serves: str | None
    rate: int | None = None
    """Bytes a second of the line; None for a fast one."""


CASES = (
    Case("console, 500 robots, nothing changes", "fleet", "still"),
    Case("console, 500 robots of 40 nodes, 500 change a second", "fleet", "changes"),
    Case("Textual's DataTable, 20,000 rows, 500 cells change a second", "datatable", None),
    Case("console, 10,000 log lines a second", "logs", "logs"),
    Case("Textual's RichLog, 1,000 log lines a second", "richlog", None),
    Case("console, pictures of 640x480 from a robot that sends 30 a second", "picture", "robot"),
    Case("console, a picture of 640x480 over a line of 20 kB/s", "picture", "picture", 20_000),
)

CAMERA = """
    import numpy as np
    import pyarrow as pa
    from dora import Node

    node, number = Node(), 0
    scene = np.zeros((480, 640, 3), np.uint8)
    scene[:, :, 0], scene[:, :, 1] = np.arange(640) * 0.4, np.arange(480)[:, None] * 0.5
    scene[100:300, 200:400] = np.random.default_rng(1).integers(0, 255, (200, 200, 3))
    metadata = {"width": 640, "height": 480, "encoding": "rgb8"}
    for event in node:
        if event["type"] == "INPUT":
            number += 1
            image = np.roll(scene, 7 * number, axis=1)
            node.send_output("image", pa.array(image.reshape(-1)), metadata)
"""
"""A node of a robot that sends pictures."""
BLOCK, MIN_BLOCKS = "▀".encode(), 200
"""What pictures are made of, and as many as only a picture changes in one frame."""


@dataclass(slots=True)
class Line:
    """What came over the line."""

    bytes: int = 0
    """After the warm-up."""
    first_s: float | None = None
    """Until the first row."""
    frames: int = 0
    pictures: int = 0
    """Frames that show another picture."""
    longest_s: float = 0.0
    """Longest time between two frames that the terminal has shown."""


def watch(terminal: int, child: subprocess.Popen[bytes], case: Case, began: float) -> Line:
    """Read what the program writes until it ends."""
    line, tail, shown_at, blocks = Line(), b"", time.monotonic(), 0
    while child.poll() is None:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if not ready:
            continue
        size = 65536 if case.rate is None else max(1, case.rate // 50)
        try:
            data = os.read(terminal, size)
        except OSError:
            break
        if case.rate is not None:
            time.sleep(len(data) / case.rate)
        now = time.monotonic()
        warm = now - began > WARM_S + 1.0
        if warm:
            line.bytes += len(data)
        seen = tail + data
        if line.first_s is None and re.search(rb"arm001|camera|line \d|node\d", seen):
            line.first_s = now - began
        blocks += data.count(BLOCK)
        for _ in range(seen.count(QUESTION) - tail.count(QUESTION)):
            os.write(terminal, ANSWER)
            if warm:
                line.frames += 1
                line.pictures += blocks >= MIN_BLOCKS
                line.longest_s = max(line.longest_s, now - shown_at)
            shown_at, blocks = now, 0
        tail = seen[-200:]
    return line


@contextmanager
def serving(case: Case, folder: Path) -> Iterator[Path]:
    """Serve what a case needs; yield the socket."""
    socket = folder / "s"
    if case.serves is None:
        yield socket
    elif case.serves == "robot":
        timer = {"tick": "dora/timer/millis/33"}
        camera = {"id": "camera", "path": "camera.py", "inputs": timer, "outputs": ["image"]}
        file = write_flow(folder, [camera], camera=CAMERA)
        with command_server(), daemon() as dorad:
            dorad.dora_ok("start", file, "--name", "pick", "--detach")
            yield dorad.paths.control
            dorad.dora_ok("stop", "pick")
    else:
        words = [sys.executable, "-m", "hwtests.console.serve", str(socket), case.serves]
        server = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield socket
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def run(case: Case, seconds: float) -> dict[str, float | str | None]:
    """Run one case, and return its figures."""
    with tempfile.TemporaryDirectory() as folder, serving(case, Path(folder)) as socket:
        report = Path(folder) / "report"
        ours, theirs = terminal()
        began = time.monotonic()
        words = ["-m", "hwtests.console.child", case.what, str(socket), str(report), str(seconds)]
        child = subprocess.Popen(
            [sys.executable, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )
        os.close(theirs)
        try:
            line = watch(ours, child, case, began)
        finally:
            os.close(ours)
            child.wait()
        found = json.loads(report.read_text())
    return {
        "title": case.title,
        **found,
        "bytes_s": line.bytes / seconds,
        "first_s": line.first_s,
        "frames_s": line.frames / seconds,
        "pictures_s": line.pictures / seconds,
        "longest_s": line.longest_s,
    }


def table(found: list[dict[str, float | str | None]]) -> str:
    """Return the table of the page."""
    lines = [
        "| what | % of a core | bytes/s | lag p99 | max | frames/s | pictures/s | first row | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        first, pictures = each["first_s"], each["pictures_s"]
        lines.append(
            f"| {each['title']} | {each['cpu']:.1f} | {each['bytes_s']:,.0f} "
            f"| {each['lag_p99_ms']:.0f} ms | {each['lag_max_ms']:.0f} ms "
            f"| {each['frames_s'] or 0:.1f} "
            f"| {f'{pictures:.1f}' if pictures else '-'} "
            f"| {'-' if first is None else f'{first:.1f} s'} "
            f"| {each['rss_mb']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write docs/bench/console.md")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="", help="run only the cases whose titles have this")
    given = parser.parse_args()
    found = []
    for case in (each for each in CASES if given.only in each.title):
        found.append(run(case, given.seconds))
        print(table(found[-1:]).splitlines()[-1], flush=True)
    if given.only:
        return
    slow_rows = slow.measure(8.0)
    if given.write:
        text = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
        load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
        text = text.replace("TABLE", table(found)).replace("LOAD", load)
        text = text.replace("SECONDS", f"{given.seconds:.0f}")
        text = text.replace("SLOW", "\n".join((slow.HEAD, *slow_rows)))
        PAGE.write_text(text, encoding="utf-8")
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
