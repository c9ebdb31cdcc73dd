"""Use one console for hours beside a busy fleet: `python -m hwtests.console.soak --minutes 480`.

It goes round all screens by its keys, and filters, marks, asks for actions and cancels on the way.
A shorter time between keys (`--every`) fits the use of a day into hours. Each minute one line says
what it costs, then how much it has grown since the first twenty minutes.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hwtests.console.terminal import ANSWER, QUESTION, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_S = 2.0
"""Time between two keys, unless another is given."""
WARM_MINUTES = 20
"""Minutes after which caches are full: one of Textual's keeps a thousand closed widgets."""
MAX_GROWTH_MB = 10.0
ROUND = (
    *(b"\x1b[B", b" ", b"a", b"\x1b", b"\x1b", b"\r", b"c", b"n", b"g", b"o", b"\x1b", b"\x1b"),
    *(b":logs pick\r", b"\x1b[5~", b"G", b"/line\r", b"\x1b", b"\x1b", b"e", b"\r", b"v", b"v"),
    *(b"\x1b", b"\x1b", b":alerts\r", b"a", b"\x1b", b"\x1b", b"/zone=hall\r", b"o", b"y", b"\x1b"),
    *(b"?", b"\x1b[6~", b"\x1b", b":top\r", b"d", b"p", b"p", b"\x1b", b"\x1b[F", b"\x1b[H"),
)
"""What is typed, again and again."""


def keys() -> Iterator[bytes]:
    """Return the keys of all rounds; each ends on screen Fleet."""
    return cycle((*ROUND, *([b"\x1b"] * 4)))


def soak(minutes: int, every: float, folder: Path) -> float:
    """Press a key each `every` seconds, print figures, and return by how many MB it has grown."""
    socket = folder / "s"
    server = subprocess.Popen(
        [sys.executable, "-m", "hwtests.console.serve", str(socket), "everything"],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    server.stdout.readline()
    ours, theirs = terminal()
    child = subprocess.Popen(
        [sys.executable, "-m", "dorafleet.cli", "console"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ
        | {"DORA_SOCKET": str(socket), "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )
    os.close(theirs)
    process, typed = psutil.Process(child.pid), keys()
    found: list[float] = []
    began = minute = typed_at = time.monotonic()
    used, written = 0.0, 0
    try:
        while len(found) < minutes and child.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                data = os.read(ours, 65536)
                written += len(data)
                os.write(ours, ANSWER * data.count(QUESTION))
            now = time.monotonic()
            if now - typed_at > every:
                typed_at = now
                os.write(ours, next(typed))
            if now - minute > 60.0:
                times = process.cpu_times()
                spent, used = times.user + times.system - used, times.user + times.system
                found.append(process.memory_info().rss / 1e6)
                print(
                    f"{(now - began) / 60:5.0f} min  {found[-1]:6.1f} MB"
                    f"  {100 * spent / (now - minute):5.1f} % of a core"
                    f"  {written / (now - minute):8.0f} bytes/s"
                    f"  {process.num_fds()} files  {process.num_threads()} threads",
                    flush=True,
                )
                minute, written = now, 0
    finally:
        os.close(ours)
        server.send_signal(signal.SIGTERM)
        server.wait()
        child.wait()
    if len(found) < minutes:
        raise SystemExit(f"the console ended with {child.returncode} after {len(found)} minutes")
    return found[-1] - max(found[:WARM_MINUTES])


def main() -> None:
    """Run it, and exit with 1 if it grows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=480)
    parser.add_argument("--every", type=float, default=STEP_S, help="seconds between two keys")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grown = soak(given.minutes, given.every, Path(folder))
    print(f"grown by {grown:.1f} MB since the first {WARM_MINUTES} minutes")
    if grown > MAX_GROWTH_MB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
