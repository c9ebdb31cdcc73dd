"""Use the console over a slow line: `python -m hwtests.console.slow [--seconds N]`.

The line takes 20 kB/s and 200 ms in each direction, the terminal has 160x45 characters, and arrow
keys come in three pieces. Each screen is opened by its keys and looked at for some seconds.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from hwtests.console.terminal import ANSWER, QUESTION, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE = 20_000
"""Bytes a second from the program to the terminal."""
LATENCY_S = 0.2
"""Of each direction."""
WINDOW = 65_536
"""Bytes that the line takes before the program has to wait, as SSH does."""
PIECE = 200
TORN_S = 0.15
"""Time between the pieces of a key."""
OPEN_S = 30.0
"""Time that a screen has to open."""
FLEET = b"00 of 5"
SCREENS = (
    ("Fleet", b"", FLEET),
    ("Robot", b"\r", b"9 of 39 e"),
    ("Graph", b":graph pick\r", b"neighbours of"),
    ("Top", b":top\r", b"node0"),
    ("Logs", b":logs pick\r", b"of many that come"),
    ("Topics", b":topics pick\r", b"camera/image"),
    ("Topic, echo", b":topic pick camera/image echo\r", b"640x480"),
    ("Topic, picture", b":topic pick camera/image picture\r", b"640x480"),
    ("Alerts", b":alerts\r", b"Alerts"),
    ("Help", b"?", b"shift+tab"),
)
"""Title, keys that open it from Fleet, and a text by which it is there.

Of a text only what differs from the screen before is sent: so each is the inner part of one.
"""


@dataclass(slots=True)
class Seen:
    """What has come over the line since something was asked for."""

    text: bytes = b""
    ages: list[float] = field(default_factory=list)
    """Seconds between the end of each frame in the program and on the terminal."""


class SlowLine:
    """A terminal at the other end of a slow line."""

    def __init__(self, ours: int) -> None:
        self._ours = ours
        self._under_way: deque[tuple[float, float, bytes]] = deque()
        """When each piece arrives, when the program wrote it, and its bytes."""
        self._typed: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0
        self._tail = b""
        self.seen = Seen()

    def type(self, *pieces: bytes, apart: float = 0.0) -> None:
        """Send keys; pieces of them come `apart` seconds one after another."""
        now = time.monotonic()
        for at, piece in enumerate(pieces):
            self._typed.append((now + LATENCY_S + at * apart, piece))

    def run(self, seconds: float, until: bytes | None = None) -> bool:
        """Let time pass; return True as soon as a frame with the text `until` is shown."""
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            while self._typed and self._typed[0][0] <= now:
                os.write(self._ours, self._typed.popleft()[1])
            while self._under_way and self._under_way[0][0] <= now:
                self._show(*self._under_way.popleft())
            if until is not None and until in self.seen.text.rpartition(QUESTION)[0]:
                return True
            full = sum(len(piece) for _, _, piece in self._under_way) > WINDOW
            if select.select([] if full else [self._ours], [], [], 0.01)[0]:
                self._send(os.read(self._ours, 4096))
        return False

    def _send(self, data: bytes) -> None:
        now = time.monotonic()
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            self._free_at = max(self._free_at, now) + len(piece) / RATE
            self._under_way.append((self._free_at + LATENCY_S, now, piece))

    def _show(self, arrives: float, written: float, piece: bytes) -> None:
        self.seen.text += piece
        ends = (self._tail + piece).count(QUESTION)
        self._tail = piece[1 - len(QUESTION) :]
        for _ in range(ends):
            self.seen.ages.append(arrives - written)
            self._typed.append((arrives + LATENCY_S, ANSWER))


@contextmanager
def console() -> Iterator[SlowLine]:
    """Run a console beside a busy fleet; fail if it has changed anything there."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "s"
        words = ["-m", "hwtests.console.serve", str(socket), "everything"]
        server = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        server.stdout.readline()
        ours, theirs = terminal(160, 45)
        child = subprocess.Popen(
            [sys.executable, "-m", "dorafleet.cli", "console"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ
            | {"DORA_SOCKET": str(socket), "TERM": "xterm-256color", "SSH_CONNECTION": "a 1 b 22"},
        )
        os.close(theirs)
        try:
            yield SlowLine(ours)
        finally:
            os.close(ours)
            child.wait()
            server.terminate()
            said = server.stdout.read()
            server.wait()
        if "0 changes" not in said:
            raise SystemExit(f"the server says {said!r}")


def measure(seconds: float) -> list[str]:
    """Return a row of the table for each screen."""
    rows = []
    with console() as line:
        for title, keys, there in SCREENS:
            line.seen, began = Seen(), time.monotonic()
            line.type(keys)
            if not line.run(OPEN_S, there):
                raise SystemExit(f"screen {title} did not open: {line.seen.text[-500:]!r}")
            took, size = time.monotonic() - began, len(line.seen.text)
            line.run(2.0)
            line.seen = Seen()
            for arrow in (b"B", b"A") * int(seconds / 4):
                line.type(b"\x1b", b"[", arrow, apart=TORN_S)
                line.run(2.0)
            if keys and FLEET in line.seen.text:
                raise SystemExit(f"a key in pieces has closed screen {title}")
            ages = line.seen.ages or [0.0]
            rows.append(
                f"| {title} | {took:.1f} s | {size:,} | {len(line.seen.text) / seconds:,.0f} "
                f"| {len(line.seen.ages) / seconds:.1f} "
                f"| {median(ages):.2f} s | {max(ages):.2f} s |"
            )
            print(rows[-1], flush=True)
            if keys:
                line.seen = Seen()
                line.type(b"\x1b")
                if not line.run(OPEN_S, FLEET):
                    raise SystemExit(f"esc did not close screen {title}")
    return rows


HEAD = """\
| screen | opens in | bytes | bytes/s | frames/s | age of a frame | longest |
|---|---|---|---|---|---|---|"""


def main() -> None:
    """Measure all screens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    print(HEAD)
    measure(given.seconds)


if __name__ == "__main__":
    main()
