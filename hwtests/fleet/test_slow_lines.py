"""A robot behind a slow and lossy line: 200 ms there and back, 5 % loss, 1 Mbit/s."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hwtests.fleet.enrolled import REPORT, EnrolledFleet, Report
from hwtests.fleet.flows import Flow
from hwtests.robots.effort import only_long
from hwtests.robots.shell import wait_until

DELAY_S, LOSS, BYTES_PER_S = 0.1, 0.05, 125_000
FOLLOW_S = 15
PRESSED_S = 15.0
START_S, STOP_S = 30.0, 20.0
MAX_PAUSE_S = 10.0
"""Without a message: TCP waits longer after each loss of the same packet, and a link that hears
nothing for three seconds connects again."""
MAX_CONNECTS = 3
"""Of an agent or a link, in about two minutes."""

pytestmark = [only_long, pytest.mark.timeout(600)]


@contextmanager
def slow_line(robots: EnrolledFleet) -> Iterator[None]:
    """Let the second robot be behind a slow line for the block."""
    robots.bed.network.slow(2, delay=DELAY_S, loss=LOSS, rate=BYTES_PER_S)
    try:
        yield
    finally:
        robots.bed.network.repair(2)
        robots.wait_connected()


def journal(robots: EnrolledFleet, machine: str, unit: str, words: str) -> int:
    """Return how many lines of a unit have these words."""
    printed = ("--unit", unit, "--no-pager", "--output=cat")
    lines = robots.robots[machine].exec("journalctl", *printed).splitlines()
    return sum(words in line for line in lines)


def links_up(robots: EnrolledFleet, flow: Flow) -> int:
    """Return how often the link from arm1 to arm2 came up."""
    words = ("dora", "logs", flow.name, "--node", "dora.link", "--tail", "500", "--level", "info")
    said = robots.arm1.attempt(*words).stdout
    return sum("link to arm2: up" in line for line in said.splitlines())


def row(robots: EnrolledFleet) -> dict[str, Any]:
    """Return what the console shows of the second robot among all."""
    rows = json.loads(robots.dorafleet("robots", "--json", "--coordinator-addr", "127.0.0.1"))
    (found,) = (each for each in rows if each["robot"] == "arm2")
    return dict(found)


def rate(before: Report, after: Report) -> float:
    """Return the messages a second that have come between two reports."""
    return (after.received - before.received) / (after.at - before.at)


def test_a_dataflow_over_a_slow_line_starts_flows_is_followed_and_stops(
    robots: EnrolledFleet,
) -> None:
    flow = Flow("slow", hz=20, queue=50, policy="backpressure")
    connects = journal(robots, "arm2", "dorad-agent", "attaches, epoch")
    with slow_line(robots):
        began = time.monotonic()
        with robots.running(flow):
            started = time.monotonic() - began
            words = ("dora", "logs", flow.name, "--node", "check1", "--follow")
            there = ("--coordinator-addr", "127.0.0.1")
            followed = robots.server.attempt("timeout", str(FOLLOW_S), *words, *there).stdout
            counts = [int(found[1]) for found in REPORT.finditer(followed)]
            # The node prints every 0.4 s; a line may wait for one that was lost.
            assert len(counts) > FOLLOW_S / 0.4 / 2
            assert counts == sorted(set(counts)), "each line comes once, in order"
            wait_until(lambda: row(robots)["state"] == "ok", "the console shows it as well")
            assert row(robots)["known"]
            assert row(robots)["dataflow"] == flow.name
            assert robots.machines()["arm2"]["state"] == "connected"
            info = robots.dora("topic", "info", "count/number", "--duration", "2")
            assert "machine arm2" in info
            report = robots.report(flow)
            ups = links_up(robots, flow)
            agents = journal(robots, "arm2", "dorad-agent", "attaches, epoch") - connects
            ended = time.monotonic()
        stopped = time.monotonic() - ended
        print(
            f"started in {started:.1f} s, stopped in {stopped:.1f} s; {report}; "
            f"{len(counts)} lines followed; link up {ups} times, agent connected {agents} times"
        )
        assert (report.missing, report.repeated, report.restarts) == (0, 0, 0)
        assert report.longest < MAX_PAUSE_S
        assert started < START_S
        assert stopped < STOP_S
        assert 0 < ups <= MAX_CONNECTS
        assert agents < MAX_CONNECTS
        wait_until(lambda: not robots.pids(flow)["arm2"], "its nodes have ended")


def test_backpressure_over_a_slow_line_slows_its_sender_and_no_other_machine(
    robots: EnrolledFleet,
) -> None:
    pressed = Flow("pressed", hz=1000, queue=20, policy="backpressure")
    free = Flow("free", source="arm1", sinks=("arm3",), hz=100, policy="backpressure")
    with robots.running(free), robots.running(pressed), slow_line(robots):
        robots.flows_on(pressed, within=30)
        first = robots.report(pressed), robots.report(free)
        time.sleep(PRESSED_S)
        robots.flows_on(pressed, within=30)
        last = robots.report(pressed), robots.report(free)
        print(f"{rate(first[0], last[0]):.0f} a second over the slow line of 1000; {last}")
        # All that was sent arrives in order; the node that sends waits instead.
        assert (last[0].missing, last[0].repeated) == (0, 0)
        assert 5 < rate(first[0], last[0]) < 900
        assert rate(first[1], last[1]) > free.hz * 0.8
        began = time.monotonic()
        robots.dora("topic", "list", "-d", pressed.name)
        assert time.monotonic() - began < START_S
