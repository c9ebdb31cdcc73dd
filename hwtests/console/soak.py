"""Use one console for hours beside a fleet that comes and goes: `python -m hwtests.console.soak`.

It visits all screens by their keys, in an order that chance mixes anew each time, and filters,
marks, asks for actions and cancels there. After every few visits it prints what the console costs,
always on screen Fleet. It fails if, in the second half, memory
rises more than chance explains, if a task is left over, if a screen did not open, or if the console
answers keys more slowly than a new one, which is started at the end and gets keys by turns with it:
the load of a machine changes over hours.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from hwtests.console.terminal import ANSWER, QUESTION, terminal
from hwtests.console.trend import MIN_VALUES, Trend, trend

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STEP_S = 2.0
"""Time between two keys, unless another is given."""
MAX_SLOWER = 1.5
"""How many times as long as a new console's, keys of the old one may take."""
OPEN_S = 60.0
"""Time that a screen has to open, on a busy machine."""
ANSWER_S = 300.0
"""Time that a console has for an answer, also while it starts."""
LOOK_S = 0.05
"""Time between two looks whether it has opened."""
MAX_BACK = 20
"""Times that `esc` is pressed to come back to Fleet."""
VISITS_EACH = 4
"""Visits between two measurements."""
PROBES = "øæß"
"""Typed to measure keys: no screen has these characters."""
PAUSE_S = 0.15, 0.4
"""Time before a measured key: at no fixed time after the last frame."""
PAIRS = 12
"""Times that the old and the new console get the probes at the end."""
ESC, UP, DOWN, PAGE_UP, PAGE_DOWN = b"\x1b", b"\x1b[A", b"\x1b[B", b"\x1b[5~", b"\x1b[6~"


class Visit(NamedTuple):
    """A screen, how it is opened from Fleet, and what is typed there."""

    screen: str
    opens: bytes
    keys: tuple[bytes, ...] = ()


VISITS = (
    Visit("fleet", b"", (DOWN, b" ", b"a", ESC, ESC, b"/zone=hall\r", b"o", b"y", ESC)),
    Visit("robot", b":robot arm001\r", (DOWN, DOWN, b"a", ESC, b"o", b"y")),
    Visit("graph", b":graph arm001/pick\r", (DOWN, b"o", b"o", b"\r")),
    Visit("logs", b":logs pick\r", (PAGE_UP, b"G", b"/line\r", b"n", b"\r", b"s", b"&line\r")),
    Visit("topics", b":topics arm001/pick\r", (DOWN, b"/cam\r")),
    Visit("topic", b":topic arm001/pick camera/image\r", (b"v", b"v", b"p", b"p")),
    Visit("edge", b":edge arm001/pick node00/out node01/in\r"),
    Visit("top", b":top\r", (b"o", DOWN, b"p", b"p", b"/node0\r")),
    Visit("params", b":params arm001/pick planner\r", (DOWN, b"a", ESC)),
    Visit("dataflows", b":dataflows\r"),
    Visit("alerts", b":alerts\r", (DOWN, b"a", ESC)),
    Visit("rollouts", b":rollouts\r"),
    Visit("rollout", b":rollout 12\r", (DOWN, b"a", ESC)),
    Visit("releases", b":releases\r"),
    Visit("plan", b":plan pick@4\r", (PAGE_DOWN,)),
    Visit("audit", b":audit\r", (DOWN, b"/who=ana\r")),
    Visit("trace", b":trace arm001/pick\r", (DOWN, b"\r", DOWN)),
    Visit("help", b"?", (PAGE_DOWN, PAGE_UP)),
)


@dataclass(slots=True)
class Sample:
    """What a console costs, and what has happened since the sample before."""

    hours: float
    """Since the start."""
    memory: float
    """MB that are resident."""
    blocks: int
    """Python's blocks of memory that are in use."""
    tasks: dict[str, int]
    keys_ms: list[float]
    """From each key that was measured to its character on the terminal."""
    missed: list[str] = field(default_factory=list)
    """Screens that did not open."""


