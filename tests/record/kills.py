"""Kill recorders at random moments, and see what their files hold then.

As a program, it reads paths from standard input, and for each one forks a process that records
until it is killed: forking is faster than starting an interpreter.
"""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from dorad.record.mcap.items import Item
from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.recovery import recover
from dorad.record.recorder.recorder import Recorder
from dorad.record.recorder.settings import Settings
from tests.harness.waiting import wait_until
from tests.record.files import raw

TOPIC = "source/number"
_TIME = struct.Struct("<Q")


class Killed(NamedTuple):
    """One recorder that was killed."""

    sent: int
    """Messages that it had been given."""
    found: list[int]
    """The numbers of the messages in its recovered file."""
    lost_s: float
    """Seconds between the first lost message and the kill; 0 if none is lost."""


def record_for_ever(path: Path) -> None:
    """Record numbered messages of two sizes, and note in a second file when each was given."""
    recorder = Recorder(Settings(path, min_free=0), {})
    given = os.open(f"{path}.given", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    large = (*raw(pa.array([0] * 20_000)), b"")
    small = (*raw(pa.array([0])), b"")
    number = 0
    while True:
        # The messages of one take, noted before they are given: what is noted may be lost.
        # No choice of a test: its own process knows no seed, and numbers as they come will do.
        count = 1 + number * 7 % 20
        os.write(given, _TIME.pack(time.monotonic_ns()) * count)
        recorder.put(
            [
                Item(time.time_ns(), TOPIC, each, large if each % 10 == 0 else small)
                for each in range(number, number + count)
            ]
        )
        number += count
        time.sleep(0.01)


def serve() -> None:
    """Fork a recorder for each path, and print its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            record_for_ever(Path(line.strip()))
        print(pid, flush=True)


@contextmanager
def server() -> Iterator[subprocess.Popen[str]]:
    """Run this program."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.record.kills"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def kill_one(forks: subprocess.Popen[str], path: Path, after_s: float) -> Killed:
    """Let a recorder write `path` for some time, kill it, recover the file and read it."""
    assert forks.stdin is not None
    assert forks.stdout is not None
    forks.stdin.write(f"{path}\n")
    forks.stdin.flush()
    pid = int(forks.stdout.readline())
    given = Path(f"{path}.given")
    wait_until(lambda: given.exists() and given.stat().st_size > 0)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic_ns()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    times = [each for (each,) in _TIME.iter_unpack(given.read_bytes())]
    recover(path)
    with RecordingReader(path) as reader:
        assert reader.status == "RECOVERED"
        assert not reader.problems
        found = [message.sequence for message in reader.messages()]
    lost = times[len(found) :]
    return Killed(len(times), found, (killed - lost[0]) / 1e9 if lost else 0.0)


if __name__ == "__main__":
    serve()
