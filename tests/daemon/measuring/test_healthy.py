"""An hour of a healthy dataflow raises no alert; each fault in the same hour raises its own.

A model counts what the nodes of a camera's dataflow over two machines would: with jitter, hiccups
of nodes and of the whole machine, starts that take memory, bursts of lines, and a download.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.control.messages import Finding, NodeInfo, NodeMetrics
from dorad.daemon.broker.readings import EdgeCounters
from dorad.daemon.measuring.summary import CrashHistory, findings
from dorad.daemon.measuring.troubles import TroubleWatch
from dorad.dataflow.model import LINK
from dorad.diskspace import EVERY_S, FillingDisk, Room, room_after
from dorad.logs.dataflowlog import LineCounts

HOUR = 3600
FAULT_AT = 1800.0
HICCUP_S = 5.0
"""Longest time for which something healthy stands still."""
REST_S = 30.0
"""Time between two of these times, at least."""
NODES = {"camera": 1, "detector": 2, "sink": 3, LINK: "link", "mic": "link"}
RATES = {"camera": 30.0, "detector": 12.0, "mic": 50.0}
DECLARED = {"camera/image": 25.0}
"""Rates that the file declares."""


class Edge:
    """The queue of one input."""

    def __init__(self, source: str, node: str, size: int, *, takes: float = 1000.0) -> None:
        """The receiver takes at most so many messages a second."""
        self.source, self.node, self.size, self.takes = source, node, size, takes
        self.sent = self.dropped = self.queued = self.lost = 0

    def pass_on(self, new: int, seconds: float, *, receives: bool) -> None:
        """Send messages, of which the receiver takes what it can."""
        self.sent += new
        taken = min(self.queued + new, int(self.takes * seconds) + 1) if receives else 0
        left = self.queued + new - taken
        self.dropped += max(0, left - self.size)
        self.queued = min(left, self.size)

    def counters(self) -> EdgeCounters:
        """Return what the daemon reads."""
        node, output = self.source.split("/")
        elsewhere = node == "mic"
        return EdgeCounters(
            LINK if elsewhere else node,
            self.source if elsewhere else output,
            self.node,
            f"arm2/{self.source}" if self.node == LINK else output,
            self.size,
            self.sent,
            self.sent - self.dropped - self.queued,
            self.dropped,
            self.queued,
            1000 * self.sent,
            0,
            lost=self.lost,
        )


class Demo:
    """A camera, a detector and a sink, with a microphone and another sink elsewhere."""

    def __init__(self, seed: int, fault: str = "", *, stalls: float = 1.0) -> None:
        """`stalls` is how often things stand still, as a multiple of what is bearable."""
        self.stalls = stalls
        self.rests = 0.0
        """Until when nothing stands still."""
        self.random = random.Random(seed)
        self.fault = fault
        self.at = 0.0
        self.watch = TroubleWatch({})
        self.edges = {
            "camera -> detector": Edge("camera/image", "detector", 1, takes=12.0),
            "camera -> sink": Edge("camera/image", "sink", 10),
            "detector -> sink": Edge("detector/faces", "sink", 10),
            "camera -> link": Edge("camera/image", LINK, 10),
            "mic -> sink": Edge("mic/sound", "sink", 10),
        }
        self.owed = dict.fromkeys(RATES, 0.0)
        self.still = dict.fromkeys(NODES, 0.0)
        """Until when each node stands still."""
        self.quiet = dict.fromkeys(NODES, 0.0)
        """Until when each node reports no failure."""
        self.lines = {node: [0, 0] for node in ("camera", "detector", "sink")}
        self.free, self.room, self.measured = 20e9, Room(), -EVERY_S
        self.writes = 0.0
        self.download = (self.random.uniform(0, HOUR), 0.0)

    def rate(self, node: str) -> float:
        """Return how many messages a second a node sends now."""
        fault = self.fault if self.at >= FAULT_AT else ""
        if (fault, node) == ("slow", "camera"):
            return 10.0
        if (fault, node) == ("declared", "camera"):
            return 20.0
        return RATES[node] * self.random.uniform(0.93, 1.07)

    def step(self) -> list[Finding]:
        """Let about a second pass, and return what is found."""
        now = self.random
        seconds = now.uniform(0.95, 1.25)
        if self._stalls(300):
            seconds += now.uniform(0.5, HICCUP_S)
        self.at += seconds
        for node in NODES:
            if self._stalls(400):
                self.still[node] = self.at + now.uniform(0.5, HICCUP_S)
        new = {}
        for node in RATES:
            runs = self.at > self.still[node] and (node != "mic" or self.at > self.still[LINK])
            self.owed[node] += self.rate(node) * seconds if runs else 0.0
            new[node] = int(self.owed[node])
            self.owed[node] -= new[node]
        for edge in self.edges.values():
            receives = self.at > self.still[edge.node]
            edge.pass_on(new[edge.source.split("/")[0]], seconds, receives=receives)
        if now.random() < 1 / 900:  # the link is interrupted, and up again
            self.edges["mic -> sink"].lost += now.randrange(300)
        self._log(seconds)
        self._disturb(seconds)
        self.watch.add(
            self.at,
            [edge.counters() for edge in self.edges.values()],
            NODES,
            DECLARED,
            {node: LineCounts(*counts) for node, counts in self.lines.items()},
        )
        self.watch.add_memory(self.at, self._memory())
        return self._findings(seconds)

    def _stalls(self, often: float) -> bool:
        """Return True once in so many seconds; not soon after the last time."""
        if self.at < self.rests or self.random.random() > self.stalls / often:
            return False
        self.rests = self.at + REST_S
        return True

    def _log(self, seconds: float) -> None:
        for node, counts in self.lines.items():
            counts[0] += int(20 * seconds)
            # A retry that is reported line by line, once a minute at most.
            if self.at > self.quiet[node] and self.random.random() < 1 / 200:
                self.quiet[node] = self.at + 60.0
                counts[0] += 200
                counts[1] += 40

    def _disturb(self, seconds: float) -> None:
        if self.at < FAULT_AT:
            return
        match self.fault:
            case "drops":
                self.edges["camera -> sink"].takes = 20.0
            case "flood":
                self.lines["sink"][1] += int(20 * seconds)
                self.lines["sink"][0] += int(20 * seconds)
            case "line":
                self.edges["camera -> link"].takes = 15.0
            case "link":
                self.edges["mic -> sink"].lost += 20 * (self.random.random() < 0.3)

    def _memory(self) -> dict[str, tuple[int, int]]:
        warm = min(self.at / 60, 1.0)
        slowly = 1 + 0.1 * self.at / HOUR
        memory = {
            node: int((40e6 + 400e6 * warm * slowly) * self.random.uniform(0.98, 1.02))
            for node in ("camera", "detector", "sink")
        }
        if self.fault == "leak" and self.at >= FAULT_AT:
            memory["sink"] += int(3e6 * (self.at - FAULT_AT))
        return {node: (7, size) for node, size in memory.items()}

    def _findings(self, seconds: float) -> list[Finding]:
        self.writes = 50e3
        if self.download[0] < self.at < self.download[0] + 180.0:
            self.writes += 50e6
        if self.fault == "disk" and self.at >= FAULT_AT:
            self.writes += 15e6
        self.free -= self.writes * seconds
        if self.at >= self.measured + EVERY_S:
            self.measured = self.at
            self.room = room_after(self.room, self.at, int(self.free))
        filling = []
        if self.room.fills:
            filling = [FillingDisk("/var/lib/dorad", self.room.rate, self.room.seconds)]
        metrics = NodeMetrics(disk_write=self.writes)
        nodes = [NodeInfo("u", "demo", "sink", "running", 7, 0, metrics)]
        troubles = {"u": self.watch.now()}
        return findings(
            self.at, nodes, [], [], CrashHistory(), "", troubles=troubles, filling=filling
        )


def hour(demo: Demo) -> Iterator[list[Finding]]:
    """Yield what is found in each second."""
    while demo.at < HOUR:
        yield demo.step()


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_hour_of_a_healthy_dataflow_raises_no_alert(seed: int) -> None:
    demo = Demo(seed)
    assert [(demo.at, each.text) for all_ in hour(demo) for each in all_] == []


@pytest.mark.parametrize(
    ("fault", "cause", "subject", "seconds"),
    [
        ("slow", "output-slow", "demo/camera", 60),
        ("declared", "output-slow", "demo/camera", 120),
        ("drops", "input-drops", "demo/sink", 60),
        ("flood", "log-flood", "demo/sink", 60),
        ("leak", "memory-grows", "demo/sink", 400),
        ("line", "link-loses", "demo/camera/image", 60),
        ("link", "link-loses", "demo/mic/sound", 90),
        ("disk", "disk-fills", "/var/lib/dorad", 600),
    ],
)
def test_a_fault_in_that_hour_is_one_alert_with_its_cause(
    fault: str, cause: str, subject: str, seconds: int
) -> None:
    demo, first = Demo(7, fault, stalls=0.1), None
    for all_ in hour(demo):
        assert {(each.cause, each.subject) for each in all_} <= {(cause, subject)}
        if all_ and first is None:
            first = demo.at
    assert first is not None
    assert FAULT_AT < first < FAULT_AT + seconds