class WatchedConsole:
    """A console on a terminal of its own, which answers questions."""

    def __init__(self, server: Path, *, traced: bool = False) -> None:
        self.traced = traced
        """Whether it can tell which code its memory is of."""
        self._terminal, theirs = terminal()
        ours, pipe = socket.socketpair()
        traces = {"PYTHONTRACEMALLOC": "8"} if traced else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hwtests.console.watched", str(server), str(pipe.fileno())],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            pass_fds=(pipe.fileno(),),
            start_new_session=True,
            env=os.environ
            | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
            | traces,
        )
        os.close(theirs)
        pipe.close()
        ours.settimeout(ANSWER_S)
        self._questions = ours.makefile("rw", encoding="utf-8")
        self._awaited, self._seen_at, self._there = b"", 0.0, Event()
        self._last = b""
        self.written = 0
        """Bytes that came to the terminal."""
        self._showing = Thread(target=self._show, daemon=True)
        self._showing.start()

    def _show(self) -> None:
        """Be a terminal until the console closes it."""
        while True:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:
                return
            if not data:
                return
            now, window = time.monotonic(), self._last[1 - len(QUESTION) :] + data
            self.written += len(data)
            self._last = (self._last + data)[-20_000:]
            os.write(self._terminal, ANSWER * window.count(QUESTION))
            if self._awaited and self._awaited in window:
                self._awaited, self._seen_at = b"", now
                self._there.set()

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._terminal, keys)

    def ask(self, question: str) -> Any:
        """Return the answer to a question. Ends the soak if the console has ended, or hangs."""
        try:
            self._questions.write(f"{question}\n")
            self._questions.flush()
            answer = self._questions.readline()
        except OSError as error:
            raise SystemExit(f"the console does not answer: {error!r}") from None
        told = json.loads(answer or "null")
        if told is None or "left" in told:
            code = self._process.wait(OPEN_S)
            text = self._last.decode(errors="replace")
            raise SystemExit(f"the console ended with {code}: {text}")
        return told

    def is_at(self, screen: str, *, typing: bool = False, clean: bool = False) -> bool:
        """Return True if a screen takes keys, with or without an open prompt.

        It is `clean` if nothing there is marked or filtered.
        """
        place = self.ask("place")
        there = place["screen"] == screen and place["typing"] == typing
        return there and not (clean and place["chosen"])

    def reaches(self, screen: str, *, typing: bool = False) -> bool:
        """Wait for a screen; return False if it does not open in time."""
        deadline = time.monotonic() + OPEN_S
        while not self.is_at(screen, typing=typing):
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def go_home(self, every: float) -> None:
        """Press `esc` until screen Fleet is as at first."""
        for _ in range(MAX_BACK):
            if self.is_at("fleet", clean=True):
                return
            self.type(ESC)
            time.sleep(max(every, PAUSE_S[0]))
        raise SystemExit(f"esc does not lead to Fleet, but to {self.ask('place')}")

    def visit(self, visit: Visit, every: float) -> bool:
        """Go to a screen, use it, and come back; return False if it did not open."""
        self.type(visit.opens)
        opened = self.reaches(visit.screen)
        if not opened:
            print(f"{visit.opens!r} has not opened {visit.screen}:\n{self.ask('text')}")
        for key in visit.keys if opened else ():
            self.type(key)
            time.sleep(every)
        self.go_home(every)
        return opened

    def key_times(self) -> list[float]:
        """Return the milliseconds from keys in a prompt to their characters on the terminal."""
        self.type(b":")
        if not self.reaches("fleet", typing=True):
            raise SystemExit("no prompt opens")
        times = []
        for probe in PROBES:
            time.sleep(random.uniform(*PAUSE_S))
            self._there.clear()
            self._awaited, began = probe.encode(), time.monotonic()
            self.type(probe.encode())
            if not self._there.wait(OPEN_S):
                raise SystemExit(f"the key {probe} is not shown:\n{self.ask('text')}")
            times.append(1e3 * (self._seen_at - began))
        self.go_home(0.0)
        return times

    def end(self) -> list[str]:
        """Quit, and return what is wrong with the end."""
        self.type(b"q")
        left = json.loads(self._questions.readline() or '{"left": {"no answer": 1}}')["left"]
        code = self._process.wait(OPEN_S)
        wrong = [f"{number} tasks of {name} are left at the end" for name, number in left.items()]
        return [*wrong, *([f"the console ended with {code}"] if code else [])]

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """Serve a moving fleet; fail if somebody has changed anything there."""
    path = folder / "s"
    words = ["-m", "hwtests.console.serve", str(path), "moving"]
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()
    try:
        yield path
    finally:
        server.terminate()
        text = server.stdout.read()
        server.wait()
    if text.split() != ["0", "changes"]:
        raise SystemExit(f"nothing was confirmed, but the server says {text!r}")


def soak(console: WatchedConsole, minutes: float, every: float) -> list[Sample]:
    """Visit screens for some minutes; return what the console costs on the way."""
    began = at = time.monotonic()
    samples: list[Sample] = []
    used, written, halfway = 0.0, 0, False
    deck: list[Visit] = []
    console.reaches("fleet")
    while at - began < 60 * minutes:
        if len(deck) < VISITS_EACH:
            deck = random.sample(VISITS, len(VISITS)) + deck
        missed = [
            each.screen
            for each in (deck.pop() for _ in range(VISITS_EACH))
            if not console.visit(each, every)
        ]
        keys, costs = console.key_times(), console.ask("costs")
        before, at = at, time.monotonic()
        memory, tasks = costs["memory"] / 1e6, costs["tasks"]
        samples.append(Sample((at - began) / 3600, memory, costs["blocks"], tasks, keys, missed))
        print(
            f"{(at - began) / 60:6.1f} min  {memory:6.1f} MB  {costs['blocks']:8,} blocks"
            f"  {sum(tasks.values()):3} tasks  key {median(keys):4.0f} ms"
            f"  {100 * (costs['cpu'] - used) / (at - before):3.0f} % of a core"
            f"  {(console.written - written) / (at - before):7,.0f} bytes/s"
            f"  load {psutil.getloadavg()[0]:4.1f}"
            + f"  MISSED {', '.join(missed)}"
            * bool(missed),
            flush=True,
        )
        used, written = costs["cpu"], console.written
        if console.traced and not halfway and at - began > 30 * minutes:
            halfway = True
            console.ask("allocations")
    return samples


def second_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return those after the time in which caches fill."""
    return [each for each in samples if each.hours >= samples[-1].hours / 2]


def leftovers(samples: Sequence[Sample]) -> list[str]:
    """Return the tasks of which there are always more at the end than there ever were before."""
    later = second_half(samples)
    before = samples[: len(samples) - len(later)]
    names = Counter(name for each in later for name in each.tasks)
    fewest = {name: min(each.tasks.get(name, 0) for each in later[-3:]) for name in names}
    most = {name: max((each.tasks.get(name, 0) for each in before), default=0) for name in names}
    return [f"{fewest[n]} tasks of {n}, not {most[n]}" for n in names if fewest[n] > most[n]]


def growth(samples: Sequence[Sample]) -> dict[str, Trend]:
    """Return how much each measure of memory has risen an hour. Raises ValueError for few."""
    later = second_half(samples)
    times = [each.hours for each in later]
    return {
        "MB": trend(times, [each.memory for each in later]),
        "blocks": trend(times, [float(each.blocks) for each in later]),
    }


def verdict(samples: Sequence[Sample]) -> list[str]:
    """Print what the samples say, and return what is wrong."""
    wrong = [f"{name} did not open" for each in samples for name in each.missed]
    wrong += leftovers(samples)
    third = max(1, len(samples) // 3)
    for name, part in (("first", samples[:third]), ("last", samples[-third:])):
        keys = sorted(key for each in part for key in each.keys_ms)
        print(f"keys in the {name} third: median {median(keys):.0f} ms of {len(keys)}")
    try:
        trends = growth(samples)
    except ValueError:
        return [*wrong, f"too short to judge memory: {MIN_VALUES} measurements in the second half"]
    for unit, (slope, low, high) in trends.items():
        print(f"{unit} an hour in the second half: {slope:,.2f}, 95 % {low:,.2f} to {high:,.2f}")
        if low > 0.0:
            wrong.append(f"memory grows by {low:,.2f} {unit} an hour or more")
    return wrong


def compared_with_new(old: WatchedConsole, server: Path) -> list[str]:
    """Type the same in the console and in a new one by turns; return what is wrong."""
    new = WatchedConsole(server)
    try:
        new.reaches("fleet")
        new.key_times()
        turns = [(old.key_times(), new.key_times()) for _ in range(PAIRS)]
    finally:
        new.kill()
    old_ms, new_ms = (median(key for turn in turns for key in turn[which]) for which in (0, 1))
    keys = PAIRS * len(PROBES)
    print(f"keys by turns: {old_ms:.0f} ms, in a new console {new_ms:.0f} ms ({keys} each)")
    slower = old_ms > MAX_SLOWER * new_ms
    return [f"keys take {old_ms:.0f} ms, in a new console {new_ms:.0f} ms"] if slower else []


def main() -> None:
    """Run it, and exit with 1 if anything is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=480)
    parser.add_argument("--every", type=float, default=STEP_S, help="seconds between two keys")
    parser.add_argument(
        "--allocations",
        action="store_true",
        help="name the code whose memory grows in the second half; makes all of it slow and large",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        console = WatchedConsole(server, traced=given.allocations)
        try:
            samples = soak(console, given.minutes, given.every)
            if given.allocations:
                print("\n".join(console.ask("allocations")))
            wrong = verdict(samples) + compared_with_new(console, server) + console.end()
        finally:
            console.kill()
    for each in wrong:
        print(f"FAILED: {each}")
    if wrong:
        raise SystemExit(1)
    print(f"no fault in {samples[-1].hours * 60:.0f} minutes")


if __name__ == "__main__":
    main()
